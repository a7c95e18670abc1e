"""The loop over photos: what it writes, what it says of bad photos, how it ends, and how it goes on."""

import html.parser
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.files import command_line
from jaxface.files.names import BOOK
from jaxface.fitting import SolvedFace
from jaxface.photos.alignment import Alignment
from jaxface.photos.face_crops import FaceCrop
from jaxface.results import photos
from jaxface.results.drawing import DrawingOptions
from toys import photos as toys
from toys.models import toy_model
from toys.training import toy_batch

SMALL = DrawingOptions(picture_size=64, largest_texture=32)


@pytest.fixture
def model():
    return toy_model()


@pytest.fixture
def toy_photos(tmp_path, monkeypatch, model):
    """Photos in which every bright pixel row is a face, found without MediaPipe; pictures are small."""
    batch = toy_batch(model, 2, 224)

    def find(image, model, *, parser=None, focal=None):
        if image.max() == 0:
            raise InputError("no face found")
        sample = {name: values[0] for name, values in batch.items()}
        alignment = Alignment(scale=2.0, offset_x=0.0, offset_y=0.0, size=224, photo_size=image.shape[:2])
        return [FaceCrop(sample, alignment)] * 2

    monkeypatch.setattr(photos, "preprocess_photo", find)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (120, 112), (90, 80, 70)).save(folder / "a.png")
    Image.new("RGB", (120, 112), (90, 80, 70)).save(folder / "a.jpg")
    Image.new("RGB", (120, 112)).save(folder / "dark.png")
    (folder / "empty.png").touch()
    return folder


def mean_faces(model):
    return lambda samples, initial: [SolvedFace(np.zeros(vector_size(model), np.float32)) for _ in samples]


def process(folder, out, model, **options):
    options = {"solve": mean_faces(model), "description": "test", "settings": {"method": "none"}} | options
    return photos.process_photos([folder], out, model, drawing=SMALL, **options)


@pytest.mark.slow
def test_bad_photos_are_reported_and_the_rest_goes_on(toy_photos, tmp_path, model, capsys):
    out = tmp_path / "out"
    report, pages = process(toy_photos, out, model)
    assert (report.done, len(report.failures), report.exit_code) == (2, 2, 1)
    assert all(name in " ".join(report.failures) for name in ("dark.png", "empty.png"))
    there = sorted(path.name for path in out.iterdir())
    assert there == [BOOK, "a", "a_2", "contact_sheet.png", "index.html", "summary.json"]
    assert pages == [out / "a" / "index.html", out / "a_2" / "index.html", out / "index.html"]
    files = {"face_0", "face_1", "index.html", "photo_overlay.png", "done.json"}
    assert files <= {path.name for path in pages[0].parent.iterdir()}
    assert "settings" not in capsys.readouterr().out
    assert command_line.print_summary(report, pages) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 photos done, 2 failed" and lines[-1] == str(pages[-1])
    assert all(any(name in line for line in lines) for name in ("dark.png: no face", "empty.png: the file is empty"))


@pytest.mark.slow
def test_largest_face_alone(toy_photos, tmp_path, model, stand_ins):
    process(toy_photos, tmp_path / "out", model, faces="largest")
    assert not (tmp_path / "out" / "a" / "face_1").exists()


@pytest.mark.slow
def test_an_encoders_answer_is_the_result_or_the_start(hundred_files, tmp_path, model, stand_ins):
    seen = []

    def predict(photo, found):
        return np.full((len(found), 4), photo.shape[0], np.float32)

    def solve(samples, initial):
        seen.append(initial)
        return [SolvedFace(vector + 1) for vector in initial]

    process(hundred_files, tmp_path / "predicted", model, predict=predict, solve=None)
    assert "64., 64." in (tmp_path / "predicted" / "good_00" / "index.html").read_text()
    process(hundred_files, tmp_path / "fitted", model, predict=predict, solve=solve)
    assert "65., 65." in (tmp_path / "fitted" / "good_00" / "index.html").read_text()
    assert {initial.shape for initial in seen} == {(16, 4), (1, 4)}


def test_a_hundred_files_thirty_of_them_bad(expected, hundred_files):
    report, pages, files = expected
    assert (report.done, len(report.failures), report.exit_code) == (toys.GOOD, toys.BAD, 1)
    summary = json.loads(files["summary.json"])
    assert (len(summary["done"]), summary["skipped"], len(summary["failed"])) == (toys.GOOD, [], toys.BAD)
    reasons = {Path(item["photo"]).name: item["reason"] for item in summary["failed"]}
    assert len(reasons) == toys.BAD and all(reasons.values()) and not any("unexpected" in r for r in reasons.values())
    for name, words in {
        "empty.jpg": "0 bytes", "cut.png": "cut short", "text.jpg": "not a picture", "bomb.png": "million pixels",
        "two_pixels.png": "2 x 1", "black.gif": "no face", "folder.jpg": "is a folder", "phone.heic": "cut short",
        "pipe.jpg": "not a regular file", "dangling.jpg": "no such file",
    }.items():  # fmt: skip
        assert words in reasons[name], name
    folders = {name.split("/")[0] for name in files if "/" in name}
    assert folders == {item["folder"] for item in summary["done"]} and len(folders) == toys.GOOD
    assert {"good_00", "good_00_2", "animated"} <= folders
    assert len(pages) == toys.GOOD + 1


def test_the_overview_shows_every_face_and_every_failure(expected):
    files = expected[2]
    page = files["index.html"].decode()
    links: list[str] = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: links.extend(v for k, v in attributes if k in ("href", "src"))
    parser.feed(page)
    assert len(links) == 2 * toys.GOOD + 1 and set(links) - {"#failed"} <= files.keys()  # nothing from elsewhere
    assert "http" not in page and "<script" not in page
    assert "bomb.png" in page and "million pixels" in page and "Part IoU 0.50" in page


def test_what_is_done_is_skipped_and_what_failed_is_named_again(hundred_files, tmp_path, stand_ins, expected):
    out = tmp_path / "out"
    toys.process(hundred_files, out)
    before = toys.tree(out)
    report, pages = toys.process(hundred_files, out, solve=lambda *_: pytest.fail("solved again"))
    assert (report.done, report.skipped, report.exit_code) == (0, toys.GOOD, 1)
    assert report.reasons.keys() == expected[0].reasons.keys() and len(pages) == toys.GOOD + 1
    assert {**toys.tree(out), "summary.json": b""} == {**before, "summary.json": b""}


def test_other_settings_or_another_version_or_overwrite_make_results_anew(tmp_path, stand_ins, monkeypatch):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    Image.new("RGB", (20, 20), (9, 80, 70)).save(folder / "a.png")

    def done(**options):
        report, _ = toys.process(folder, out, **options)
        return report.done, report.skipped

    assert done() == (1, 0) and done() == (0, 1)
    assert done(settings={"model": "other"}) == (1, 0) and done() == (1, 0)
    assert done(faces="largest") == (1, 0) and done(faces="largest") == (0, 1)
    assert done(faces="largest", overwrite=True) == (1, 0)
    monkeypatch.setattr(photos, "__version__", "0.0")
    assert done(faces="largest") == (1, 0)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["a"]


def test_two_photos_never_share_a_folder(tmp_path, stand_ins):
    paths, out = [tmp_path / "one" / "x.png", tmp_path / "two" / "x.png"], tmp_path / "out"
    for index, path in enumerate(paths):
        path.parent.mkdir()
        Image.new("RGB", (20, 20), (50 + index, 80, 70)).save(path)
        photos.process_photos([path], out, None, solve=toys.solve, description="test", settings={})
    assert sorted(path.parent.name for path in out.glob("*/done.json")) == ["x", "x_2"]
    assert "<h1>2 faces</h1>" in (out / "index.html").read_text()  # of this run and the one before
    (out / "y").mkdir()  # of someone else
    (out / "y" / "notes.txt").touch()
    paths[0].rename(tmp_path / "y.png")
    photos.process_photos([tmp_path / "y.png"], out, None, solve=toys.solve, description="test", settings={})
    assert (out / "y_2" / "done.json").is_file() and (out / "y" / "notes.txt").is_file()


@pytest.mark.slow
def test_nothing_half_written_stays(toy_photos, tmp_path, model, monkeypatch):
    monkeypatch.setattr(photos, "write_photo", lambda folder, *_, **__: (folder / "x").touch() or 1 / 0)
    report, pages = process(toy_photos, tmp_path / "out", model)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [BOOK, "summary.json"]
    assert (report.done, pages, report.exit_code) == (0, [], 2)
    assert "unexpected ZeroDivisionError" in report.failures[-1] and "photos.py, line" in report.failures[-1]


def test_a_missing_dependency_ends_the_job(hundred_files, tmp_path, monkeypatch):
    def find(image, model, *, parser=None, focal=None):
        raise MissingDependencyError("install it")

    monkeypatch.setattr(photos, "preprocess_photo", find)
    with pytest.raises(MissingDependencyError, match="install it"):
        toys.process(hundred_files, tmp_path / "out")


def test_vectors_that_are_not_numbers_are_no_result(hundred_files, tmp_path, stand_ins):
    report, _ = photos.process_photos(
        [hundred_files / "animated.gif"],
        tmp_path / "out",
        None,
        solve=lambda samples, initial: [SolvedFace(np.full(4, np.nan)) for _ in samples],
        description="test",
        settings={},
    )
    assert report.exit_code == 2 and "not finite" in report.failures[0]


def test_a_photo_that_changes_meanwhile_is_reported(tmp_path, stand_ins):
    path = tmp_path / "x.png"
    Image.new("RGB", (20, 20), (50, 80, 70)).save(path)

    def solve(samples, initial):
        Image.new("RGB", (20, 20), (51, 80, 70)).save(path)
        return toys.solve(samples, initial)

    report, _ = photos.process_photos([path], tmp_path / "out", None, solve=solve, description="test", settings={})
    assert "changed while" in report.failures[0]


@pytest.mark.slow
def test_out_may_not_be_a_file(toy_photos, tmp_path, model):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="is a file"):
        process(toy_photos, tmp_path / "out", model)
    with pytest.raises(InputError, match="cannot make the folder"):
        process(toy_photos, tmp_path / "out" / "deeper", model)


def test_only_missing_photos_is_a_failure(tmp_path, model):
    report, pages = process(tmp_path / "none.jpg", tmp_path / "out", model)
    assert (report.exit_code, pages) == (2, [])
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == {
        "done": [],
        "skipped": [],
        "failed": [{"photo": str(tmp_path / "none.jpg"), "reason": "no such file or folder"}],
        "earlier": {"done": [], "failed": []},
        "clips": [],
    }


def test_without_the_photos_light_it_is_another_result(hundred_files, tmp_path, stand_ins):
    path, out = hundred_files / "animated.gif", tmp_path / "out"
    options = {"solve": toys.solve, "description": "test", "settings": {}}
    for delight, done in ((False, 1), (True, 1), (True, 0)):
        report, pages = photos.process_photos([path], out, None, drawing=DrawingOptions(delight=delight), **options)
        assert (report.done, report.skipped) == (done, 1 - done)
        assert f"delight={delight}" in pages[0].read_text()


def toy_process(path, out, **options):
    """`process_photos` with the stand-ins, in no time."""
    options = {"solve": toys.solve, "description": "test", "settings": {}} | options
    return photos.process_photos([path], out, None, **options)[0]


def test_two_runs_at_once_keep_the_results_of_both(tmp_path, stand_ins):
    """The same photos twice, and others of the same names, into one folder at the same time."""
    out, folders = tmp_path / "out", [tmp_path / "one", tmp_path / "two"]
    for color, folder in enumerate(folders):
        folder.mkdir()
        for name in "abc":
            Image.new("RGB", (20, 20), (200, 90 * color, 70)).save(folder / f"{name}.png")
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda folder: toy_process(folder, out), [*folders, folders[0]]))
    assert all(report.done + report.skipped == 3 and report.exit_code == 0 for report in reports)
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*/done.json"))]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["a", "a_2", "b", "b_2", "c", "c_2"]
    assert len({record["sha256"] for record in records}) == 2
    summary = json.loads((out / "summary.json").read_text())
    told = summary["done"] + summary["skipped"] + summary["earlier"]["done"]
    assert sorted(one["folder"] for one in told) == ["a", "a_2", "b", "b_2", "c", "c_2"]


def test_results_beside_the_photos_are_no_photos(tmp_path, stand_ins, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "ab":
        Image.new("RGB", (20, 20), (200, 90, 70)).save(folder / f"{name}.png")
    assert toy_process(folder, folder).done == 2
    Image.new("RGB", (20, 20), (200, 90, 70)).save(folder / "a" / "crop.png")
    Image.new("RGB", (20, 20), (200, 90, 70)).save(folder / "contact_sheet.png")
    report = toy_process(folder, folder)
    assert (report.done, report.skipped, report.exit_code) == (0, 2, 0)
    assert "left out: 3 folders and files such as " in capsys.readouterr().err


def test_an_edited_photo_is_made_anew_in_its_place(tmp_path, stand_ins):
    photo, out = tmp_path / "a.png", tmp_path / "out"
    for color, overwrite in ((90, False), (150, False), (210, True)):
        Image.new("RGB", (20, 20), (200, color, 70)).save(photo)
        assert toy_process(photo, out, overwrite=overwrite).done == 1
        assert [path.name for path in out.iterdir() if path.is_dir()] == ["a"]
