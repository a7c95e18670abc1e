"""The public surface holds what DESIGN promises: names, documentation, keyword-only options, lightness."""

import importlib
import inspect
import subprocess
import sys

import pytest

import jaxface

PUBLIC_MODULES = [
    "jaxface.core.cameras", "jaxface.core.coefficients", "jaxface.core.faces", "jaxface.core.face_models",
    "jaxface.core.lighting", "jaxface.core.parts",
    "jaxface.losses.prdl", "jaxface.losses.landmark", "jaxface.losses.photometric", "jaxface.losses.perceptual",
    "jaxface.losses.regularization", "jaxface.render", "jaxface.core.skinning", "jaxface.results.fitted_photo",
]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        *("Camera", "Coefficients", "Face", "FaceModel", "decode_face", "fit_photo"),
        *("load_encoder", "load_face_model", "load_parser"),
    ],
)
def test_names_at_the_top(name):
    assert name in dir(jaxface) and getattr(jaxface, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = jaxface.nonsense


def _public_functions():
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        for name, value in vars(module).items():
            public = not name.startswith("_") and getattr(value, "__module__", "").startswith("jaxface")
            if public and (inspect.isfunction(value) or inspect.isclass(value)):
                yield pytest.param(value, id=f"{module_name}.{name}")


@pytest.mark.parametrize("value", list(_public_functions()))
def test_public_things_are_documented(value):
    assert inspect.getdoc(value) and len(inspect.getdoc(value)) > 20


@pytest.mark.parametrize("value", list(_public_functions()))
def test_options_are_keyword_only_after_the_arrays(value):
    if not inspect.isfunction(value):
        return
    for parameter in inspect.signature(value).parameters.values():
        if parameter.name in ("key", "rng"):
            assert parameter.name == "key", "random keys are called key"
        is_option = isinstance(parameter.default, int | float | str | bool) and parameter.default is not None
        if is_option and parameter.name not in ("stride",):
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{value.__name__}({parameter.name}=)"


@pytest.mark.parametrize("package", ["jaxface.losses", "jaxface.render", "jaxface"])
def test_the_light_packages_load_no_heavy_ones(package):
    code = (
        f"import {package}, sys;"
        "print([m for m in ('flax', 'optax', 'orbax', 'grain', 'ml_collections', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_public_function_bears_the_name_of_a_module_beside_it():
    import jaxface.losses
    import jaxface.render

    for package in (jaxface.losses, jaxface.render):
        for name in dir(package):
            try:
                importlib.import_module(f"{package.__name__}.{name}")
            except ModuleNotFoundError:
                continue
            assert inspect.ismodule(getattr(package, name)), f"{package.__name__}.{name} hides a module"
