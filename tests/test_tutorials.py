"""The pages of the documentation run as they are printed: python and shell, from top to bottom, in an empty folder."""

import importlib.util
import os
import shutil
import subprocess
import sys

import jax
import pytest

from jaxface.models.registry import FORMATS
from jaxface.networks.encoder import ENCODERS
from jaxface.results.demo import portrait_paths
from jaxface.results.exporters import EXPORTERS
from jaxface.training.terms import TERMS
from toys.documents import PAGES, ROOT, read_blocks

# Pages whose python needs a photo, and so the detector.
NEED_PHOTOS = {"fit_a_photo.md", "train_on_your_photos.md"}

RUNNING = [page for page in PAGES if any(not block.not_run for block in read_blocks(page))]


@pytest.fixture
def registries():
    """What an example adds to them is taken away again."""
    before = [(registry, dict(registry)) for registry in (FORMATS, TERMS, ENCODERS, EXPORTERS)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder, and a program `jaxface` that starts this checkout's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, start in (("python", sys.executable), ("jaxface", f"{sys.executable} -m jaxface")):
        (programs / name).write_text(f'#!/bin/sh\nexec {start} "$@"\n')
        (programs / name).chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", "")  # programs have one device, as on a laptop
    jax.config.update("jax_numpy_rank_promotion", "allow")  # as a reader has it
    yield folder
    jax.config.update("jax_numpy_rank_promotion", "raise")


def run_page(page):
    """Runs the blocks of a page; its python shares one namespace."""
    names = {"__name__": page.stem}
    for block in read_blocks(page):
        if block.not_run:
            continue
        if block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
        else:
            result = subprocess.run(["bash", "-e", "-c", block.text], capture_output=True, text=True)
            assert result.returncode == 0, f"{block.text}\n{result.stdout}\n{result.stderr}"


@pytest.mark.slow
@pytest.mark.usefixtures("registries")
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("page", RUNNING, ids=[page.name for page in RUNNING])
def test_a_page_runs(page, workplace, monkeypatch):
    if page.name in NEED_PHOTOS:
        if importlib.util.find_spec("skimage") is None:
            pytest.skip("needs jaxface[photo]: scikit-image")
        (workplace / "photos").mkdir()
        for path in portrait_paths().values():
            shutil.copy(path, workplace / "photos")
    if page.name == "train_on_your_photos.md":  # large programs that run for two steps
        monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    run_page(page)


def test_the_tutorials_are_among_them():
    assert {page.name for page in RUNNING if page.parent.name == "tutorials"} == {
        path.name for path in (ROOT / "docs" / "tutorials").glob("*.md")
    }


def test_a_page_that_does_not_hold_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\n<!-- not run: no -->\n```python\nx = 2\n```\n```python\nassert x == 2\n```\n"
    )
    with pytest.raises(AssertionError):
        run_page(page)
