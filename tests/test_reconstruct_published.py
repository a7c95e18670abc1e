"""python -m jaxface.reconstruct with the files of 3DDFA-V3: what is written is what the formulas give, in the photo."""

import dataclasses
import importlib.util
import json

import jax
import numpy as np
import pytest
import trimesh
from flax import traverse_util
from PIL import Image
from safetensors.numpy import save_file

from jaxface import Camera, Coefficients, decode_face, load_face_model, reconstruct
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.core.parts import LABELS, PARTS
from jaxface.files import visualize
from jaxface.networks import weights
from jaxface.networks.encoder import create_encoder
from jaxface.photos.alignment import Alignment, scaled_alignment
from jaxface.photos.face_crops import preprocess_photo
from jaxface.photos.samples import empty_coefficients
from jaxface.render import label_triangles, rasterize, render_labels
from jaxface.results import drawing, photo_files
from jaxface.results.drawing import DrawingOptions
from jaxface.results.reconstruction import reconstruct_photos
from toys import stand_ins
from toys.glb_reader import posed, read_face
from toys.models import toy_model
from toys.torch_encoders import random_state

NAME, SIZES = "mobilenet_v3_large", (80, 64, 80)
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

SMALL = DrawingOptions(picture_size=256, largest_texture=128)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """face_model.npy of a head of 1600 vertices whose parts and landmarks lie where a face has them."""
    content = stand_ins.three_ddfa_v3(1600)
    mean = content["u"].reshape(-1, 3)
    x, y, front = *mean[:, :2].T, mean[:, 2] > -0.1
    eyes, brows, nose = abs(y - 0.3) < 0.08, abs(y - 0.48) < 0.08, (abs(x) < 0.12) & (abs(y) < 0.2)
    sides = [(x < -0.12) & (x > -0.45), (x > 0.12) & (x < 0.45)]  # the right is the subject's own: smaller x
    lips = [(abs(x) < 0.25) & (abs(y - level) < 0.07) for level in (-0.28, -0.42)]
    masks = [sides[0] & eyes, sides[1] & eyes, sides[0] & brows, sides[1] & brows, nose, *lips]
    rest = front & ~np.any(masks, axis=0)
    content["annotation"] = [np.flatnonzero(mask & front) for mask in (*masks, rest)]
    content["ldm68"] = stand_ins.landmarks68(mean)
    content["uv_coords"] = np.stack([0.5 + np.arctan2(x, mean[:, 2]) / 6.4, 0.5 + y / 2.2], axis=-1)
    content["id"], content["exp"] = (
        np.random.default_rng(i).normal(size=(4800, n)) / 500 for i, n in ((0, 80), (1, 64))
    )
    return stand_ins.save_pickled(tmp_path_factory.mktemp("bfm") / "face_model.npy", content)


@pytest.fixture(scope="module")
def state():
    shapes = weights.variable_shapes({"name": NAME}, SIZES)
    empty = traverse_util.unflatten_dict({path: np.zeros(shape) for path, shape in shapes.items()})
    tensors = weights.encoder_to_torch(weights.EncoderWeights({}, SIZES, empty))
    return random_state({name: value.shape for name, value in tensors.items()})


@pytest.fixture(scope="module")
def checkpoint(state, tmp_path_factory):
    """net_recon.pth as PyTorch writes it; the same tensors in another file where PyTorch is not installed."""
    folder = tmp_path_factory.mktemp("checkpoint")
    if importlib.util.find_spec("torch") is None:
        save_file(state, folder / "net_recon.safetensors")
        return folder / "net_recon.safetensors"
    import torch

    torch.save({"net_recon": {name: torch.as_tensor(v) for name, v in state.items()}}, folder / "net_recon.pth")
    return folder / "net_recon.pth"


@pytest.fixture(scope="module")
def written(checkpoint, model_file, tmp_path_factory):
    """The folder of the astronaut's face, her photo, and where the crop lies in it."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photos")
    photo = data.astronaut()
    Image.fromarray(photo).save(folder / "astronaut.png")
    report, _ = reconstruct_photos(
        [folder / "astronaut.png"], folder / "out", checkpoint=checkpoint, model=model_file, drawing=SMALL
    )
    assert report.exit_code == 0
    return folder / "out" / "astronaut" / "face_0", photo


@pytest.fixture(scope="module")
def direct(written, state, model_file):
    """What the formulas give: model, coefficients, and the face as the camera of the whole photo sees it."""
    _, photo = written
    model = load_face_model(model_file)
    (crop,) = preprocess_photo(photo, model)
    image = scaled_alignment(crop.alignment, 224).crop_image(photo)
    variables = weights.encoder_from_torch(state).variables
    apply = jax.jit(lambda variables, image: create_encoder(NAME, SIZES).apply(variables, image, train=False))
    vector = np.asarray(apply(variables, image[None].astype(np.float32) / 255))
    camera = crop.alignment.photo_camera(Camera())
    return model, vector, decode_face(model, Coefficients.from_vector(vector, model), camera), camera


def _read(path, mode=None):
    with Image.open(path) as picture:
        return np.asarray(picture.convert(mode) if mode else picture)


def test_coefficients_are_the_encoders(written, direct):
    record = json.loads((written[0] / "coefficients.json").read_text())
    pieces = record["coefficients"]
    assert {name: np.size(value) for name, value in pieces.items()} == {
        "identity": 80, "expression": 64, "albedo": 80, "angles": 3, "light": 27, "translation": 3,
    }  # fmt: skip
    flat = np.concatenate([np.ravel(value) for value in pieces.values()])
    np.testing.assert_allclose(flat, direct[1][0], atol=1e-4)
    assert record["settings"]["method"] == "encoder" and record["settings"]["checkpoint"].find("net_recon") >= 0


def test_landmarks_of_all_schemes_lie_in_the_photo(written, direct):
    record = json.loads((written[0] / "coefficients.json").read_text())
    model, vector, face, _ = direct
    assert {name: len(marks["photo"]) for name, marks in record["landmarks"].items()} == {
        "68": 68, "106": 106, "134": 134,
    }  # fmt: skip
    assert record["landmarks68"] == record["landmarks"]["68"]
    points, roll = np.asarray(face.points)[0], vector[0, -31]
    across = np.cos(roll) * points[:, 0] - np.sin(roll) * points[:, 1]
    for scheme, marks in record["landmarks"].items():
        vertices = np.array(model.landmarks[scheme])
        np.testing.assert_allclose(marks["model"], np.asarray(face.shape)[0, vertices], atol=1e-4)
        lines = model.contours.get(scheme, ())
        for index, line in enumerate(lines):  # the outline marches to what is seen; the chin stays
            if index != len(lines) // 2:
                vertices[index] = line[(np.argmin if index < len(lines) // 2 else np.argmax)(across[line])]
        np.testing.assert_allclose(marks["photo"], points[vertices], atol=0.05)
    assert _read(written[0] / "landmarks.png").shape == (256, 3 * 256, 3)


def test_segmentation_lies_over_the_photo(written, direct):
    folder, photo = written
    model, _, face, camera = direct
    labels = label_triangles(model.parts, model.triangles)
    expected = np.asarray(
        render_labels(face.points, face.depth, model.triangles, labels, image_size=camera.image_size)
    )[0]
    visible = _read(folder / "visible_parts.png")
    assert visible.shape == photo.shape[:2] and set(np.unique(visible)) == set(np.unique(expected))
    assert (visible == expected)[expected > 0].mean() > 0.95
    np.testing.assert_array_equal(_read(folder / "visible_parts.png", "RGB"), visualize.PART_COLORS[visible])
    assert {path.stem for path in (folder / "whole_parts").iterdir()} == set(PARTS)
    for part in ("nose", "skin"):
        own = model.triangles[labels == LABELS[part]]
        whole = np.asarray(rasterize(face.points, face.depth, own, image_size=camera.image_size).triangle)[0] >= 0
        found = _read(folder / "whole_parts" / f"{part}.png")
        assert found.dtype == bool and (found & whole).sum() / (found | whole).sum() > 0.9
    assert (found & (visible != LABELS["skin"])).sum() > 100  # the forehead is cut off, the nose hides some


def test_meshes_and_both_textures(written, direct):
    folder, _ = written
    model, _, face, _ = direct
    uv = np.asarray(model.uv)
    for name in ("mesh.obj", "model_colors.obj"):
        mesh = trimesh.load(folder / name, force="mesh", process=False)
        np.testing.assert_allclose(mesh.vertices / 100, np.asarray(face.shape)[0], atol=1e-3)
    np.testing.assert_allclose(posed(read_face(folder / "mesh.glb")) * 10, np.asarray(face.shape)[0], atol=1e-3)
    own = drawing.sample_texture(_read(folder / "model_colors.png") / np.float32(255), uv)
    albedo = np.clip(np.asarray(face.albedo)[0], 0, 1)
    middle = np.asarray(model.parts["nose"])
    # The stand-in's colours change at random from vertex to vertex, of which the texture's pixels take the mean.
    np.testing.assert_allclose(own[middle].mean(0), albedo[middle].mean(0), atol=0.05)
    points = trimesh.load(folder / "mesh.ply", process=False)
    texture = _read(folder / "texture.png") / np.float32(255)
    expected = 255 * drawing.sample_texture(texture, uv)
    np.testing.assert_allclose(points.visual.vertex_colors[:, :3], expected, atol=1)
    for name in ("crop", "overlay", "shape", "parts"):
        assert _read(folder / f"{name}.png").shape == (256, 256, 3)


def test_a_checkpoint_without_its_face_model_says_what_to_do(checkpoint, tmp_path):
    arguments = ["photo.png", "--checkpoint", str(checkpoint), "--out", str(tmp_path)]
    with pytest.raises(InputError, match="--model FILE"):
        reconstruct.main(arguments)
    with pytest.raises(InputError, match=r"gives 80 identity, .* 'anny' has .* the encoder was trained with"):
        reconstruct.main([*arguments, "--model", "anny"])


@pytest.mark.parametrize("missing", [
    {"uv": None, "mirror": None, "parts": {}, "contours": {}},
    {"uv": None, "parts": {"skin": np.arange(40), "nose": np.arange(40, 44)}},
])  # fmt: skip
def test_models_that_lack_something_are_written_all_the_same(tmp_path, missing):
    model = dataclasses.replace(toy_model(), **missing)
    vector = np.zeros(vector_size(model), np.float32)
    alignment = Alignment(scale=1.6, offset_x=-40.0, offset_y=-64.0, size=224, photo_size=(180, 220))
    face = decode_face(model, Coefficients.zeros(model), Camera())
    labels = np.ones((224, 224), np.uint8)
    sample = {
        "image": np.zeros((224, 224, 3), np.uint8),
        "labels": labels,
        "landmarks": np.asarray(face.points)[0, model.landmarks["68"]],
        "landmark_weights": np.ones(68, np.float32),
        **empty_coefficients(len(vector)),
    }
    photo = np.full((180, 220, 3), (200, 120, 60), np.uint8)
    one = drawing.Reconstruction(vector, sample, alignment, "Face 1")
    photo_files.write_photo(tmp_path, model, photo, [one], photo_name="x.png", subtitle="", settings={}, drawing=SMALL)
    folder = tmp_path / "face_0"
    record = json.loads((folder / "coefficients.json").read_text())
    assert all(record["measures"]["part_iou_of"][part] is None for part in PARTS if part not in model.parts)
    found = {path.stem for path in (folder / "whole_parts").iterdir()}
    assert found == set(model.parts)
    mesh = trimesh.load(folder / "mesh.obj", force="mesh", process=False)
    assert ((mesh.visual.uv >= 0) & (mesh.visual.uv <= 1)).all() and np.ptp(mesh.visual.uv, axis=0).min() > 0.9
    colors = trimesh.load(folder / "mesh.ply", process=False).visual.vertex_colors[:, :3].astype(int)
    facing = np.asarray(face.normals)[0, :, 2] > 0.9
    assert np.abs(colors[facing] - (200, 120, 60)).max() < 12
    assert (tmp_path / "index.html").is_file()
