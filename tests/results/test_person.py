"""Several photos of one person: which face is meant, what they share, what is written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from jaxface import Camera, Coefficients
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import linear
from jaxface.core.metrics import vertex_error_mm
from jaxface.core.version import __version__
from jaxface.fitting import SolvedFace, coefficient_prior, descent, one_person
from jaxface.losses.perceptual import DLIB_CHIP
from jaxface.networks.face_recognition import FaceRecognizer
from jaxface.photos.alignment import Alignment
from jaxface.photos.face_crops import FaceCrop
from jaxface.photos.samples import stack_samples
from jaxface.results import person, person_files
from jaxface.results.drawing import DrawingOptions
from jaxface.results.person_texture import merge_aligned
from toys.clips import toy_clip
from toys.models import toy_model

SIZE = 64
RECOGNIZER = FaceRecognizer(None, None, DLIB_CHIP)
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def prior(model):
    return coefficient_prior(model)


@pytest.fixture(scope="module")
def views(model):
    """Crops of one toy person who turns, and the truth; the landmarks are noisy."""
    clip = toy_clip(model, count=12, noise=1.5)
    found = []
    for frame, labels, landmarks in zip(clip.frames, clip.labels, clip.landmarks, strict=True):
        alignment = Alignment(0.5, -15.0, -2.0, SIZE, frame.shape[:2])
        sample = {
            "image": alignment.crop_image(frame),
            "labels": alignment.crop_labels(labels),
            "landmarks": alignment.to_crop(landmarks).astype(np.float32),
            "landmark_weights": np.ones(68, np.float32),
        }
        found.append(FaceCrop(sample, alignment))
    return clip, found


@pytest.fixture(scope="module", autouse=True)
def landmarks_alone():
    """Fits by landmarks alone: the descent takes half a minute to compile, and has tests of its own."""
    patch = pytest.MonkeyPatch()
    patch.setattr(descent, "_descend", lambda model, vector, *_, **__: vector)
    patch.setattr(descent, "_paint", lambda model, vector, *_, **__: vector)
    yield
    patch.undo()


def vectors_of(faces):
    return np.stack([face.vector for face in faces])


def identity_error(model, vectors, truth):
    neutral, wanted = (linear(model.mean_shape, model.identity_basis, rows[:, :3]) for rows in (vectors, truth))
    return np.asarray(vertex_error_mm(neutral, wanted, align="similarity"))


@pytest.mark.slow
def test_sharing_helps(model, prior, views):
    """The identity from several noisy views is nearer to the truth than that from one, on average."""
    clip, found = views
    samples = [crop.sample for crop in found]
    vectors = vectors_of(person.fit_photos_of_person(model, samples, range(8), prior))
    camera = Camera().resized(SIZE)
    single = np.asarray(descent.fit_faces(model, stack_samples(samples[:8]), camera, prior).vectors)
    assert np.ptp(vectors[:, :3], axis=0).max() < 1e-6 < np.ptp(single[:, :3], axis=0).max()
    joint, alone = (identity_error(model, rows[:8], clip.vectors[:8]) for rows in (vectors, single))
    assert joint.max() < 0.8 * alone.mean()
    # Photos that were not in the joint fit have the same person and a pose of their own.
    angles = np.degrees(Coefficients.from_vector(vectors, model).angles - clip.vectors[:, 8:11])
    assert np.abs(angles[8:]).mean() < 6


@pytest.mark.slow
def test_padding_does_not_count(model, prior, views, monkeypatch):
    _, found = views
    batch = stack_samples([crop.sample for crop in found[:7]])
    camera = Camera().resized(SIZE)
    vectors = vectors_of(one_person.fit_same_person(model, batch, camera, prior))
    assert vectors.shape[0] == 7

    def fill_otherwise(batch, count):
        return {name: np.concatenate([values, values[: count - len(values)]]) for name, values in batch.items()}

    monkeypatch.setattr(one_person, "_filled_up", fill_otherwise)
    np.testing.assert_allclose(vectors_of(one_person.fit_same_person(model, batch, camera, prior)), vectors, atol=1e-4)
    with pytest.raises(ValueError, match="at most 8"):
        one_person.fit_known_person(model, {"labels": np.zeros((9, 2, 2))}, np.zeros(41, np.float32), camera, prior)


@pytest.mark.slow
def test_joint_photos_are_the_finest(views):
    _, found = views
    sample = found[0].sample
    chosen = [FaceCrop(sample, Alignment(scale, 0.0, 0.0, SIZE, (100, 100))) for scale in (4.0, 1.5, 0.5, 2.0)]
    assert person.joint_photos(chosen) == [2, 1, 3, 0]
    assert len(person.joint_photos(chosen * 9)) == person.JOINT


@pytest.fixture
def toy_photos(tmp_path, monkeypatch, model, prior, views):
    """A folder of photos whose faces are told by their pixels, without MediaPipe; pictures are small."""
    clip, found = views
    monkeypatch.setattr(person, "load_for_person", lambda *_: (model, prior, None, None))
    faces = {frame.tobytes(): one for frame, one in zip(clip.frames, found, strict=True)}

    def find(image, model, *, parser=None, focal=None):
        if image.tobytes() not in faces:
            raise InputError("no face found")
        return [faces[image.tobytes()]] * 2

    monkeypatch.setattr(person, "preprocess_photo", find)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, frame in zip(("a", "b", "person"), clip.frames[::3], strict=False):
        Image.fromarray(frame).save(folder / f"{name}.png")
    Image.new("RGB", (120, 112)).save(folder / "dark.png")
    (folder / "empty.png").touch()
    return folder


@pytest.mark.slow
def test_results_of_a_person(toy_photos, tmp_path, model):
    out = tmp_path / "out"
    report, pages = person.fit_person([toy_photos], out, drawing=DrawingOptions(picture_size=SIZE, largest_texture=32))
    assert (report.done, len(report.failures), report.exit_code) == (3, 2, 1)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["a", "b", "person", "person_2"]
    assert [page.parent.name for page in pages] == ["a", "b", "person_2", "out"]
    assert all(page.is_file() for page in pages)
    written = {path.name for path in (out / "person").iterdir()}
    assert written == {"mesh.obj", "mesh.mtl", "texture.png", "mesh.glb", "preview.png", "person.json"}
    record = json.loads((out / "person" / "person.json").read_text())
    assert record["schema"] == person_files.SCHEMA and len(record["identity"]) == 3
    assert {photo["file"]: (photo["folder"], photo["role"], photo["faces"]) for photo in record["photos"]} == {
        "a.png": ("a", "joint", 2), "b.png": ("b", "joint", 2), "person.png": ("person_2", "joint", 2)
    }  # fmt: skip
    for name in ("a", "b", "person_2"):
        own = json.loads((out / name / "face_0" / "coefficients.json").read_text())
        np.testing.assert_allclose(own["coefficients"]["identity"], record["identity"], atol=1e-5)
    mesh = trimesh.load(out / "person" / "mesh.obj", process=False)
    neutral = 100 * np.asarray(linear(model.mean_shape, model.identity_basis, np.array(record["identity"])))
    np.testing.assert_allclose(mesh.vertices, neutral, atol=1e-3)


def test_no_photo_of_a_person_is_a_failure(tmp_path, monkeypatch, model, prior):
    monkeypatch.setattr(person, "load_for_person", lambda *_: (model, prior, None, None))
    report, pages = person.fit_person([tmp_path / "none.jpg"], tmp_path / "out")
    assert (report.exit_code, pages) == (2, []) and not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        person.fit_person([tmp_path / "none.jpg"], tmp_path / "file")


@pytest.fixture
def no_fits(monkeypatch, model):
    """Persons that are fitted in no time, told apart by the colour of their photos; how often, and what was written."""
    fits, written = [], []

    def fit(model, samples, *_, **__):
        fits.append(len(samples))
        return [SolvedFace(np.zeros(model_size, np.float32)) for _ in samples]

    def find(image, model, *, parser=None, focal=None):
        if image.max() < 8:
            raise InputError("no face found")
        sample = {"color": image[0, 0].astype(float), "labels": np.ones((4, 4), np.uint8)}
        return [FaceCrop(sample, Alignment(1.0, 0.0, 0.0, SIZE, image.shape[:2]))]

    def write_results(folder, model, image, faces, about, **_):
        written.append(about["photo"])
        (folder / "done.json").write_text(json.dumps({**about, "jaxface": __version__, "faces": []}))
        return []

    def write_person(folder, model, vector, drawn, texture, **told):
        folder.mkdir(exist_ok=True)
        (folder / "person.json").write_text(json.dumps(person_files.person_record(model, vector, **told)))

    def choose(photos, recognizer):
        return [0] * len(photos), np.stack([faces[0].sample["color"] / 255 for faces in photos])

    model_size = vector_size(model)
    monkeypatch.setattr(person, "load_for_person", lambda *_: (model, None, RECOGNIZER, None))
    monkeypatch.setattr(person, "choose_faces", choose)
    monkeypatch.setattr(person, "preprocess_photo", find)
    monkeypatch.setattr(person, "fit_photos_of_person", fit)
    monkeypatch.setattr(person, "write_results", write_results)
    monkeypatch.setattr(person, "write_person", write_person)
    monkeypatch.setattr(person, "delighted_face", lambda model, one, image, options: one)
    monkeypatch.setattr(person, "texture_and_trust", lambda *_: None)
    monkeypatch.setattr(person, "merge_aligned", lambda *_: None)
    return fits, written


def photo_of(path, *color):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 18), color).save(path)
    return path


def test_a_stranger_is_left_out_by_name(no_fits, tmp_path, capsys):
    for index in range(3):
        photo_of(tmp_path / "anna" / f"anna_{index}.png", 200, 20 * index, 0)
    photo_of(tmp_path / "anna" / "bert.png", 20, 200, 250)
    report, pages = person.fit_person([tmp_path / "anna"], tmp_path / "out")
    assert (report.done, report.exit_code, no_fits[0]) == (3, 1, [3]) and len(pages) == 4
    error = capsys.readouterr().err
    assert "bert.png: left out, it seems to show another person" in error and "--keep-strangers" in error
    assert not (tmp_path / "out" / "bert").exists()
    record = json.loads((tmp_path / "out" / "person" / "person.json").read_text())
    assert [one["file"] for one in record["left_out"]] == ["bert.png"] and len(record["photos"]) == 3
    assert max(one["distance"] for one in record["photos"]) < 0.2  # the stranger counts no more
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(summary["done"]) == 3 and Path(summary["failed"][0]["photo"]).name == "bert.png"
    report, _ = person.fit_person([tmp_path / "anna"], tmp_path / "out")
    assert (report.done, report.skipped, report.exit_code, no_fits[0]) == (0, 3, 1, [3])  # and it is named again
    report, _ = person.fit_person([tmp_path / "anna"], tmp_path / "out", keep_strangers=True)
    assert (report.done, report.exit_code, no_fits[0]) == (4, 0, [3, 4])


def test_a_person_that_is_done_is_skipped(no_fits, tmp_path):
    fits, written = no_fits
    folder, out = tmp_path / "anna", tmp_path / "out"
    paths = [photo_of(folder / f"{name}.png", 200, 90, 80) for name in "abc"]
    assert person.fit_person([folder], out)[0].done == 3
    report, pages = person.fit_person([folder], out)
    assert (report.skipped, fits) == (3, [3]) and [page.parent.name for page in pages] == ["a", "b", "c"]
    # Interrupted before the third photo and the person: what is written stays.
    for name in ("c", "person"):
        shutil.rmtree(out / name)
    report, _ = person.fit_person([folder], out)
    assert (report.done, report.skipped, written[3:]) == (1, 2, ["c.png"])
    photo_of(paths[0], 210, 90, 80)  # edited: all is fitted anew, in the same folders
    report, _ = person.fit_person([folder], out)
    assert (report.done, len(fits)) == (3, 3)
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"a", "b", "c", "person"}
    assert person.fit_person([folder], out, overwrite=True)[0].done == 3


def test_another_person_has_another_folder(no_fits, tmp_path):
    out = tmp_path / "out"
    for who in ("anna", "bert"):
        photo_of(tmp_path / who / "a.png", 200, 90, len(who))
        person.fit_person([tmp_path / who], out)
        person.fit_person([tmp_path / who], out)
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"a", "a_2", "person", "person_2"}
    assert no_fits[0] == [1, 1]


def test_textures_of_several_sizes_are_merged():
    small, large = np.full((32, 32, 3), 0.4), np.full((64, 64, 3), 0.4)
    merged = merge_aligned([(small, np.ones((32, 32))), (large, np.ones((64, 64)))])
    assert merged.shape == (64, 64, 3) and merged.dtype == np.uint8
    np.testing.assert_allclose(merged, 102, atol=1)
