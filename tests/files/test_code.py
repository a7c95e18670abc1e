"""The files that decide what a module does: followed through every kind of import, and no others."""

import subprocess
import sys
from pathlib import Path

import pytest

import jaxface
from jaxface.files.code import imported_files
from jaxface.synthetic import source
from toys.models import toy_model

PACKAGE = Path(jaxface.__file__).parent

FILES = {
    "__init__.py": "from parcel.unused import nothing\n",
    "start.py": "import json\nimport numpy as np\nfrom parcel.chain import one\nimport parcel.tools.hammer as h\n"
    "def f():\n    from parcel.lazy import sleep, other as o\n    return 'import parcel.text'\n",
    "chain.py": "from parcel import middle\nfrom other.thing import x\ndef one(): ...\n",
    "middle.py": "if True:\n    import parcel.end\n",
    "end.py": "import parcel.start  # round in a circle\n",
    "lazy.py": "def sleep(): ...\nclass other: ...\n",
    "one.py": "",
    "unused.py": "nothing = 0\n",
    "text.py": "",
    "tools/__init__.py": "from parcel.tools.saw import cut\n",
    "tools/hammer.py": "",
    "tools/saw.py": "def cut(): ...\n",
    "tools/unused.py": "",
}


@pytest.fixture
def parcel(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / "parcel" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "parcel"


def names(files, folder):
    return [file.relative_to(folder).as_posix() for file in files]


def test_files_are_found_through_every_kind_of_import(parcel):
    # `one` is a function of chain.py, not the file one.py; a folder's own file runs before what is in the folder.
    expected = ["chain.py", "end.py", "lazy.py", "middle.py", "start.py"]
    expected += ["tools/__init__.py", "tools/hammer.py", "tools/saw.py"]
    assert names(imported_files("parcel.start"), parcel) == sorted(expected)
    assert names(imported_files("parcel.middle"), parcel) == sorted(expected)
    assert names(imported_files("parcel.tools"), parcel) == ["tools/__init__.py", "tools/saw.py"]
    assert names(imported_files("parcel.text"), parcel) == ["text.py"]


def test_nothing_is_run(parcel):
    (parcel / "one.py").write_text("import parcel.text\nraise SystemExit\n")
    assert names(imported_files("parcel.one"), parcel) == ["one.py", "text.py"]


def test_the_code_that_draws_synthetic_faces():
    found = set(names(imported_files("jaxface.synthetic.source"), PACKAGE))
    drawing = {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "synthetic").glob("*.py")}
    drawing.remove("synthetic/photographs.py")  # draws no training data
    core = {f"core/{name}.py" for name in ("skinning", "landmarks", "faces", "lighting", "cameras", "coefficients")}
    assert drawing | core | {"render/rasterizer.py", "render/labels.py", "photos/samples.py"} <= found
    rooms = {name.partition("/")[0] for name in found}
    assert not rooms & {"results", "training", "fitting", "networks", "clips", "texture", "annotation"}
    assert not {name for name in found if "/" not in name}


RUN = "import sys, {module}; print(sorted(n for n in sys.modules if n.startswith('jaxface.') and n.count('.') > 0))"


def test_whatever_is_imported_when_it_runs_is_found():
    """The definition: what Python itself has loaded of the package, but for what its first file loads."""
    run = subprocess.run(
        [sys.executable, "-c", RUN.format(module="jaxface.synthetic.source")],
        capture_output=True, text=True, check=True, cwd=PACKAGE.parent,
    )  # fmt: skip
    loaded = {name.replace(".", "/") for name in eval(run.stdout)}
    found = {name.removesuffix(".py").removesuffix("/__init__") for name in
             names(imported_files("jaxface.synthetic.source"), PACKAGE.parent)}  # fmt: skip
    assert loaded - {"jaxface/core/version"} <= found


def fingerprint():
    return source._fingerprint(source.Painter.of(toy_model(), seed=0), {"count": 1, "size": 32})


@pytest.mark.parametrize("changed", ["core/skinning.py", "render/rasterizer.py", "synthetic/occluders.py"])
def test_the_caches_fingerprint_changes_with_the_bytes_of_a_file(changed, monkeypatch):
    before, read = fingerprint(), Path.read_bytes
    assert fingerprint() == before
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path == PACKAGE / changed))
    assert fingerprint() != before


def test_the_caches_fingerprint_does_not_change_with_other_files(monkeypatch):
    before, read = fingerprint(), Path.read_bytes
    others = [PACKAGE / "results", PACKAGE / "training", PACKAGE / "__init__.py"]
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: read(path) + b"#" * any(path.is_relative_to(one) for one in others)
    )
    assert fingerprint() == before
