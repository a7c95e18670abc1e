"""`python -m jaxface.preprocess` on real portraits, group photos and bad files."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxface import preprocess
from jaxface.core import parts
from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.files.images import read_image
from jaxface.files.names import BOOK
from jaxface.photos import detection, face_crops, preparation, stores
from jaxface.photos.detection import DetectedFace
from jaxface.photos.folder import FolderSource, read_alignment
from jaxface.photos.parsing import mediapipe_labels
from jaxface.photos.samples import validate_sample
from toys.face_points import toy_face_model

COEFFICIENTS = 2 + 2 + 2 + 3 + 27 + 3


@pytest.fixture(autouse=True)
def toy_template(monkeypatch):
    monkeypatch.setattr(preparation, "load_face_model", lambda name: toy_face_model())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with a portrait, a group of two, a picture without a face, and a file that is cut short."""
    skimage = pytest.importorskip("skimage.data", reason="scikit-image (extra 'photo') is not installed")
    folder = tmp_path_factory.mktemp("photos")
    astronaut = skimage.astronaut()
    Image.fromarray(astronaut).save(folder / "astronaut.png")
    pair = np.concatenate([astronaut[:300, 100:400], np.full((300, 20, 3), 90, np.uint8)], axis=1)
    smaller = np.array(Image.fromarray(astronaut[:300, 100:400]).resize((200, 200)))
    pair = np.concatenate([pair, np.pad(smaller, ((50, 50), (0, 0), (0, 0)))], axis=1)
    Image.fromarray(pair).save(folder / "pair.jpg", quality=95)
    Image.fromarray(skimage.coffee()).save(folder / "coffee.jpg")
    (folder / "cut.jpg").write_bytes((folder / "pair.jpg").read_bytes()[:3000])
    return folder


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_folder_of_photos(photos, tmp_path, capsys):
    out = tmp_path / "faces"
    assert preprocess.main([str(photos), str(photos / "nothing.jpg"), str(out)]) == 1
    captured = capsys.readouterr()
    assert "2 photos done, 3 failed" in captured.out
    assert "contact_sheet.png" in captured.out
    for name, reason in (("coffee.jpg", "no face"), ("cut.jpg", "cut short"), ("nothing.jpg", "no such file")):
        assert any(name in line and reason in line for line in captured.err.splitlines())
    sample_files = [
        f"{face}/{file}"
        for face in ("astronaut/face_0", "pair/face_0", "pair/face_1")
        for file in ("image.png", "labels.png", "landmarks.json")
    ]
    photo_files = ["astronaut/photo.json", "pair/photo.json"]
    assert files_below(out) == sorted([*sample_files, *photo_files, BOOK, "contact_sheet.png", "dataset.json"])
    source = FolderSource(out, coefficient_count=COEFFICIENTS)
    for index in range(3):
        validate_sample(source[index], str(index), size=224)
    assert read_image(out / "contact_sheet.png").shape[1] > 1000

    # Again, with one photo more: what is done is left alone.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    assert preprocess.main([str(photos), str(out)]) == 1
    assert "0 photos done, 2 skipped (already there), 2 failed" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == before
    assert preprocess.main([str(photos / "pair.jpg"), str(out), "--overwrite"]) == 0
    with pytest.raises(InputError, match="was made with size 224, faces 'all'"):
        preprocess.main([str(photos), str(out), "--size", "64", "--faces", "largest"])


def test_the_sample_shows_an_aligned_face(photos):
    image = read_image(photos / "astronaut.png")
    (crop,) = face_crops.preprocess_photo(image, toy_face_model(), size=112, parser=mediapipe_labels)
    sample, alignment, face = crop.sample, crop.alignment, crop.face
    validate_sample(sample, "sample", size=112)
    assert sample["coefficients"].shape == (COEFFICIENTS,)
    np.testing.assert_allclose(alignment.to_photo(sample["landmarks"]), face.landmarks68, atol=1e-3)
    np.testing.assert_array_equal(sample["image"], alignment.crop_image(image))
    assert set(np.unique(sample["labels"])) == set(range(10))
    assert (sample["landmark_weights"] == 1).all()
    left_eye, right_eye = (
        parts.mask_points(sample["labels"] == parts.LABELS[f"{side}_eye"]).mean(0) for side in ("left", "right")
    )
    assert 25 < left_eye[0] - right_eye[0] < 40  # 0.62 units at 51 pixels per unit
    assert abs(left_eye + right_eye - 112)[0] < 8  # about the middle
    # The map drawn in the crop is the one drawn in the photo.
    agreement = alignment.crop_labels(face.labels(*image.shape[:2])) == sample["labels"]
    assert agreement.mean() > 0.97


def test_what_lies_beyond_the_photo_is_not_trusted(photos):
    image = read_image(photos / "astronaut.png")
    (whole,) = detection.detect_faces(image)
    cut = np.ascontiguousarray(image[:150])  # through the mouth
    face = DetectedFace(whole.landmarks478, whole.score)
    crop = face_crops.make_crop(cut, face, toy_face_model())
    sample, alignment = crop.sample, crop.alignment
    below = alignment.to_photo(sample["landmarks"])[:, 1] > 150
    assert below.any()
    np.testing.assert_array_equal(sample["landmark_weights"] == 0, below)
    outside = alignment.crop_labels(np.ones(cut.shape[:2], np.uint8)) == 0
    assert outside.any()
    assert not sample["labels"][outside].any()
    assert not sample["image"][-40:].any()


def test_the_largest_face_alone(photos, tmp_path):
    assert preprocess.main([str(photos / "pair.jpg"), str(tmp_path / "out"), "--faces", "largest", "--size", "64"]) == 0
    assert len(FolderSource(tmp_path / "out", size=64)) == 1
    alignment = read_alignment(tmp_path / "out" / "pair" / "face_0")
    assert alignment.size == 64
    assert alignment.to_photo(np.array([32.0, 32.0]))[0] < 300
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["faces"] == "largest"


def test_label_maps_on_disk(photos, tmp_path):
    """The detector's own labels of a photo, saved in each order, come back as they are drawn into the crop."""
    image = read_image(photos / "astronaut.png")
    (face,) = detection.detect_faces(image)
    labels = face.labels(*image.shape[:2])
    (crop,) = face_crops.preprocess_photo(image, toy_face_model(), size=112, parser=mediapipe_labels)
    drawn, alignment = crop.sample, crop.alignment
    for order in ("celebamask", "lapa", "bisenet", "jaxface"):
        foreign = np.array([list(parts.PARSER_LABELS[order]).index(label % 9) for label in range(10)], np.uint8)
        (tmp_path / order).mkdir()
        Image.fromarray(foreign[labels]).save(tmp_path / order / "astronaut.png")
        out = tmp_path / f"faces_{order}"
        options = ["--size", "112", "--labels", order, "--label-folder", str(tmp_path / order)]
        assert preprocess.main([str(photos / "astronaut.png"), str(out), *options]) == 0
        stored = np.array(Image.open(out / "astronaut" / "face_0" / "labels.png"))
        eight = np.where(labels == parts.FOREHEAD, 0, labels)
        np.testing.assert_array_equal(stored, parts.cut_forehead(alignment.crop_labels(eight)))
        small = np.isin(drawn["labels"], range(1, 8))
        assert (stored == drawn["labels"])[small].mean() > 0.9


def test_photos_of_the_same_name(photos, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    image = Image.open(photos / "astronaut.png")
    image.save(tmp_path / "a" / "x.png")
    image.crop((50, 0, 450, 400)).save(tmp_path / "b" / "x.png")
    out = tmp_path / "out"
    assert preparation.preprocess_files([tmp_path / "b"], out, size=64).done == 1
    report = preparation.preprocess_files([tmp_path / "a", tmp_path / "b"], out, size=64)
    assert (report.done, report.skipped) == (1, 1)
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"x", "x_2"}


def test_nothing_done_leaves_nothing(photos, tmp_path):
    assert preprocess.main([str(photos / "cut.jpg"), str(photos / "coffee.jpg"), str(tmp_path / "out")]) == 2
    assert files_below(tmp_path / "out") == [BOOK]


def test_an_interruption_leaves_no_half_written_photo(photos, tmp_path, monkeypatch):
    def interrupted(folder, sample, alignment, details):
        (folder / "image.png").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(stores, "write_sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        preprocess.main([str(photos / "pair.jpg"), str(tmp_path / "out")])
    assert files_below(tmp_path / "out") == [BOOK, "dataset.json"]


def test_unusable_output_folders(photos, tmp_path):
    with pytest.raises(InputError, match="is a file"):
        preprocess.main([str(photos), str(photos / "astronaut.png")])
    with pytest.raises(InputError, match="holds other files"):
        preprocess.main([str(photos), str(photos)])


def test_results_below_the_photos_are_not_photos(photos, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes((photos / "astronaut.png").read_bytes())
    out = tmp_path / "photos" / "out"
    for _ in range(2):
        report = preparation.preprocess_files([tmp_path / "photos"], out, size=64)
        assert report.done + report.skipped == 1 and not report.failures


def test_a_missing_package_stops_the_batch_at_once(tmp_path, monkeypatch):
    def missing(images):
        raise MissingDependencyError("the parser needs flax; run: pip install 'jaxface[photo]'")

    monkeypatch.setattr(preparation, "detect_faces_in", missing)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises(MissingDependencyError):
        preprocess.main([str(tmp_path / "a.png"), str(tmp_path / "out")])
    assert files_below(tmp_path / "out") == [BOOK]


def test_what_is_compiled_is_kept_for_the_next_run(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(preprocess, "keep_compiled", lambda: kept.append(True))
    assert preprocess.main([str(tmp_path / "nothing.jpg"), str(tmp_path / "out")]) == 2
    assert kept == [True]


@pytest.mark.parametrize(
    "arguments", [[], ["a.jpg"], ["a.jpg", "out", "--size", "7"], ["a.jpg", "out", "--faces", "none"]]
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        preprocess.main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m jaxface.preprocess" in capsys.readouterr().err


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        preprocess.main(["--help"])
    assert stopped.value.code == 0
    assert "example: python -m jaxface.preprocess" in capsys.readouterr().out
