"""The contact sheet of `preprocess`: there after the last run, whatever stopped those before."""

import pytest

from jaxface.photos import preparation
from toys.many_photos import make_photo, make_photos, stand_in


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    stand_in(monkeypatch.setattr)


@pytest.mark.parametrize("format", ["folders", "shards"])
def test_a_contact_sheet_that_a_kill_prevented_is_made_by_the_next_run(tmp_path, format):
    photos, out = make_photos(tmp_path / "photos", 9), tmp_path / "out"
    preparation.preprocess_files([photos], out, size=32, format=format, workers=0)
    before = (out / "contact_sheet.png").read_bytes()
    (out / "contact_sheet.png").unlink()
    assert preparation.preprocess_files([photos], out, size=32, format=format, workers=0).done == 0
    assert (out / "contact_sheet.png").read_bytes() == before


def test_where_no_photo_shows_a_face_there_is_no_sheet(tmp_path):
    make_photo(tmp_path / "photos" / "dark.png", 0, 1)
    for _ in range(2):
        report = preparation.preprocess_files([tmp_path / "photos"], tmp_path / "out", size=32, format="shards")
        assert report.done == 0 and not (tmp_path / "out" / "contact_sheet.png").exists()
