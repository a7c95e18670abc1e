"""Every public name is documented, and the documentation knows every room; told without building it."""

import importlib.util
import re
from pathlib import Path

import pytest

from test_structure import ROOMS

DOCS = Path(__file__).parents[1] / "docs"


def load(name: str):
    specification = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def api_pages():
    return load("api_pages")


def test_every_public_name_is_documented(api_pages):
    modules = api_pages.modules()
    assert len(modules) > 100 and "jaxface.losses.prdl" in modules and "jaxface.losses._grids" not in modules
    assert [name for module, path in modules.items() for name in api_pages.undocumented(module, path)] == []


def test_an_undocumented_name_is_found(api_pages, tmp_path):
    module = tmp_path / "toy.py"
    module.write_text('''
FIRST, SECOND = 1, 2
THIRD = 3  # said beside
_FOURTH = 4
Shapes = dict[str, int]

class Thing:
    """Something.

    Attributes:
        told: a number.
    """

    told: int
    silent: int

    def method(self): ...

    def _helper(self): ...

def function(): ...

def documented():
    """Does nothing."""
''')
    missing = ["toy", "toy.Thing.silent", "toy.Thing.method", "toy.function", "toy.FIRST", "toy.SECOND"]
    assert sorted(api_pages.undocumented("toy", module)) == sorted(missing)


def test_links_between_pages_stay_in_the_documentation():
    for page in DOCS.rglob("*.md"):
        for link in re.findall(r"[^!]\[[^]]*\]\(([^):#]+\.md)", page.read_text()):
            assert DOCS in (page.parent / link).resolve().parents, (page, link)  # Sphinx knows no other page


def test_the_architecture_page_lists_the_rooms_in_reading_order(api_pages):
    assert tuple(api_pages.rooms()) == ROOMS


def test_docstrings_are_shown_as_they_were_written(api_pages):
    written = ["|b - a| of `a_` and x_.", "", "    code = 1", "", "Args:", "    n: a number.", "", "name    what it is"]
    shown = [r"\|b - a\| of `a_` and x\_.", "", "::", "", "        code = 1", "", "Args:", "    n: a number.", ""]
    assert api_pages.plain_text(written) == [*shown, "::", "", "    name    what it is", ""]


def test_the_drawing_shows_the_rooms_as_they_are():
    """After a change of the table: python docs/draw_house.py."""
    drawing = load("draw_house")
    assert drawing.PICTURE.read_text() == drawing.house()
