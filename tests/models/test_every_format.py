"""Whatever format a face model comes in: it loads, draws, is fitted, trains an encoder, and is exported with its names.

Models are small stand-ins for the published files, cut down to a few coefficients: what costs time here is compiling.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxface import Camera, Coefficients, decode_face, load_face_model
from jaxface.core.coefficients import column_mask, joint_numbers, vector_size, vector_sizes
from jaxface.core.faces import landmark_points
from jaxface.core.parts import PARTS
from jaxface.core.skinning import ANGLE_DEVIATION
from jaxface.fitting import coefficient_prior, fit_faces
from jaxface.models.native import write_face_model
from jaxface.models.registry import FORMATS
from jaxface.models.source import Source
from jaxface.networks.encoder import create_encoder
from jaxface.photos.alignment import Alignment
from jaxface.render import label_map, label_triangles, render_face
from jaxface.results.drawing import DrawingOptions, Reconstruction, draw_face
from jaxface.results.exporters import EXPORTERS, export_face
from jaxface.training.objective import total_loss
from jaxface.training.step import create_state, make_train_step
from jaxface.training.terms import TERMS
from toys import stand_ins
from toys.flame import flame_content, write_flame
from toys.glb_reader import read_face
from toys.ict import write_ict

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZE, BATCH, KEPT = 48, 2, 2
VERTICES, TRIANGLES, PART_SIZE = 449, 1000, 12  # as many vertices as the ICT-like toy has
CAMERA = Camera().resized(SIZE)


def write_small_flame(folder: Path) -> Path:
    """A head in metres under FLAME's keys: its surface is smooth, unlike that of the reader's own tests."""
    mean, triangles = stand_ins.head(VERTICES, np.random.default_rng(0))
    content = flame_content(VERTICES, len(triangles))
    return write_flame(folder / "flame.pkl", content | {"v_template": 0.1 * mean, "f": triangles.astype(np.uint32)})


def write_native(folder: Path) -> Path:
    """Another file's model in jaxface's own format, with names and bounds."""
    content = stand_ins.three_ddfa_v3(VERTICES)
    model = cut_down(load_face_model(stand_ins.save_pickled(folder / "face_model.npy", content)))
    named = dataclasses.replace(model, expression_names=("jawOpen", "eyeBlink_L"), expression_bounds=(0.0, 1.0))
    write_face_model(named, folder / "own.safetensors")
    return folder / "own.safetensors"


STAND_INS = {
    "jaxface": lambda folder, patch: write_native(folder),
    "3ddfa_v3": lambda folder, patch: stand_ins.save_pickled(
        folder / "face_model.npy", stand_ins.three_ddfa_v3(VERTICES)
    ),
    "deep3d": lambda folder, patch: stand_ins.save_matlab(folder / "BFM.mat", stand_ins.deep3d(VERTICES)),
    "basel_2009": lambda folder, patch: stand_ins.save_matlab(
        folder / "01_MorphableModel.mat", stand_ins.basel_2009(VERTICES, coefficients=KEPT)
    ),
    "basel_2017": lambda folder, patch: stand_ins.save_hdf5(
        folder / "model2017.h5", stand_ins.basel_2017(VERTICES, coefficients=(KEPT,) * 3)
    ),
    "faceverse": lambda folder, patch: stand_ins.save_pickled(folder / "v3.npy", stand_ins.faceverse(3, VERTICES)),
    "flame": lambda folder, patch: write_small_flame(folder),
    "ict": write_ict,
}
"""Format -> what writes a small file of it into a folder, and where."""


def test_every_format_has_a_stand_in():
    assert STAND_INS.keys() == FORMATS.keys(), "a new format needs a small file here, to be tested with the others"


def cut_down(model):
    """The same model with the first few coefficients of each kind, and less noise in them than random bases make."""

    def few(basis, factor=0.3):
        return factor * np.asarray(basis)[..., :KEPT]

    skinning = model.skinning
    if skinning is not None:
        joint_bases = {
            name: few(getattr(skinning, name)) for name in ("joint_identity_basis", "joint_expression_basis")
        }
        skinning = dataclasses.replace(skinning, **joint_bases)
    bases = {name: few(getattr(model, name)) for name in ("identity_basis", "expression_basis")}
    albedo_basis = few(model.albedo_basis, 1.0)
    some = 0.05 * np.random.default_rng(0).normal(size=(len(model.mean_shape), 3, KEPT)).astype(np.float32)
    if not albedo_basis.size:  # FLAME's and ICT's files have none
        albedo_basis = some
    if not bases["expression_basis"].size:  # Basel's of 2009 has none
        bases["expression_basis"] = 0.1 * some
    names = model.expression_names[:KEPT]
    return dataclasses.replace(model, **bases, albedo_basis=albedo_basis, expression_names=names, skinning=skinning)


def completed(model):
    """The model with the landmarks and parts that its files lack: parts are the triangles about their landmarks."""
    marks = model.landmarks.get("68", stand_ins.landmarks68(np.asarray(model.mean_shape))).astype(np.int32)
    ranges = {"right_brow": (17, 22), "left_brow": (22, 27), "nose": (27, 36), "right_eye": (36, 42)}
    ranges |= {"left_eye": (42, 48), "upper_lip": (48, 55), "lower_lip": (55, 60)}
    parts, triangles = {}, np.asarray(model.triangles)
    for part in PARTS:
        low, high = ranges.get(part, (0, 17))
        about = np.unique(triangles[np.isin(triangles, marks[low:high]).any(1)])
        parts[part] = np.resize(model.parts.get(part, about), PART_SIZE).astype(np.int32)
    lines = np.stack([np.resize(line, 8) for line in model.contours.get("68", marks[:17, None])]).astype(np.int32)
    return dataclasses.replace(model, landmarks={"68": marks}, contours={"68": lines}, parts=parts)


def as_programs_see_it(model):
    """The model without what no compiled program looks at, and with triangles of no area up to a common number.

    Programs then fit every model without joints: compiling them for each format alone takes 40 s.
    """
    padding = np.zeros((TRIANGLES - len(model.triangles), 3), np.int32)
    triangles = np.concatenate([model.triangles, padding])
    seen = {"name": "", "expression_names": (), "expression_bounds": (-3.0, 3.0), "uv": None, "mirror": None}
    return dataclasses.replace(model, triangles=triangles, **seen)


def random_vectors(model):
    """Faces [B, K] near the mean one, expressions within the bounds, joints turned."""
    random = np.random.default_rng(0)
    identity, expression, albedo, *_ = vector_sizes(model)
    joints = joint_numbers(model)
    units = random.uniform(0.1, 0.9, (BATCH, expression - joints))
    pieces = [
        0.5 * random.normal(size=(BATCH, identity)),
        units if model.has_expression_units else 2 * units - 1,
        ANGLE_DEVIATION * random.normal(size=(BATCH, joints)),
        0.5 * random.normal(size=(BATCH, albedo)),
        0.1 * random.normal(size=(BATCH, 3)),
        0.05 * random.normal(size=(BATCH, 27)),
        np.zeros((BATCH, 3)),
    ]
    return np.concatenate(pieces, axis=1).astype(np.float32)


@jax.jit
def draw(model, vector, camera, triangle_labels):
    coefficients = Coefficients.from_vector(vector, model)
    face = decode_face(model, coefficients, camera)
    view = render_face(face, model.triangles, image_size=camera.image_size)
    return {
        "colors": view.draw(face.colors),
        "normals": view.draw(face.normals),
        "labels": label_map(view.fragments, triangle_labels),
        "landmarks": landmark_points(model, face.points, coefficients.angles[:, 2]),
        "seen": view.seen,
    }


def draws(model, vector):
    """Draws a batch of samples, and checks that the pictures show a face from outside, in the middle."""
    drawn = draw(model, vector, CAMERA, label_triangles(model.parts, model.triangles))
    drawn = {name: np.asarray(values) for name, values in drawn.items()}
    seen, colors = drawn["seen"], drawn["colors"]
    assert np.isfinite(colors).all() and (colors[~seen] == 0).all()
    for one, picture, normals in zip(seen, colors, drawn["normals"], strict=True):
        assert 0.1 < one.mean() < 0.9
        assert np.abs(np.argwhere(one).mean(0) - SIZE / 2).max() < SIZE / 6
        assert 0.1 < picture[one].mean() < 1 and picture[one].std() > 0.01
        assert normals[one][:, 2].mean() > 0.4  # towards the viewer: the mesh is not inside out
    return {
        "image": np.round(255 * np.clip(colors, 0, 1)).astype(np.uint8),
        "labels": drawn["labels"],
        "landmarks": drawn["landmarks"],
        "landmark_weights": np.ones((BATCH, 68), np.float32),
        "coefficients": vector,
        "has_coefficients": np.ones(BATCH, np.float32),
    }


def fits_a_step(model, batch, prior):
    vector = np.asarray(fit_faces(model, batch, CAMERA, prior, steps=1).vectors)
    assert vector.shape == (BATCH, vector_size(model)) and np.isfinite(vector).all()
    assert (vector >= prior.lower - 1e-6).all() and (vector <= prior.upper + 1e-6).all()
    for kind in ("identity", "expression", "albedo", "angles", "light", "translation"):
        moved = np.abs(vector[:, column_mask(model, kind)])
        assert moved.size == 0 or moved.max() > 1e-4, kind
    if joint_numbers(model):
        angles = vector[:, column_mask(model, "expression")][:, -joint_numbers(model) :]
        assert (angles != 0).any(0).all()


# Without those that need a recognizer, or a network that tells parts and points.
LEFT_OUT = ("perceptual", "labels", "points", "visibility", "spread")
WEIGHTS = dict.fromkeys(TERMS, 1e-3) | dict.fromkeys(LEFT_OUT, 0.0)
OPTIMIZER = optax.adam(1e-3)


def objective(model, vector, batch):
    return total_loss(model, vector, batch, CAMERA, anchor_stride=6, **WEIGHTS)


@functools.cache
def training(sizes):
    """A fresh state and a compiled step for encoders of faces with so many coefficients."""
    encoder = create_encoder("resnet10", sizes, width_multiplier=0.0625)
    state = create_state(encoder, OPTIMIZER, image_size=SIZE, seed=0)
    return state, jax.jit(make_train_step(encoder, OPTIMIZER, objective))


def trains_a_step(model, batch):
    before, step = training(vector_sizes(model)[:3])
    after, metrics = step(before, batch, model)
    assert metrics["skipped"] == 0 and all(np.isfinite(value) for value in metrics.values())
    assert metrics.keys() >= {name for name, weight in WEIGHTS.items() if weight}
    for index in range(7):  # every number of every head, the angles of joints among them
        name = f"final_layers_{index}"
        if name in before.params:
            old, new = (np.asarray(state.params[name]["kernel"]) for state in (before, after))
            assert (old != new).any(0).all(), name


def exports(model, program_model, vector, batch, folder):
    alignment = Alignment(1.0, 0.0, 0.0, size=SIZE, photo_size=(SIZE, SIZE))
    sample = {name: values[0, ...] for name, values in batch.items()}
    options = DrawingOptions(picture_size=SIZE, largest_texture=64)
    solved = Reconstruction(vector[0], sample, alignment, "Face 1")
    drawn = draw_face(program_model, solved, batch["image"][0], options=options)
    export_face(folder, model, drawn)
    assert {path.name for path in folder.iterdir()} >= EXPORTERS.keys()
    face, count = read_face(folder / "mesh.glb"), model.expression_basis.shape[-1]
    assert tuple(face["names"]) == model.expression_labels and len(face["names"]) == count
    start = vector_sizes(model)[0]
    np.testing.assert_allclose(face["weights"], vector[0, start : start + count], rtol=1e-6)
    low, high = model.expression_bounds
    assert (face["weights"] >= low).all() and (face["weights"] <= high).all()
    deltas = 0.1 * np.moveaxis(np.asarray(model.expression_basis), -1, 0)  # metres
    np.testing.assert_allclose(face["targets"], deltas, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_model_of_this_format_draws_fits_trains_and_is_exported(name, tmp_path, monkeypatch):
    files, out = tmp_path / "files", tmp_path / "out"
    files.mkdir()
    out.mkdir()
    path = STAND_INS[name](files, monkeypatch)
    source = Source(path)
    assert [key for key, one in FORMATS.items() if one.recognizes(source)] == [name]
    model = completed(cut_down(load_face_model(path)))
    vector = random_vectors(model)
    program_model = as_programs_see_it(model)
    batch = draws(program_model, vector)
    fits_a_step(program_model, batch, coefficient_prior(model))
    trains_a_step(program_model, batch)
    exports(model, program_model, vector, batch, out)
