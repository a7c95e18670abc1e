"""The house keeps its order: read from the source of every module, imports inside functions and for types included."""

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

ROOMS = (
    "core", "render", "losses", "files", "models", "networks", "photos", "synthetic", "fitting", "clips", "texture",
    "results", "annotation", "training",
)  # fmt: skip
"""Each imports from itself and from those before it. The commands, and `import jaxface` itself, stand on top."""

LIGHT_ROOMS, LIGHT_PACKAGES = ("core", "render", "losses"), {"jax", "numpy", "jaxtyping"}

ENTRIES, LINES = 26, 400

Imports = dict[str, set[str]]


def _imports(root: Path) -> Imports:
    """Module -> what it imports, wherever in the file: of the package itself modules, of others their full names."""
    modules = {_name(root, path): path for path in root.rglob("*.py")}
    return {name: set(_imported(path, modules)) - {name} for name, path in modules.items()}


def _name(root: Path, path: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import; write the module's full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules else str(node.module)


def _room(module: str) -> str:
    """The room of a module of the package; "" for the package itself and the commands."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


def _arrows_upward(imports: Imports) -> list[str]:
    def floor(module: str) -> int:
        return ROOMS.index(_room(module)) if _room(module) else len(ROOMS)

    return sorted(
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others & imports.keys()
        if floor(other) > floor(module)
    )


def _circles(imports: Imports) -> list[str]:
    """The modules that remain when, again and again, those are taken away that import none of the rest or that none of
    the rest imports: those on circles and between them."""
    rest = {module: others & imports.keys() for module, others in imports.items()}
    while True:
        wanted = set().union(*rest.values()) if rest else set()
        kept = {module: others & rest.keys() for module, others in rest.items() if others and module in wanted}
        if kept == rest:
            return sorted(rest)
        rest = {module: others & kept.keys() for module, others in kept.items()}


def _heavy_imports_of_light_rooms(imports: Imports) -> list[str]:
    light = LIGHT_PACKAGES | set(sys.stdlib_module_names)
    return sorted(
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others - imports.keys()
        if _room(module) in LIGHT_ROOMS and other.partition(".")[0] not in light
    )


def _private_imports(package: Path) -> list[str]:
    """Names with a leading underscore that a module takes from another; modules of one room share private modules."""
    found = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("jaxface"):
                continue
            own_room = package.parent.joinpath(*(node.module or "").split(".")) == path.parent
            found += [
                f"{path.name} takes {alias.name} from {node.module}"
                for alias in node.names
                if alias.name.startswith("_") and not alias.name.startswith("__") and not own_room
            ]
    return found


def _entries(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != "__pycache__" and not path.name.startswith("."))


def _unknown_rooms(root: Path) -> list[str]:
    return sorted({path.name for path in root.iterdir() if (path / "__init__.py").exists()} - set(ROOMS))


def _long_files(folder: Path) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_")) and name not in ("outputs", "build")]
        for path in (Path(place) / name for name in files if name.endswith(".py")):
            if path.read_text(encoding="utf-8").count("\n") > LINES:
                found.append(str(path.relative_to(folder)))
    return sorted(found)


@pytest.fixture(scope="module")
def imports():
    return _imports(REPOSITORY / "jaxface")


def test_every_module_was_read(imports):
    assert {_room(module) for module in imports} == {*ROOMS, ""} and len(imports) > 100
    assert "jaxface.core.cameras" in imports["jaxface.core.faces"]


def test_imports_point_downward(imports):
    """The commands are on top, so no room imports one."""
    assert _arrows_upward(imports) == []


def test_no_imports_run_in_a_circle(imports):
    assert _circles(imports) == []


def test_foundations_drawing_and_losses_need_jax_numpy_and_jaxtyping_alone(imports):
    assert _heavy_imports_of_light_rooms(imports) == []


def test_no_private_name_is_taken_from_another_module():
    assert _private_imports(REPOSITORY / "jaxface") == []


def test_every_room_has_its_place_in_the_order():
    assert _unknown_rooms(REPOSITORY / "jaxface") == []


def test_the_top_level_is_a_list_that_one_can_read():
    assert len(_entries(REPOSITORY / "jaxface")) <= ENTRIES


def test_a_file_fits_in_a_head():
    assert not _long_files(REPOSITORY)


@pytest.fixture
def house(tmp_path):
    """A small house in order; each test below breaks one rule in it."""
    files = {
        "__init__.py": "",
        "fit.py": "from jaxface.fitting import solver\n",
        "core/__init__.py": "",
        "core/faces.py": "import jax.numpy as jnp\nimport math\nfrom jaxtyping import Float\n",
        "losses/__init__.py": "from jaxface.losses.prdl import loss\n",
        "losses/prdl.py": "from jaxface.core import faces\nloss = 1\n",
        "fitting/__init__.py": "",
        "fitting/solver.py": "import optax\nimport jaxface.losses\nfrom jaxface.core.faces import jnp\n",
    }
    for name, text in files.items():
        path = tmp_path / "jaxface" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = _imports(tmp_path / "jaxface")
    assert found["jaxface.fit"] == {"jaxface.fitting.solver"} and found["jaxface.losses"] == {"jaxface.losses.prdl"}
    assert not _arrows_upward(found) and not _circles(found) and not _heavy_imports_of_light_rooms(found)
    assert not _unknown_rooms(tmp_path / "jaxface") and not _long_files(tmp_path)
    return tmp_path / "jaxface"


LATER = "def later():\n    {}\n"
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}\n"


@pytest.mark.parametrize("form", ["{}\n", LATER, FOR_TYPES])
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("from jaxface.fitting.solver import solve", "jaxface.core.faces imports jaxface.fitting.solver"),
        ("from jaxface.fitting import solver", "jaxface.core.faces imports jaxface.fitting.solver"),
        ("import jaxface.losses.prdl", "jaxface.core.faces imports jaxface.losses.prdl"),
        ("from jaxface.fit import main", "jaxface.core.faces imports jaxface.fit"),
        ("from jaxface import fit_photo", "jaxface.core.faces imports jaxface"),
    ],
)
def test_an_arrow_upward_is_found(house, form, line, told):
    (house / "core" / "faces.py").write_text(form.format(line))
    assert _arrows_upward(_imports(house)) == [told]


def test_a_circle_is_found(house):
    (house / "losses" / "grids.py").write_text(LATER.format("from jaxface.losses import prdl"))
    (house / "losses" / "prdl.py").write_text("from jaxface.losses.grids import grid\nfrom jaxface.core import faces\n")
    assert _circles(_imports(house)) == ["jaxface.losses.grids", "jaxface.losses.prdl"]


@pytest.mark.parametrize("line", ["import scipy.sparse as sp", "from flax import linen", "import PIL"])
def test_a_heavy_import_of_a_light_room_is_found(house, line):
    (house / "losses" / "prdl.py").write_text(LATER.format(line))
    assert _heavy_imports_of_light_rooms(_imports(house)) == [f"jaxface.losses.prdl imports {line.split()[1]}"]


def test_a_relative_import_is_refused(house):
    (house / "losses" / "prdl.py").write_text("from ..fitting import solver\n")
    with pytest.raises(AssertionError, match="relative"):
        _imports(house)


def test_a_private_name_of_another_module_is_found(house):
    assert not _private_imports(house)
    (house / "fitting" / "descent.py").write_text("from jaxface.fitting.solver import _solve\n")
    assert _private_imports(house) == ["descent.py takes _solve from jaxface.fitting.solver"]


def test_a_room_without_a_place_is_found(house):
    (house / "attic").mkdir()
    (house / "attic" / "__init__.py").touch()
    assert _unknown_rooms(house) == ["attic"]


def test_entries_are_counted_without_what_python_leaves(house):
    (house / "__pycache__").mkdir()
    assert _entries(house) == ["__init__.py", "core", "fit.py", "fitting", "losses"]


def test_a_long_file_is_found(house):
    (house.parent / "tests").mkdir()
    (house.parent / "tests" / "test_long.py").write_text("pass\n" * (LINES + 1))
    (house / "core" / "faces.py").write_text("pass\n" * LINES)
    assert _long_files(house.parent) == ["tests/test_long.py"]
