"""Files of many samples: what is written is read back; what is damaged is named; nothing depends on who wrote what."""

import dataclasses
import json
import pickle
import sys

import numpy as np
import pytest

from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.photos import preparation, shards
from jaxface.photos.alignment import Alignment
from jaxface.photos.face_crops import FaceCrop
from jaxface.photos.folder import FolderSource
from jaxface.photos.shard_writer import ShardWriter
from jaxface.photos.shards import ShardSource, encode_record, open_samples
from toys.many_photos import make_photos, stand_in
from toys.stand_ins import corruptions

array_record = pytest.importorskip("array_record.python.array_record_module")
safetensors = pytest.importorskip("safetensors.numpy")

SIZE, PHOTOS = 32, 20
SAMPLES = 21  # of 20 photos two have no face, one is damaged, and four have two


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The same photos in both formats, and in shards written by three machines."""
    folder = tmp_path_factory.mktemp("datasets")
    photos = make_photos(folder / "photos", PHOTOS)
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch.setattr)
        for format in ("folders", "shards"):
            report = preparation.preprocess_files([photos], folder / format, size=SIZE, format=format)
            assert report.done == PHOTOS - 3 and len(report.failures) == 3
        for share in (2, 3, 1):
            preparation.preprocess_files(
                [photos], folder / "three", size=SIZE, format="shards", share=share, shares=3, samples_per_file=2
            )
    return folder


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        # The folder format rounds to a thousandth of a stored pixel.
        np.testing.assert_allclose(value, other[key], atol=1e-3 if key == "landmarks" else 0, err_msg=key)
        assert value.dtype == other[key].dtype


@pytest.mark.parametrize("size", [0, -5, 2.5])
@pytest.mark.parametrize("name", ["folders", "shards"])
def test_a_size_that_is_none_is_no_damage(datasets, name, size):
    with pytest.raises(InputError, match="the size of crops is a whole number of pixels above 0"):
        open_samples(datasets / name, size=size)


@pytest.mark.parametrize("size", [SIZE, 48, 16])
def test_both_formats_hold_the_same_samples(datasets, size):
    folders, written = (open_samples(datasets / name, size=size, coefficient_count=7) for name in ("folders", "shards"))
    assert isinstance(folders, FolderSource) and isinstance(written, ShardSource)
    assert len(folders) == len(written) == SAMPLES
    by_name = {folders.name(index): folders[index] for index in range(SAMPLES)}
    for index in range(SAMPLES):
        about = written.about(index)
        name = about["photo"].partition("/")[2].replace(".png", f"/face_{about['face']}")
        same(written[index], by_name.pop(name))
        assert written.name(index) == f"{about['photo']}/face_{about['face']}"
        details = json.loads((datasets / "folders" / name / "landmarks.json").read_text())
        assert {key: details[key] for key in ("alignment", "score", "box")} == {
            key: about[key] for key in ("alignment", "score", "box")
        }
        assert Alignment.from_dict(about["alignment"]).size == SIZE
    assert not by_name


def test_the_order_is_that_of_the_photos_whoever_wrote_them(datasets):
    one, three = ShardSource(datasets / "shards", size=SIZE), ShardSource(datasets / "three", size=SIZE)
    names = [one.name(index) for index in range(len(one))]
    assert names == sorted(names) and len(set(names)) == SAMPLES
    assert names == [three.name(index) for index in range(len(three))]
    for index in range(SAMPLES):
        same(one[index], three[index])
    with pytest.raises(IndexError):
        one[SAMPLES]


def test_another_process_opens_the_files_itself(datasets):
    source = ShardSource(datasets / "three", size=SIZE)
    sample = source[3]
    copy = pickle.loads(pickle.dumps(source))
    assert repr(copy) == repr(source) and "0x" not in repr(source)
    same(copy[3], sample)


def test_no_more_files_are_open_than_allowed(datasets, monkeypatch):
    monkeypatch.setattr(shards, "_OPEN_FILES", 2)
    source = ShardSource(datasets / "three", size=SIZE)
    for index in [*range(SAMPLES), *range(SAMPLES)]:
        source[index]
        assert len(source._readers) <= 2


def test_a_photo_that_two_lists_tell_of_counts_once(datasets, tmp_path):
    """Two machines that were told different numbers of shares did some photos twice."""
    for name in ("shards", "three"):
        for path in (datasets / name).glob("samples-*"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert len(ShardSource(tmp_path, size=SIZE)) == SAMPLES


def copied(datasets, folder):
    for path in (datasets / "shards").glob("samples-*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return next(folder.glob("*.array_record")), next(folder.glob("*.json"))


def test_what_lacks_is_named(datasets, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such folder"):
        ShardSource(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"no samples are listed in it$"):
        ShardSource(tmp_path)
    data, listed = copied(datasets, tmp_path)
    content = data.read_bytes()
    data.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{data.name}: has {len(content) - 1} bytes, but should have {len(content)}"):
        ShardSource(tmp_path)
    data.unlink()
    with pytest.raises(InputError, match=rf"{data.name}: no such file"):
        ShardSource(tmp_path)
    data.write_bytes(content)
    listed.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"bring the \.json files along"):
        open_samples(tmp_path)
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'jaxface\[train\]'"):
        ShardSource(datasets / "shards")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "\x00", '{"samples": 1, "bytes": 1, "photos": 3}', "[" * 5000]
    + [f'{{"samples": 1, "bytes": 9, "photos": [["a", {faces}]]}}' for faces in ('-1], ["b", 2', "2", "null", "1e999")],
)
def test_a_damaged_list_is_named(datasets, tmp_path, text):
    _, listed = copied(datasets, tmp_path)
    listed.write_text(text)
    with pytest.raises(InputError, match=rf"{listed.name}: "):
        ShardSource(tmp_path)


def test_a_damaged_file_costs_no_more_than_its_samples(datasets, tmp_path):
    """Whatever becomes of the bytes: a sample is read as it was, or the file is named."""
    data, listed = copied(datasets, tmp_path)
    content, told = data.read_bytes(), json.loads(listed.read_text())
    whole = ShardSource(datasets / "shards", size=SIZE)
    expected = [whole[index] for index in range(SAMPLES)]
    mutants = [*corruptions(content, 40), b"hello", bytes(len(content)), content + content]
    # The last block holds the index of the records.
    mutants += [content[:-65536] + mutant for mutant in corruptions(content[-65536:], 40, seed=1)]
    refused = 0
    for mutant in mutants:
        data.write_bytes(mutant)
        listed.write_text(json.dumps(told | {"bytes": len(mutant)}))
        try:
            source = ShardSource(tmp_path, size=SIZE)
        except InputError as error:
            assert data.name in str(error)
            refused += 1
            continue
        for index in range(SAMPLES):
            try:
                sample = source[index]
            except InputError as error:
                assert data.name in str(error)
                refused += 1
            else:
                same(sample, expected[index])
    assert refused > 100


def toy_crop():
    random = np.random.default_rng(0)
    sample = {
        "image": random.integers(0, 255, (SIZE, SIZE, 3), np.uint8),
        "labels": np.full((SIZE, SIZE), 8, np.uint8),
        "landmarks": random.uniform(0, SIZE, (68, 2)).astype(np.float32),
        "landmark_weights": np.ones(68, np.float32),
        "points": random.uniform(0, SIZE, (478, 2)).astype(np.float32),
    }
    return FaceCrop(sample, Alignment(1.0, 0.0, 0.0, SIZE, (SIZE, SIZE)))


def write_records(folder, *records):
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder, share=1, shares=1, samples_per_file=100)
    writer.add("a.jpg", records)
    writer.finish_file()
    writer.close()
    return ShardSource(folder, size=SIZE)


def changed(**entries):
    whole = safetensors.load(encode_record(toy_crop(), "a.jpg", 0))
    return safetensors.save({name: value for name, value in (whole | entries).items() if value is not None})


def picture(array, image_format="WEBP"):
    return shards._encoded(array, image_format)


HOSTILE = {
    "not safetensors": (b"hello, world, hello, world", "damaged"),
    "a huge header": ((2**60).to_bytes(8, "little") + b"{" * 20, "damaged"),
    "an entry lacks": (changed(points=None), "lacks points"),
    "another type": (changed(landmarks=np.zeros((68, 2), np.float64)), "landmarks is float64"),
    "another shape": (changed(landmarks=np.zeros((5, 2), np.float32)), r"landmarks should be float32 \[68, 2\]"),
    "not finite": (changed(landmarks=np.full((68, 2), np.nan, np.float32)), "not finite"),
    "a PNG for a WebP": (changed(image=picture(np.ones((SIZE, SIZE, 3), np.uint8), "PNG")), "damaged"),
    "not square": (changed(image=picture(np.ones((8, SIZE, 3), np.uint8))), "32 x 8"),
    "too large": (changed(image=picture(np.ones((2049, 2049, 3), np.uint8))), "2049 x 2049"),
    "a large label": (changed(labels=picture(np.full((SIZE, SIZE), 10, np.uint8), "PNG")), "labels hold 10"),
    "labels of another size": (
        changed(labels=picture(np.full((16, 16), 8, np.uint8), "PNG")),
        r"labels are \[16, 16\]",
    ),
    "labels in colours": (changed(labels=picture(np.ones((SIZE, SIZE, 3), np.uint8), "PNG")), "32 pixels, RGB"),
    "a cut picture": (changed(image=picture(toy_crop().sample["image"])[:-200]), "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_records_are_named(tmp_path, name):
    record, message = HOSTILE[name]
    source = write_records(tmp_path, encode_record(toy_crop(), "a.jpg", 0), record)
    assert source[0]["image"].shape == (SIZE, SIZE, 3)
    with pytest.raises(InputError, match=rf"\.array_record, record 1.*{message}"):
        source[1]


def test_a_sample_whose_description_is_damaged_still_has_a_name(tmp_path):
    source = write_records(tmp_path, changed(about=np.frombuffer(b"[]", np.uint8)))
    assert source.name(0).endswith(".array_record, record 0") and source[0]["image"].any()
    with pytest.raises(InputError, match="not a JSON object"):
        source.about(0)


def test_a_file_with_another_number_of_records_is_refused(tmp_path):
    record = encode_record(toy_crop(), "a.jpg", 0)
    write_records(tmp_path, record, record)
    listed = next(tmp_path.glob("*.json"))
    listed.write_text(json.dumps(json.loads(listed.read_text()) | {"samples": 3, "photos": [["a.jpg", 3]]}))
    with pytest.raises(InputError, match="holds 2 records, but should have 3"):
        ShardSource(tmp_path, size=SIZE)[0]


def test_the_crop_is_kept_without_loss(tmp_path):
    crop = toy_crop()
    cut = dataclasses.replace(crop)
    sample = write_records(tmp_path, encode_record(cut, "a.jpg", 0))[0]
    np.testing.assert_array_equal(sample["image"], crop.sample["image"])
    np.testing.assert_array_equal(sample["landmarks"], crop.sample["landmarks"])
