"""Held-out drawn people as a detector sees them, and how far faces lie from them."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxface.core import face_models
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.metrics import align_points, vertex_error_mm
from jaxface.core.units import MM_PER_UNIT
from jaxface.files import atomic, progress
from jaxface.fitting.evidence import shipped_calibration
from jaxface.photos.face_crops import FaceCrop, preprocess_photo
from jaxface.photos.parsing import FIT_PARSER, create_parser
from jaxface.photos.samples import pad_rows, stack_samples
from jaxface.render import label_triangles
from jaxface.synthetic.held_out import split_people
from jaxface.synthetic.people import load_people
from jaxface.synthetic.people_pictures import skin_color
from jaxface.synthetic.photographs import draw_photographs

SEED = 707
"""The shipped calibration was made with other seeds: no face of these has a part in it."""

LARGEST_YAW = 90.0
DRAWN, TOGETHER = 8, 16

Rows = dict[str, np.ndarray]
"""People, a row each: the entries of a sample; "true_labels" [N, S, S] and those of `other_labels`; "vector" [N, K],
the true coefficients, of which identity and expression are the crop's; "yaw" in degrees, "distance" of the camera in
model units, "hidden", the share of the face that something lies over, "skin", its mean colour.
"""


def people(model: FaceModel, count: int, folder: Path) -> tuple[Rows, Float[np.ndarray, "M"]]:
    """The first `count` held-out people that the detector finds, and the yaws of those before them that it does not.

    Skins and styles are those that the network which ships never saw, the people around the mean of real people, 0.6 to
    2 m away. The same people come every time.

    Args:
        model: the built-in face model, of JAX arrays.
        count: of people.
        folder: where those lie that were drawn already, and others go.
    """
    labels = jnp.asarray(label_triangles(model.parts, model.triangles))
    heads = jax.tree.map(jnp.asarray, split_people(load_people(model), held_out=True))
    draw, blocks, missed, found = jax.jit(draw_photographs), list[Rows](), list[float](), 0
    with progress.progress_bar(count, description="draw and detect", unit="face") as bar:
        while found < count:
            path = folder / f"{DRAWN * len(blocks):06d}.npz"
            if not path.exists():
                with atomic.atomic_write(path) as partial, open(partial, "wb") as file:
                    np.savez_compressed(file, **_block(model, draw, labels, heads, start=DRAWN * len(blocks)))
            with np.load(path) as arrays:
                block = dict(arrays)
            missed += block.pop("missed").tolist()
            blocks.append(block)
            found += len(block["yaw"])
            bar.update(min(len(block["yaw"]), count))
    names = next(block for block in blocks if len(block["yaw"]))
    rows = {name: np.concatenate([block[name] for block in blocks if len(block["yaw"])])[:count] for name in names}
    return rows, np.array(missed)


def _block(model, draw, labels, heads, *, start: int) -> Rows:
    """`DRAWN` people; those who are found."""
    keys = jax.vmap(jax.random.key)(1_000_003 * SEED + start + jnp.arange(DRAWN))
    turns = np.random.default_rng([SEED, start]).uniform(-LARGEST_YAW, LARGEST_YAW, DRAWN)
    yaws, mean = np.radians(turns).astype(np.float32), jnp.asarray(shipped_calibration().identity_mean)
    drawn = jax.tree.map(np.asarray, draw(keys, model, labels, heads, yaws=yaws, identity_mean=mean))
    skins = np.asarray(skin_color(model, Coefficients.from_vector(drawn["coefficients"], model).albedo)).mean(-1)
    parser, rows, missed = create_parser(FIT_PARSER), list[Rows](), list[float]()
    for index, photo in enumerate(drawn["image"]):
        try:
            crop = preprocess_photo(photo, model, parser=parser)[0]
        except InputError:
            missed.append(turns[index])
            continue
        hidden, shown = drawn["hidden"][index].sum(), (drawn["labels"][index] > 0).sum()
        own = {
            "true_labels": crop.alignment.crop_labels(drawn["labels"][index]),
            "vector": drawn["coefficients"][index],
            "yaw": turns[index],
            "distance": drawn["distance"][index],
            "hidden": hidden / max(hidden + shown, 1),
            "skin": skins[index],
        }
        own |= other_labels(photo, crop)
        rows.append({name: np.asarray(value) for name, value in (dict(crop.sample) | own).items()})
    return (stack_samples(rows) if rows else {"yaw": np.zeros(0)}) | {"missed": np.array(missed)}


def other_labels(photo: UInt8[np.ndarray, "H W 3"], crop: FaceCrop) -> dict[str, UInt8[np.ndarray, "S S"]]:
    """The parts of a crop as those parsers see them that do not guide fits: "jaxface_labels" or "mediapipe_labels"."""
    others = [name for name in ("jaxface", "mediapipe") if name != FIT_PARSER]
    return {f"{name}_labels": create_parser(name)(photo, crop.face, crop.alignment) for name in others}


def batches(rows: Rows) -> Iterator[tuple[slice, Rows]]:
    """`TOGETHER` people at a time, the last ones padded: which they are, and they."""
    count = len(rows["yaw"])
    for start in range(0, count, TOGETHER):
        some = slice(start, min(start + TOGETHER, count))
        yield some, {name: pad_rows(values[some], TOGETHER) for name, values in rows.items()}


class Measure:
    """Distances from true shapes after a similarity, mean over the vertices of all parts, in mm.

    Args:
        model: the face model.
        vectors: [N, K] true coefficients.
    """

    def __init__(self, model: FaceModel, vectors: Float[np.ndarray, "N K"]):
        self.model, self.vertices = model, face_models.vertices_of_parts(model)
        self.true = self.shapes(vectors)

    def shapes(self, vectors: Float[np.ndarray, "N K"]) -> jax.Array:
        """Faces before the pose: [N, V, 3]."""
        coefficients = Coefficients.from_vector(jnp.asarray(vectors), self.model)
        return face_models.shape(self.model, coefficients.identity, coefficients.expression)

    def errors(self, shapes, true=None) -> Float[np.ndarray, "N"]:
        """Of shapes [N, V, 3], or one shape for all; `true` may stand for the true ones."""
        true = self.true if true is None else true
        shapes = jnp.broadcast_to(jnp.asarray(shapes), true.shape)
        return np.asarray(vertex_error_mm(shapes, true, align="similarity", vertices=self.vertices))

    def vertex_errors(self, shapes) -> Float[np.ndarray, "N P"]:
        """Of each vertex of all parts, in the order of `vertices`."""
        true = self.true[:, self.vertices]
        aligned = align_points(jnp.asarray(shapes)[:, self.vertices], true, scale=True)
        return MM_PER_UNIT * np.linalg.norm(np.asarray(aligned - true), axis=-1)

    def by_part(self, errors: Float[np.ndarray, "N P"]) -> dict[str, Float[np.ndarray, "N"]]:
        """Part -> the mean over its vertices."""
        return {part: errors[:, np.isin(self.vertices, rows)].mean(1) for part, rows in self.model.parts.items()}
