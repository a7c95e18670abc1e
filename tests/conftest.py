"""Strict settings for every test, the order in which files run, and the compiled things that many tests share."""

import gc
import os
from pathlib import Path

TESTS = Path(__file__).parent

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# For the workers, which inherit it: with as many of them as cores, the threads of numpy's linear algebra would mostly
# wait for one another, and take ten times as long as one thread does.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What one process compiled, all others load: the two workers, the programs that tests start, and the next run. An entry
# is named by a hash of the program, its options, the devices and jaxlib's version, so none is ever out of date.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(TESTS.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

SLOWEST_FIRST = (
    "training/test_objective.py",
    "fitting/test_fitting.py",
    "experiments/test_prdl_vs_rivals.py",
    "test_fit.py",
    "experiments/test_prdl_ablation.py",
    "results/test_person.py",
    "training/test_parallel.py",
    "losses/test_prdl.py",
    "losses/test_pixel_prdl.py",
    "test_reconstruct_published.py",
    "experiments/test_photo_fit.py",
    "experiments/test_scan_accuracy.py",
    "losses/test_silhouette_losses.py",
    "losses/test_point_sets.py",
    "losses/test_perceptual.py",
    "benchmarks/test_prdl.py",
    "benchmarks/test_accelerator.py",
    "benchmarks/test_preprocess.py",
    "photos/test_batches.py",
    "experiments/test_prdl_bias.py",
    "test_notebook.py",
    "test_train.py",
    "synthetic/test_source.py",
    "training/test_configs.py",
    "test_lowered.py",
    "losses/test_prdl_on_accelerators.py",
    "render/test_on_accelerators.py",
    "experiments/test_prdl_gradients.py",
)
"""Files of half a minute and more. Each runs in one worker: one that began last would keep the other worker waiting."""


def pytest_configure(config):
    # An entry that another process is still writing, or was killed while writing, cannot be read; it is compiled again.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache entry")


def pytest_collection_modifyitems(items):
    rank = {TESTS / name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


MAPS, MOST_MAPS = Path("/proc/self/maps"), 30_000
"""A compiled program takes some pieces of memory, of which Linux allows a process 65,530: one more, and it crashes."""


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs():
    """Drops what was compiled, between files, before there is too much of it; the cache on the disk has it still."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


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
