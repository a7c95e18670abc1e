"""What jaxface wrote is no input: folders with its records are left out, and the run says so."""

import json
from pathlib import Path

import pytest
from PIL import Image

from jaxface.core.errors import InputError
from jaxface.files.inputs import collect_files
from jaxface.files.own_results import is_own_folder

RECORDS = {
    "done.json": {"photo": "a.jpg", "sha256": None, "settings": {}},
    "photo.json": {"photo": "a.jpg", "sha256": "0", "faces": 1},
    "track.json": {"schema": "jaxface track 1"},
    "person.json": {"schema": "jaxface person 1"},
    "coefficients.json": {"schema": "jaxface face 1"},
    "dataset.json": {"format": "jaxface shards"},
}


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Two photos, and the results of one of them beside it."""
    folder = tmp_path / "photos"
    for name in ("a.png", "deep/b.png", "a/face_0/crop.png", "a/photo_overlay.png", "contact_sheet.png"):
        picture(folder / name)
    (folder / "a" / "done.json").write_text(json.dumps(RECORDS["done.json"], indent=1))
    (folder / "summary.json").write_text(json.dumps({"done": [], "skipped": [], "failed": []}, indent=1))
    return folder


@pytest.mark.parametrize("record", RECORDS)
def test_records_tell(record, tmp_path):
    (tmp_path / record).write_text(json.dumps(RECORDS[record]))
    assert is_own_folder(tmp_path)
    (tmp_path / record).write_text(json.dumps({"mine": True}))
    assert not is_own_folder(tmp_path)


def test_results_among_the_photos_are_left_out(photos, capsys):
    wanted = [photos / "a.png", photos / "deep" / "b.png"]
    assert collect_files([photos], exclude=photos) == wanted
    error = capsys.readouterr().err
    assert error.startswith("left out: 2 folders and files such as ") and "jaxface itself" in error
    assert collect_files([photos / "**" / "*.png"]) == wanted  # a pattern in quotes
    assert collect_files([*sorted(photos.iterdir())])[:2] == wanted  # as a shell expands photos/*
    assert collect_files([photos / "a" / "face_0" / "crop.png"])  # by its own name
    capsys.readouterr()
    (photos / "contact_sheet.png").unlink()
    collect_files([photos])
    assert capsys.readouterr().err == f"left out: {photos / 'a'}: was written by jaxface itself\n"


def test_a_contact_sheet_of_the_users_own_is_a_photo(tmp_path):
    sheet = picture(tmp_path / "contact_sheet.png")
    assert collect_files([tmp_path]) == [sheet]


def test_nothing_but_results(photos):
    with pytest.raises(InputError, match=r"a: was written by jaxface itself, and nothing else is there; name photos"):
        collect_files([photos / "a"])
