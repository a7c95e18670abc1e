"""Strict settings for every test, and the compiled things that many tests share."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def anny():
    """The built-in face model, loaded once."""
    import jaxface

    return jaxface.load_face_model("anny")


@pytest.fixture(scope="module")
def quick_compilation():
    """Compiles the tests of a module in half the time, to slower code: for large programs that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
