"""A folder of a hundred files, and what takes time replaced, for the tests of the loop over photos."""

import pytest

from jaxface.results import photos
from toys import photos as toys


@pytest.fixture
def stand_ins(monkeypatch):
    """Detector and writer that take no time."""
    monkeypatch.setattr(photos, "preprocess_photo", toys.find_faces)
    monkeypatch.setattr(photos, "write_photo", toys.write_photo)


@pytest.fixture(scope="module")
def hundred_files(tmp_path_factory):
    return toys.make_folder(tmp_path_factory.mktemp("hundred") / "photos")


@pytest.fixture(scope="module")
def expected(hundred_files, tmp_path_factory):
    """The report, and the files, of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("expected") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, "preprocess_photo", toys.find_faces)
        patch.setattr(photos, "write_photo", toys.write_photo)
        report, pages = toys.process(hundred_files, out)
    return report, pages, toys.tree(out)
