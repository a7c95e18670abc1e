"""Names of folders of results: one rule for photos, clips and persons, and no result is written over another's."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxface.core.errors import InputError
from jaxface.files.inputs import content_digest
from jaxface.files.names import BOOK, Owner, claim_names, result_name


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def make(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or str(path))
    return path


def photos(*paths: Path) -> list[Owner]:
    return [Owner("photo", (path,)) for path in paths]


def clips(*paths: Path) -> list[Owner]:
    return [Owner("clip", (path,)) for path in paths]


def fitted(folder: Path, photo: Path, record: str = "done.json") -> None:
    folder.mkdir(parents=True)
    (folder / record).write_text(json.dumps({"photo": photo.name, "sha256": content_digest(photo)}))


def test_two_clips_of_one_name_have_a_folder_each(tmp_path, out):
    paths = [make(tmp_path / folder / "clip.mp4") for folder in "ab"]
    assert claim_names(out, clips(*paths)) == ["clip", "clip_2"]
    assert claim_names(out, clips(paths[1])) == ["clip_2"]  # also by itself


def test_a_folder_keeps_its_whole_name(tmp_path, out):
    takes = [tmp_path / "take.01", tmp_path / "take.02"]
    for take in takes:
        take.mkdir()
    assert claim_names(out, clips(*takes)) == ["take.01", "take.02"]


def test_a_live_photo_and_its_clip(tmp_path, out):
    photo, clip = make(tmp_path / "IMG_7.png"), make(tmp_path / "IMG_7.mp4")
    assert claim_names(out, photos(photo)) == ["IMG_7"]
    assert claim_names(out, clips(clip)) == ["IMG_7_2"]
    assert claim_names(out, [*clips(clip), *photos(photo)]) == ["IMG_7_2", "IMG_7"]


def test_names_that_differ_by_case_or_spelling_alone(tmp_path, out):
    first, second, third = (make(tmp_path / name / f"{name}.jpg") for name in ("x", "X", "caf\u00e9"))
    assert claim_names(out, photos(first)) == ["x"]
    assert claim_names(out, photos(second)) == ["X_2"]
    other = make(tmp_path / "mac" / "cafe\u0301.jpg")
    assert claim_names(out, photos(third, other))[1] == "cafe\u0301_2"


def test_long_names_are_cut_and_stay_apart(tmp_path, out):
    paths = [make(tmp_path / f"{'ä' * 110}{number}.jpg") for number in range(2)]
    names = claim_names(out, photos(*paths))
    assert len(set(names)) == 2 and all(len(os.fsencode(name)) <= 200 for name in names)
    assert all(name.startswith("ä" * 90) for name in names)
    assert result_name(Path("a" * 200 + ".jpg")) == "a" * 200


@pytest.mark.parametrize(
    "name", ["index.html.jpg", "summary.json.png", "Contact_Sheet.png.jpg", "person.jpg", "dataset.json.png"]
)
def test_names_that_jaxface_writes_itself_are_passed_over(name, tmp_path, out):
    assert claim_names(out, photos(make(tmp_path / name))) == [f"{Path(name).stem}_2"]


def test_links_have_their_own_names(tmp_path, out):
    target = make(tmp_path / "0001.mp4")
    (tmp_path / "anna.mp4").symlink_to(target)
    assert claim_names(out, clips(tmp_path / "anna.mp4", target)) == ["anna", "0001"]


def test_hidden_files_and_the_folder_itself(tmp_path, monkeypatch):
    assert result_name(Path(".jpg")) == "jpg"
    monkeypatch.chdir(tmp_path)
    assert result_name(Path(".")) == tmp_path.name


def test_an_edited_photo_finds_its_folder_again(tmp_path, out):
    photo, other = make(tmp_path / "x.jpg"), make(tmp_path / "other" / "x.jpg")
    assert claim_names(out, photos(photo)) == ["x"]
    fitted(out / "x", photo)
    photo.write_text("cropped")
    assert claim_names(out, photos(photo)) == ["x"]
    assert claim_names(out, photos(other, photo)) == ["x_2", "x"]


def test_results_from_before_there_was_a_book_and_photos_that_moved(tmp_path, out):
    photo = make(tmp_path / "x.jpg")
    fitted(out / "x", photo)
    assert claim_names(out, photos(photo)) == ["x"]
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(out, moved)  # away from the photo: known by its content
    assert claim_names(moved / "out", photos(photo)) == ["x"]
    assert claim_names(moved / "out", photos(make(tmp_path / "b" / "x.jpg"))) == ["x_2"]
    (moved / "out" / BOOK).write_text("[")
    assert claim_names(moved / "out", photos(photo)) == ["x"]


def test_a_copy_shares_results_until_it_is_edited(tmp_path, out):
    photo, copy = make(tmp_path / "a" / "x.jpg", "pixels"), make(tmp_path / "b" / "x.jpg", "pixels")
    assert claim_names(out, photos(photo)) == ["x"]
    fitted(out / "x", photo)
    assert claim_names(out, photos(copy)) == ["x"]
    copy.write_text("cropped")
    assert claim_names(out, photos(copy)) == ["x_2"]
    assert claim_names(out, photos(photo)) == ["x"]


def test_other_files_are_left_alone(tmp_path, out):
    photo = make(tmp_path / "x.jpg")
    make(out / "X" / "thesis.doc")
    assert claim_names(out, photos(photo)) == ["x_2"]
    shutil.rmtree(out / "X")
    assert claim_names(out, photos(photo)) == ["x_2"]
    make(out / "x_2" / "thesis.doc")
    assert claim_names(out, photos(photo)) == ["x"]


def test_two_persons_in_one_folder(tmp_path, out):
    anna, ben = (tuple(make(tmp_path / who / f"{number}.jpg") for number in range(3)) for who in ("anna", "ben"))
    both = make(tmp_path / "both.jpg")
    assert claim_names(out, [Owner("person", (*anna, both))]) == ["person"]
    assert claim_names(out, [Owner("person", (*ben, both))]) == ["person_2"]
    assert claim_names(out, [Owner("person", (both, *ben[1:]))]) == ["person_2"]  # without one of them
    assert claim_names(out, [Owner("person", anna)]) == ["person"]
    owners = [Owner(kind, (both,)) for kind in ("photo", "photo of person", "photo of person_2")]
    assert claim_names(out, owners) == ["both", "both_2", "both_3"]  # three results, none over another


def test_what_does_not_exist_leaves_no_trace(tmp_path, out):
    assert claim_names(out, photos(tmp_path / "none.jpg")) == ["none"] and not out.exists()
    out.write_text("")
    with pytest.raises(InputError, match="out"):
        claim_names(out, photos(make(tmp_path / "x.jpg")))


def test_many_files_of_one_name_take_no_time(tmp_path, out):
    paths = [Path(f"{number}/image.jpg") for number in range(30_000)]
    start = time.perf_counter()
    names = claim_names(out, photos(*paths))
    assert names[-1] == "image_30000" and len(set(names)) == len(names)
    assert time.perf_counter() - start < 5  # every name against all before took minutes


def test_runs_at_once_do_not_take_the_same_name(tmp_path, out):
    """Threads hold locks against one another as processes do."""
    paths = [make(tmp_path / str(number) / "x.jpg") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        names = list(pool.map(lambda path: claim_names(out, photos(path))[0], paths))
    assert sorted(names) == sorted(["x", *(f"x_{number}" for number in range(2, 13))])
    assert claim_names(out, photos(*paths)) == names
