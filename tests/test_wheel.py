"""What is installed: the wheel's files, the losses beside jax and numpy alone, and the rest with the base dependencies.

The environments are empty ones, into which the packages that are installed here are linked: those that the wheel asks
for, with all that these ask for, and no others.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

LOSS_AND_DRAWING = """
import jax.numpy as jnp
import jaxface
from jaxface.losses import grid_anchors, prdl_loss
from jaxface.render import interpolate, rasterize

mask = jnp.zeros((1, 8, 8)).at[:, 2:6, 2:6].set(1)
rows, columns = jnp.nonzero(mask[0])
points = jnp.stack([columns, rows], axis=-1)[None] + 0.5
anchors = grid_anchors(8, 8)
same, moved = (prdl_loss({"nose": p}, {"nose": mask}, anchors=anchors) for p in (points, points + 2))
assert same.shape == (1,) and same < 1e-6 < 0.1 < moved, (same, moved)

corners, depth = jnp.array([[[0, 0], [16, 0], [0, 16.0]]]), jnp.ones((1, 3))
triangles = jnp.array([[0, 1, 2]])
fragments = rasterize(corners, depth, triangles, image_size=(8, 8))
assert fragments.triangle.shape == (1, 8, 8) and (fragments.triangle == 0).all()
x = interpolate(fragments, triangles, corners)[0, 3, :, 0]
assert jnp.allclose(x, jnp.arange(8) + 0.5, atol=1e-5), x
"""

A_FACE = """
import jaxface
from jaxface.fitting.solver import find_recognizer

model = jaxface.load_face_model("anny")
face = jaxface.decode_face(model, jaxface.Coefficients.zeros(model, 1), jaxface.Camera())
assert face.points.shape == (1, len(model.mean_shape), 2)
assert find_recognizer("auto") == ("off", None)
"""

EVERY_MODULE = """
import importlib, pkgutil
import jaxface

for module in pkgutil.walk_packages(jaxface.__path__, "jaxface."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        print(module.name, error.name)
"""

FACES = """
import numpy as np
from PIL import Image
from jaxface.photos.detection import detect_faces

print(len(detect_faces(np.asarray(Image.open("me.png").convert("RGB")))) > 2)
"""

READ_CONFIG = """
import sys
import jaxface
from jaxface.train import read_config

sys.argv = ["train.py", "--config", "quickstart"]
print(jaxface.__file__, read_config(sys.argv).name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the checkout, and nothing there that git ignores goes in."""
    setuptools = Path(pytest.importorskip("setuptools", minversion="77").__file__).parents[1]
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("jaxface", "configs"):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    _python("-c", build, cwd=source, path=str(setuptools))
    (path,) = folder.glob("*.whl")
    return path


def _python(*arguments: str, cwd: Path, python: Path | str = sys.executable, code: int = 0, path: str = "") -> str:
    """What a fresh Python says; its exit code is to be `code`."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | ({"PYTHONPATH": path} if path else {})
    command = [str(python), *arguments]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == code and "Traceback" not in result.stderr, result.stdout + result.stderr
    return result.stdout + result.stderr


def _with_what_they_need(requirements: list[str]) -> dict[str, metadata.Distribution]:
    """The distributions of requirements, extras left out, and of what these require in turn."""
    requirement = pytest.importorskip("packaging.requirements").Requirement
    found: dict[str, metadata.Distribution] = {}
    rest = [requirement(text) for text in requirements]
    while rest:
        one = rest.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        found[name] = metadata.distribution(name)
        rest += [requirement(text) for text in found[name].requires or ()]
    return found


def _environment(folder: Path, wheel: Path, requirements: list[str]) -> tuple[Path, dict[str, metadata.Distribution]]:
    """The interpreter of a new environment, and what is in it beside jaxface."""
    _python("-m", "venv", "--without-pip", str(folder), cwd=folder.parent)
    (packages,) = folder.glob("lib/python*/site-packages")
    found = _with_what_they_need(requirements)
    for distribution in found.values():
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__", "bin"}:
            (packages / name).symlink_to(distribution.locate_file(name))
    options = ["--no-deps", "--no-index", "--no-cache-dir", "--disable-pip-version-check"]
    _python("-m", "pip", "--python", str(folder), "install", *options, str(wheel), cwd=folder.parent)
    return folder / "bin" / "python", found


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory):
    return _environment(tmp_path_factory.mktemp("light") / "env", wheel, ["jax", "jaxlib", "numpy", "jaxtyping"])


@pytest.fixture(scope="module")
def base(wheel, tmp_path_factory):
    with zipfile.ZipFile(wheel) as archive:
        (about,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(about).decode().splitlines()
    requirements = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return _environment(tmp_path_factory.mktemp("base") / "env", wheel, requirements)


def test_the_wheel_holds_the_configs_and_assets_but_no_tests(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        configs = {name for name in names if name.startswith("jaxface/training/configs/")}
        for name in configs:
            assert archive.read(name) == (REPOSITORY / "configs" / Path(name).name).read_bytes()
    assert {Path(name).name for name in configs} == {path.name for path in (REPOSITORY / "configs").glob("*.py")}
    sources = [path for path in (REPOSITORY / "jaxface").rglob("*.py") if "configs" not in path.parts]
    assets = [path for path in (REPOSITORY / "jaxface").glob("*/assets/*") if path.is_file()]
    some = {"anny.npz", "face.schema.json", "mediapipe_faces.safetensors", "viewer.html"}
    assert some <= {path.name for path in assets}
    expected = {str(path.relative_to(REPOSITORY)) for path in (*sources, *assets)} | {"jaxface/py.typed"}
    assert {name for name in names if ".dist-info/" not in name} == expected | configs


def test_losses_and_drawing_need_jax_numpy_and_jaxtyping_alone(light, tmp_path):
    python, found = light
    allowed = {"jax", "jaxlib", "numpy", "jaxtyping", "ml-dtypes", "opt-einsum", "scipy", "wadler-lindig"}
    assert found.keys() <= allowed
    assert _python("-c", LOSS_AND_DRAWING, python=python, cwd=tmp_path) == ""
    assert "No module named 'PIL'" in _python(
        "-c", "try: import PIL\nexcept ImportError as error: print(error)", python=python, cwd=tmp_path
    )


def test_the_base_is_light(base):
    heavy = {"flax", "orbax-checkpoint", "tensorstore", "grain", "ml-collections", "trimesh", "matplotlib"}
    assert not base[1].keys() & heavy and {"pillow", "safetensors", "optax", "tqdm"} <= base[1].keys()


def test_face_models_work_with_the_base(base, tmp_path):
    python, _ = base
    assert _python("-c", A_FACE, python=python, cwd=tmp_path) == ""
    shown = _python("-m", "jaxface.convert", "--info", "anny", "--out", "anny.png", python=python, cwd=tmp_path)
    assert "vertices" in shown and (tmp_path / "anny.png").stat().st_size > 10_000


def test_only_networks_and_training_need_more_than_the_base(base, tmp_path):
    output = _python("-c", EVERY_MODULE, python=base[0], cwd=tmp_path)
    refused = dict(line.split() for line in output.splitlines())
    assert {name.split(".")[1] for name in refused} == {"networks", "training", "train"}
    assert set(refused.values()) <= {"flax", "orbax", "grain", "ml_collections", "etils"}


def test_the_program_and_its_missing_extras(base, tmp_path):
    python, _ = base
    program = str(python.with_name("jaxface"))
    assert "  reconstruct  Rec" in _python(program, "--help", python=python, cwd=tmp_path)
    for way in ([program, "train"], ["-m", "jaxface.train"]):
        told = _python(*way, "--config", "quickstart", python=python, cwd=tmp_path, code=2)
        assert told == "error: jaxface train needs ml_collections; run: pip install 'jaxface[train]'\n"
    shutil.copy(REPOSITORY / "docs" / "images" / "demo.png", tmp_path / "me.png")
    told = _python("-m", "jaxface.reconstruct", "me.png", "--checkpoint", "run", python=python, cwd=tmp_path, code=2)
    assert told.endswith("error: an encoder needs orbax; run: pip install 'jaxface[photo]'\n")
    assert _python("-c", FACES, python=python, cwd=tmp_path) == "True\n"


def test_configs_are_found_outside_the_repository(base, tmp_path):
    """With all that is installed here, but the wheel's jaxface."""
    (packages,) = base[0].parents[1].glob("lib/python*/site-packages")
    output = _python("-c", READ_CONFIG, cwd=tmp_path, path=str(packages)).split()
    assert Path(output[0]) == packages / "jaxface" / "__init__.py" and output[1] == "quickstart"
