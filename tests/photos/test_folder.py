"""The folder format: what is written is read back; what is wrong is named."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from jaxface.core import parts
from jaxface.core.errors import InputError
from jaxface.photos.alignment import Alignment
from jaxface.photos.folder import FolderSource, read_alignment, write_dataset_file, write_sample
from jaxface.photos.samples import empty_coefficients, validate_sample

SIZE = 32
ALIGNMENT = Alignment(0.5, -3.0, 4.0, SIZE, (100, 120))


def make_labels():
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[4:30, 4:28] = parts.LABELS["skin"]
    labels[8:10, 6:14] = parts.LABELS["right_brow"]
    labels[8:10, 18:26] = parts.LABELS["left_brow"]
    labels[12:15, 7:13] = parts.LABELS["right_eye"]
    labels[12:15, 19:25] = parts.LABELS["left_eye"]
    labels[14:20, 14:18] = parts.LABELS["nose"]
    labels[22:24, 11:21] = parts.LABELS["upper_lip"]
    labels[24:26, 11:21] = parts.FOREHEAD
    labels[26:28, 11:21] = parts.LABELS["lower_lip"]
    return parts.cut_forehead(labels)


def make_sample(seed=0):
    random = np.random.default_rng(seed)
    weights = np.ones(68, np.float32)
    weights[3] = 0
    return {
        "image": random.integers(0, 255, (SIZE, SIZE, 3), np.uint8),
        "labels": make_labels(),
        "landmarks": random.uniform(0, SIZE, (68, 2)).astype(np.float32),
        "landmark_weights": weights,
        **empty_coefficients(7),
    }


def write(folder, seed=0):
    folder.mkdir(parents=True)
    write_sample(folder, make_sample(seed), ALIGNMENT, {"photo": "me.jpg"})
    return folder


def test_written_samples_are_read_back(tmp_path):
    for index, name in enumerate(("a/face_0", "a/face_1", "b")):
        write(tmp_path / name, index)
    write(tmp_path / ".c.partial")
    source = FolderSource(tmp_path, size=SIZE, coefficient_count=7)
    assert len(source) == 3
    for index in range(3):
        expected = make_sample(index)
        for key, value in source[index].items():
            np.testing.assert_allclose(value, expected[key], atol=1e-3 if key == "landmarks" else 0, err_msg=key)
            assert value.dtype == expected[key].dtype
    assert read_alignment(tmp_path / "b") == ALIGNMENT


def test_the_order_is_that_of_the_paths(tmp_path):
    for name in ("z", "m/y", "m/a", "B"):
        write(tmp_path / name)
    names = [str(path.parent.relative_to(tmp_path)) for path in FolderSource(tmp_path).images]
    assert names == sorted(names)


def test_grain_can_compare_and_send_it(tmp_path):
    write(tmp_path / "a")
    source = FolderSource(tmp_path, size=SIZE)
    copy = pickle.loads(pickle.dumps(source))
    assert repr(copy) == repr(source)
    assert "0x" not in repr(source)
    np.testing.assert_array_equal(copy[0]["image"], source[0]["image"])


def test_other_sizes(tmp_path):
    write(tmp_path / "a")
    double, half = (FolderSource(tmp_path, size=size)[0] for size in (64, 16))
    validate_sample(double, "double", size=64)
    validate_sample(half, "half", size=16)
    stored = make_sample()
    np.testing.assert_allclose(double["landmarks"], stored["landmarks"] * 2, atol=2e-3)
    np.testing.assert_array_equal(double["labels"], stored["labels"].repeat(2, 0).repeat(2, 1))


def test_part_masks_instead_of_labels(tmp_path):
    folder = write(tmp_path / "a")
    expected = FolderSource(tmp_path, size=SIZE)[0]["labels"]
    (folder / "labels.png").unlink()
    (folder / "masks").mkdir()
    for index, part in enumerate(parts.PARTS):
        mask = expected == parts.LABELS[part]
        high = 255 if index % 2 else 1
        Image.fromarray(mask.astype(np.uint8) * np.uint8(high)).save(folder / "masks" / f"{part}.png")
    result = FolderSource(tmp_path, size=SIZE)[0]["labels"]
    np.testing.assert_array_equal(result, np.where(expected == parts.FOREHEAD, 0, expected))


def test_other_parsers_labels(tmp_path):
    folder = write(tmp_path / "a")
    labels = np.full((SIZE, SIZE), 1, np.uint8)  # LaPa: skin
    labels[20:24, 10:20] = 9  # lower lip
    labels[16:20, 10:20] = 8  # inner mouth
    labels[:4] = 10  # hair
    Image.fromarray(labels).save(folder / "labels.png")
    write_dataset_file(tmp_path, {"labels": "lapa"})
    result = FolderSource(tmp_path, size=SIZE)[0]["labels"]
    assert result[22, 15] == parts.LABELS["lower_lip"]
    assert result[18, 15] == parts.FOREHEAD
    assert result[28, 15] == parts.LABELS["skin"]
    assert result[1, 15] == parts.BACKGROUND


def test_uncut_foreheads_are_cut(tmp_path):
    folder = write(tmp_path / "a")
    uncut = np.where(make_labels() == parts.FOREHEAD, parts.LABELS["skin"], make_labels())
    Image.fromarray(uncut.astype(np.uint8)).save(folder / "labels.png")
    labels = FolderSource(tmp_path, size=SIZE)[0]["labels"]
    assert (labels[4:8, 4:28] == parts.FOREHEAD).all()


@pytest.mark.parametrize("form", ["list", "npy", "txt"])
def test_forms_of_landmarks(tmp_path, form):
    folder = write(tmp_path / "a")
    landmarks = make_sample()["landmarks"]
    (folder / "landmarks.json").unlink()
    if form == "list":
        (folder / "landmarks.json").write_text(json.dumps(landmarks.tolist()))
    elif form == "npy":
        np.save(folder / "landmarks.npy", landmarks)
    else:
        np.savetxt(folder / "landmarks.txt", landmarks)
    sample = FolderSource(tmp_path, size=SIZE)[0]
    np.testing.assert_allclose(sample["landmarks"], landmarks, rtol=1e-6)
    assert (sample["landmark_weights"] == 1).all()


def save(name, array):
    def change(folder):
        Image.fromarray(array).save(folder / name)

    return change


def replace(name, text):
    return lambda folder: (folder / name).write_text(text)


def pickled_landmarks(folder):
    (folder / "landmarks.json").unlink()
    np.save(folder / "landmarks.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def unknown_part(folder):
    (folder / "labels.png").unlink()
    (folder / "masks").mkdir()
    save("masks/hair.png", make_labels())(folder)


NOT_FINITE = json.dumps([[float("nan"), 0.0]] * 68)
BAD_SAMPLES = {
    "no mask": (lambda folder: (folder / "labels.png").unlink(), "no part masks"),
    "no landmarks": (lambda folder: (folder / "landmarks.json").unlink(), "no landmarks"),
    "mask size": (save("labels.png", np.ones((16, 32), np.uint8)), r"labels\.png: is 32 x 16 .* image is 32 x 32"),
    "mask of colours": (save("labels.png", np.ones((32, 32, 3), np.uint8)), r"labels\.png.*one channel"),
    "label value": (save("labels.png", np.full((32, 32), 10, np.uint8)), r"labels\.png: holds the label 10"),
    "no face": (save("labels.png", np.zeros((32, 32), np.uint8)), "shows no face"),
    "unknown part": (unknown_part, r"hair\.png: not the name of a part"),
    "landmark shape": (replace("landmarks.json", "[[1, 2], [3, 4]]"), r"\[2, 2\]"),
    "landmark text": (replace("landmarks.json", "hello"), r"landmarks\.json: cannot be read"),
    "landmark binary": (lambda folder: (folder / "landmarks.json").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "landmark entries": (replace("landmarks.json", "{}"), r"landmarks\.json"),
    "landmark NaN": (replace("landmarks.json", NOT_FINITE), "not finite"),
    "pickle": (pickled_landmarks, r"landmarks\.npy: cannot be read"),
    "damaged image": (lambda folder: (folder / "image.png").write_bytes(b"\x89PNG"), r"image\.png"),
    "not square": (
        lambda folder: (
            save("image.png", np.ones((32, 40, 3), np.uint8))(folder),
            save("labels.png", np.ones((32, 40), np.uint8))(folder),
        ),
        "square, but is 40 x 32",
    ),
}


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_bad_samples_are_named(tmp_path, name):
    change, message = BAD_SAMPLES[name]
    write(tmp_path / "good")
    change(write(tmp_path / "bad"))
    source = FolderSource(tmp_path, size=SIZE)
    with pytest.raises(InputError, match=message) as raised:
        source[0]
    assert str(tmp_path / "bad") in str(raised.value)
    assert source[1]["image"].shape == (SIZE, SIZE, 3)


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        FolderSource(tmp_path / "nothing")
    with pytest.raises(InputError, match="no samples"):
        FolderSource(tmp_path)
    write(tmp_path / "a")
    write_dataset_file(tmp_path, {"labels": "martian"})
    with pytest.raises(InputError, match=r"martian.*jaxface|martian.*celebamask"):
        FolderSource(tmp_path)
    (tmp_path / "dataset.json").write_text("[")
    with pytest.raises(InputError, match=r"dataset\.json: is not JSON"):
        FolderSource(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(InputError, match="JSON object"):
        FolderSource(tmp_path)


def test_a_sample_without_alignment(tmp_path):
    folder = write(tmp_path / "a")
    (folder / "landmarks.json").write_text("{}")
    with pytest.raises(InputError, match="no alignment"):
        read_alignment(folder)
