"""Many photos: their order, what kills a worker or the run, and what is on the disk at every instant of it."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxface import preprocess
from jaxface.core.errors import InputError
from jaxface.files import atomic
from jaxface.files.workers import Workers
from jaxface.photos import batches, preparation, shard_writer
from jaxface.photos.batches import Photo, prepare_photos
from jaxface.photos.folder import FolderSource
from jaxface.photos.parsing import DmlCsrParser
from jaxface.photos.shards import ShardSource, read_lists
from toys import many_photos
from toys.many_photos import DEADLY, SLOW, make_photo, make_photos, stand_in
from toys.photos import tree

pytest.importorskip("array_record")

SIZE, PHOTOS, PER_FILE = 32, 20, 3


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    stand_in(monkeypatch.setattr)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos"), PHOTOS)


def run(photos, out, **options):
    options = {"size": SIZE, "format": "shards", "samples_per_file": PER_FILE} | options
    return preparation.preprocess_files(photos if isinstance(photos, list) else [photos], out, **options)


def written(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if not name.startswith(".") and "sheet" not in name}


def sample_names(folder: Path) -> list[str]:
    source = ShardSource(folder, size=SIZE)
    return [source.name(index) for index in range(len(source))]


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A run that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch.setattr)
        out = tmp_path_factory.mktemp("whole") / "out"
        report = run(photos, out)
    assert report.summary() == "17 photos done, 3 failed"
    return out


def test_where_a_file_ends_follows_from_its_photos(whole):
    assert [one.samples for one in read_lists(whole)] == [4, 3, 3, 3, 3, 4, 1]
    listed = [key for one in read_lists(whole) for key, _ in one.photos]
    assert listed == sorted(listed) and len(listed) == PHOTOS - 1  # the damaged one is to be tried again
    assert sample_names(whole) == sorted(sample_names(whole)) and len(sample_names(whole)) == 21


@pytest.mark.slow
def test_processes_change_nothing(photos, whole, tmp_path):
    assert run(photos, tmp_path / "shards", workers=2).summary() == "17 photos done, 3 failed"
    assert written(tmp_path / "shards") == written(whole)
    for workers in (0, 2):
        run(photos, tmp_path / f"folders{workers}", format="folders", workers=workers)
    assert written(tmp_path / "folders0") == written(tmp_path / "folders2")


@pytest.mark.slow
def test_after_a_kill_at_any_step_the_result_is_the_same(photos, whole, tmp_path, monkeypatch):
    """Everything on the disk is copied before and after each step that changes it: what a kill there would leave."""
    out, copies = tmp_path / "out", []
    monkeypatch.setattr(preparation, "contact_sheet", lambda source: np.zeros((2, 2, 3), np.uint8))

    def copy_around(step):
        def stepped(*arguments):
            for _ in range(2):
                copies.append(tmp_path / f"copy{len(copies)}")
                shutil.copytree(out, copies[-1]) if out.exists() else copies[-1].mkdir()
                if len(copies) % 2:
                    step(*arguments)

        return stepped

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", copy_around(os.replace))
        patch.setattr(atomic, "_to_disk", copy_around(atomic._to_disk))
        run(photos, out)
    assert written(out) == written(whole) and len(copies) > 7 * 2 * 6
    states = {tuple(sorted(tree(copy).items())): copy for copy in copies}
    assert len(states) > 7 * 4  # some steps leave no trace
    found = set()
    for copy in states.values():
        before = {key for one in read_lists(copy) for key, _ in one.photos}
        found.add(len(before))
        report = run(photos, copy)
        assert report.skipped == len(before) and report.done <= 17
        assert written(copy) == written(whole)
        assert not list(copy.glob(".*.unfinished"))
    assert len(found) == 8  # none of seven files, one, ..., all


def test_photos_without_a_face_are_remembered_and_bad_ones_tried_again(photos, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    shutil.copytree(photos, tmp_path / "photos")
    report = run(tmp_path / "photos", tmp_path / "out")
    assert report.summary() == "0 photos done, 19 skipped (already there), 1 failed"
    assert written(tmp_path / "out") == written(whole)
    make_photo(tmp_path / "photos" / "2" / "011.png", 1, 11)  # mended
    make_photo(tmp_path / "photos" / "0" / "0000.png", 1, 200)  # and one that is new
    assert run(tmp_path / "photos", tmp_path / "out").summary() == "2 photos done, 19 skipped (already there)"
    assert {name: content for name, content in written(tmp_path / "out").items() if name in written(whole)} == (
        written(whole)
    )
    names = sample_names(tmp_path / "out")
    assert len(names) == 23 and len(set(names)) == 23 and {"2/011.png/face_0", "0/0000.png/face_0"} < set(names)


@pytest.mark.parametrize("format", ["shards", "folders"])
def test_shares_are_a_partition(photos, whole, tmp_path, format):
    done = [run(photos, tmp_path / "out", format=format, share=share, shares=3).done for share in (3, 1, 2)]
    assert sum(done) == 17 and min(done) > 0
    assert run(photos, tmp_path / "out", format=format).done == 0  # all are there, whoever made them
    if format == "shards":
        assert sample_names(tmp_path / "out") == sample_names(whole)
        keys = [key for one in read_lists(tmp_path / "out") for key, _ in one.photos]
        assert len(keys) == len(set(keys)) == PHOTOS - 1
    else:
        run(photos, tmp_path / "one", format="folders")
        assert written(tmp_path / "out") == written(tmp_path / "one")
    # A photo that is added changes nobody's share.
    shutil.copytree(photos, tmp_path / "more")
    make_photo(tmp_path / "more" / "0" / "0000.png", 1, 200)
    again = [run(tmp_path / "more", tmp_path / "out", format=format, share=share, shares=3) for share in (1, 2, 3)]
    assert sum(report.done for report in again) == 1
    assert (tmp_path / "out" / "contact_sheet_0002_of_0003.png").exists()


def test_photos_of_one_name_in_folders_of_several_shares(tmp_path):
    """Every share knows what folders the others use, in whatever order they work."""
    for person in range(6):
        make_photo(tmp_path / "photos" / f"{person}" / "x.png", 1, person)
    for share in (2, 3, 1):
        run(tmp_path / "photos", tmp_path / "out", format="folders", share=share, shares=3)
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {
        "x", *(f"x_{number}" for number in range(2, 7))
    }  # fmt: skip
    photos = {json.loads(path.read_text())["sha256"] for path in (tmp_path / "out").glob("*/photo.json")}
    assert len(FolderSource(tmp_path / "out", size=SIZE)) == len(photos) == 6


def test_photos_of_one_name_cannot_be_told_apart_in_shards(tmp_path):
    for folder in ("a", "b"):
        make_photo(tmp_path / folder / "x.png", 1, 3)
    with pytest.raises(InputError, match=r"a/x\.png and .*b/x\.png would both be called x\.png; name a folder above"):
        run([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert run(tmp_path, tmp_path / "out").done == 2


def test_two_runs_do_not_write_one_share(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out, share=1, shares=2)
    writer = shard_writer.ShardWriter(out, share=2, shares=2, samples_per_file=3)
    with pytest.raises(InputError, match="another run writes this share"):
        run(photos, out, share=2, shares=2)
    writer.close()
    assert run(photos, out, share=2, shares=2).done > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": 0}, "split into 0 shares"),
        ({"share": 3, "shares": 2}, "numbered from 1 to 2"),
        ({"overwrite": True}, "cannot be overwritten"),
        ({"format": "zip"}, "there are folders, shards"),
    ],
)
def test_what_cannot_be_asked_for(photos, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(photos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_formats_do_not_mix(photos, whole, tmp_path):
    with pytest.raises(InputError, match="was made with format 'jaxface shards'"):
        run(photos, whole, format="folders")


def test_a_disk_that_is_full_stops_the_run(photos, tmp_path, monkeypatch):
    class FullDisk:
        def __init__(self, path, options):
            pass

        def write(self, record):
            raise RuntimeError("No space left on device\nand much more")

        close = write

    monkeypatch.setattr("array_record.python.array_record_module.ArrayRecordWriter", lambda *_: FullDisk(*_))
    with pytest.raises(atomic.DiskFullError, match=r"cannot write .*00000\.array_record: No space left on device$"):
        FullDisk.close = lambda self: None
        run(photos, tmp_path / "out")
    assert not list((tmp_path / "out").glob("samples-*"))


def find_in(images):
    return [many_photos.find_faces(image) for image in images]


@pytest.mark.parametrize("format", ["shards", "folders"])
def test_a_folder_that_cannot_be_made_stops_the_run_at_its_first_photo(photos, tmp_path, monkeypatch, format):
    looked = []
    monkeypatch.setattr(preparation, "detect_faces_in", lambda images: looked.extend(images) or find_in(images))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot (write .*dataset\.json|make the folder .*out)"):
        run(photos, tmp_path / "file" / "out", format=format)
    assert len(looked) <= batches.BATCH


def test_a_photo_that_is_gone_before_it_is_written_is_what_is_missing(photos, tmp_path, monkeypatch):
    path = make_photo(tmp_path / "photos" / "x.png", 1, 1)
    monkeypatch.setattr(preparation, "detect_faces_in", lambda images: path.unlink() or find_in(images))
    failures = run(tmp_path / "photos", tmp_path / "out", format="folders").failures
    assert failures == [f"{path}: no such file or folder"] and not (tmp_path / "out" / "x").exists()


def test_a_folder_that_cannot_be_written_to_is_told_before_any_work(photos, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.os, "access", lambda path, mode: Path(path) != whole)
    with pytest.raises(InputError, match="no permission to write into this folder"):
        run(photos, whole)


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_photo_alone(tmp_path):
    photos = make_photos(tmp_path / "photos", PHOTOS)
    make_photo(photos / "0" / "009.png", DEADLY, 9)
    report = run(photos, tmp_path / "out", workers=2)
    assert report.summary() == "16 photos done, 4 failed"
    assert "killed, perhaps for want of memory" in report.reasons[str(photos / "0" / "009.png")]
    assert len(sample_names(tmp_path / "out")) == 19


class Network(DmlCsrParser):
    """Labels like the stand-in; cannot be sent to another process, and does not like one photo."""

    def __init__(self):
        self.compiled = lambda: None

    def __call__(self, photo, face, alignment, *, path=None):
        if path.name == "003.png":
            raise InputError("not this one")
        return many_photos.label(photo, face, alignment)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_network_that_labels_stays_in_this_process(photos, whole, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(preparation, "create_parser", lambda *arguments, **options: Network())
    report = run(photos, tmp_path / "out", workers=workers)
    assert report.summary() == "16 photos done, 4 failed"
    assert report.reasons[str(photos / "0" / "003.png")] == "not this one"
    names = sample_names(whole)
    assert sample_names(tmp_path / "out") == [name for name in names if name != "0/003.png/face_0"]
    labels, expected = ShardSource(tmp_path / "out", size=SIZE)[0], ShardSource(whole, size=SIZE)[0]
    assert np.array_equal(labels["labels"], expected["labels"])


def finish(image, photo, finding):
    if photo.key == "bad":
        raise KeyError("no such thing")
    return photo.key, int(image[0, 0, 1]), finding


def make_list(folder, count):
    return [Photo(make_photo(folder / f"{number}.png", 1, number), str(number)) for number in range(count)]


def test_something_unforeseen_costs_its_photo_alone(tmp_path):
    photos = make_list(tmp_path, 40)
    photos[3] = Photo(photos[3].path, "bad")

    def look(images, photos):
        if any(photo.key == "30" for photo in photos):
            raise ZeroDivisionError("of a detector")
        return [int(image[0, 0, 1]) for image in images]

    results = list(prepare_photos(photos, look=look, finish=finish, workers=0))
    assert [photo for photo, _ in results] == photos
    for (photo, result), number in zip(results, itertools.count(), strict=False):
        if number in (3, 30):
            assert isinstance(result, InputError) and "something unforeseen" in str(result) and str(photo.path) in (
                str(result)
            )  # fmt: skip
        else:
            assert result == (str(number), number, number)
    assert "KeyError" in str(results[3][1]) and "ZeroDivisionError: of a detector" in str(results[30][1])


@pytest.mark.slow
@pytest.mark.parametrize("road_bytes", [None, 3 * 64 * 64])
def test_the_order_is_kept_and_few_photos_are_on_the_road(tmp_path, monkeypatch, road_bytes):
    if road_bytes:
        monkeypatch.setattr(batches, "_ROAD_BYTES", road_bytes)
    photos, looked = make_list(tmp_path, 120), []

    def look(images, photos):
        looked.append(len(images))
        return [int(image[0, 0, 1]) for image in images]

    found = list(prepare_photos(photos, look=look, finish=finish, workers=2))
    assert found == [(photo, (photo.key, number, number)) for number, photo in enumerate(photos)]
    # Full batches whoever was quicker, or one photo at a time.
    assert looked == ([1] * 120 if road_bytes else [batches.BATCH] * 7 + [8])


def start(photos, out, *options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(preprocess.__file__).parents[1]),
        str(Path(many_photos.__file__).parents[1])])}  # fmt: skip
    return subprocess.Popen(
        [sys.executable, many_photos.__file__, str(photos), str(out), "--format", "shards", *options],
        env=environment, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def processes_of(group: int) -> list[int]:
    found = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True).stdout.split("\n")
    rows = [line.split() for line in found if line.split()]
    return [int(pid) for pid, pgid, state in rows if int(pgid) == group and not state.startswith("Z")]


@pytest.fixture
def slow_photos(tmp_path):
    for number in range(100):
        make_photo(tmp_path / "photos" / f"{number:03}.png", SLOW, number)
    return tmp_path / "photos"


def begun(process, out):
    """Waits until the run has written something."""
    deadline = time.monotonic() + 60
    while not list(out.glob(".samples-*.unfinished")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_run_is_taken_up(slow_photos, tmp_path):
    out = tmp_path / "out"
    process = start(slow_photos, out, "--workers", "2")
    begun(process, out)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    process = start(slow_photos, out, "--workers", "2")
    assert process.communicate(timeout=100)[0].startswith("100 photos done") and process.returncode == 0
    assert sample_names(out) == [f"{number:03}.png/face_0" for number in range(100)]


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(slow_photos, tmp_path):
    process = start(slow_photos, tmp_path / "out", "--workers", "2")
    begun(process, tmp_path / "out")
    assert len(processes_of(process.pid)) >= 3
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors.splitlines()[-1]) == (130, "", "interrupted")
    assert any(not processes_of(process.pid) or time.sleep(0.1) for _ in range(100))  # Python's own helper ends last
    assert not list((tmp_path / "out").glob("*.array_record")) and not list((tmp_path / "out").glob(".*unfinished"))


def test_no_process_is_started_for_a_few_photos(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(batches, "Workers", lambda count, shared: asked.append(count) or Workers(0, shared))
    photos = make_list(tmp_path, batches.PHOTOS_PER_WORKER - 1)
    found = list(prepare_photos(photos, look=lambda images, photos: [0] * len(images), finish=finish, workers=8))
    assert len(found) == len(photos) and asked == [0]


def test_the_list_is_plain(whole):
    first = whole / "samples-0001-of-0001-00000.json"
    content = json.loads(first.read_text())
    assert content["samples"] == sum(faces for _, faces in content["photos"])
    assert content["bytes"] == first.with_suffix(".array_record").stat().st_size
    assert np.array_equal(sorted(content["photos"]), content["photos"])
