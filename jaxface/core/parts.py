"""The eight parts of a face: their order, other parsers' label maps, the forehead cut, what mirrors into what.

"Left" and "right" are the subject's own everywhere in jaxface, as in CelebAMask-HQ: the left eye of a person who looks
at the camera lies on the RIGHT side of the picture (larger x).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, UInt8

PARTS = ("left_eye", "right_eye", "left_brow", "right_brow", "nose", "upper_lip", "lower_lip", "skin")
"""The parts in the order of the label map: part i has label i + 1."""

SEVEN_PARTS = PARTS[:7]
"""The parts that the paper's Part IoU averages over: all but the skin."""

BACKGROUND = 0
"""The label of what is no face, and of what hides it."""

LABELS = {part: index + 1 for index, part in enumerate(PARTS)}
"""The label of each part, 1 to 8."""

FOREHEAD = 9
"""Face surface that belongs to no part: skin above the brows, teeth, the inside of the mouth.

PRDL leaves it out; the photometric loss uses it.
"""

CLASSES = ("background", *PARTS, "forehead", "inner_mouth", "hair", "glasses", "beard", "other_skin", "other")
"""What a pixel can show: the label map's labels and what they leave open. "other_skin" is ears, neck and scalp, "other"
what is worn or lies before the face; "beard" lies on what the label map calls skin."""

_OF_FACE = LABELS | {"forehead": FOREHEAD, "inner_mouth": FOREHEAD, "beard": LABELS["skin"]}
CLASS_LABELS = np.array([_OF_FACE.get(name, BACKGROUND) for name in CLASSES], np.uint8)
"""Lookup table from classes to labels: beards are skin, the inside of the mouth is face without a part."""

MIRRORED_PARTS = {part: part.replace("left", "\0").replace("right", "left").replace("\0", "right") for part in PARTS}
"""The part that each part becomes when the image is flipped left to right."""

MIRRORED_LABELS = np.array([BACKGROUND, *(LABELS[MIRRORED_PARTS[part]] for part in PARTS), FOREHEAD], np.uint8)
"""Lookup table [10]: the label that each label becomes when the image is flipped left to right."""

MIRRORED_CLASSES = np.array([CLASSES.index(MIRRORED_PARTS.get(name, name)) for name in CLASSES], np.uint8)
"""The same for `CLASSES`."""

_CELEBAMASK = (
    "background skin nose eye_glasses left_eye right_eye left_brow right_brow left_ear right_ear mouth upper_lip "
    "lower_lip hair hat earring necklace neck cloth"
).split()

_LAPA = ("background skin left_brow right_brow left_eye right_eye nose upper_lip inner_mouth lower_lip hair").split()

_BISENET = (
    "background skin left_brow right_brow left_eye right_eye glasses left_ear right_ear earring nose mouth upper_lip "
    "lower_lip neck necklace cloth hair hat"
).split()

PARSER_LABELS = {
    name: np.array([LABELS.get(label, FOREHEAD if "mouth" in label else BACKGROUND) for label in labels], np.uint8)
    for name, labels in {"celebamask": _CELEBAMASK, "lapa": _LAPA, "bisenet": _BISENET}.items()
} | {"jaxface": np.arange(10, dtype=np.uint8)}
"""Lookup tables from other face parsers' label maps to ours: `PARSER_LABELS["lapa"][label_map]`."""


def part_masks(labels: Integer[Array | np.ndarray, "*B H W"]) -> dict[str, Bool[Array, "*B H W"]]:
    """Splits a label map into one boolean mask per part."""
    return {part: jnp.asarray(labels) == label for part, label in LABELS.items()}


def face_mask(labels: Integer[Array | np.ndarray, "*B H W"]) -> Bool[Array, "*B H W"]:
    """Every pixel that shows the face, forehead and inner mouth included."""
    return jnp.asarray(labels) != BACKGROUND


def labels_from_masks(masks: Mapping[str, np.ndarray]) -> UInt8[np.ndarray, "H W"]:
    """Joins one mask per part into a label map; small parts lie over the skin where masks overlap."""
    shape = next(iter(masks.values())).shape
    labels = np.zeros(shape, np.uint8)
    for part in reversed(PARTS):  # skin first, so that the others are painted over it
        if part in masks:
            labels[np.asarray(masks[part]) > 0] = LABELS[part]
    return labels


def mask_points(mask: np.ndarray) -> Float[np.ndarray, "N 2"]:
    """Pixel centres (x, y) of a boolean mask [H, W], in pixels; shape [0, 2] for an empty mask."""
    rows, columns = np.nonzero(mask)
    return np.stack([columns + 0.5, rows + 0.5], axis=-1).astype(np.float32)


def below_brows(
    points: Float[Array, "*B N 2"], left_brow: Float[Array, "*B 2"], right_brow: Float[Array, "*B 2"]
) -> Bool[Array, "*B N"]:
    """Whether image points lie on the chin's side of the line through the centroids of the two brows.

    The forehead cut of the paper (hair hides the skin above the brows): the same rule cuts the target's pixels and the
    model's projected vertices, so that both sides agree for the true face.

    Args:
        points: image points in pixels, y down.
        left_brow: centroid of the subject's left brow, in pixels.
        right_brow: centroid of the subject's right brow, in pixels.
    """
    along = (left_brow - right_brow)[..., None, :]  # points to the right of the picture for an upright face
    offset = points - right_brow[..., None, :]
    return along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0] > 0


def cut_forehead(labels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Relabels skin above the brows as FOREHEAD; returns the map unchanged when a brow is not to be seen."""
    brows = [mask_points(labels == LABELS[part]) for part in ("left_brow", "right_brow")]
    if not all(len(brow) for brow in brows):
        return labels
    left_brow, right_brow = (brow.mean(0) for brow in brows)
    rows, columns = np.nonzero(labels == LABELS["skin"])
    points = np.stack([columns + 0.5, rows + 0.5], axis=-1)
    along, offset = left_brow - right_brow, points - right_brow
    above = along[0] * offset[:, 1] - along[1] * offset[:, 0] <= 0
    result = labels.copy()
    result[rows[above], columns[above]] = FOREHEAD
    return result


def uncut_without_brows(labels: Integer[Array, "*B H W"], uncut: Integer[Array, "*B H W"]) -> UInt8[Array, "*B H W"]:
    """Label maps of drawn faces, in which skin stays skin up to the hair where something hides a brow.

    As `cut_forehead` does it in photos.

    Args:
        labels: of what can be seen, foreheads cut.
        uncut: of the faces before anything was cut or hidden.
    """
    left, right = ((labels == LABELS[brow]).any((-2, -1), keepdims=True) for brow in ("left_brow", "right_brow"))
    skin = (labels == FOREHEAD) & (uncut == LABELS["skin"])
    return jnp.where(skin & ~(left & right), LABELS["skin"], labels).astype(jnp.uint8)


def visible_centroid(points: Float[Array, "*B N 2"], areas: Float[Array, "*B N"] | None = None) -> Float[Array, "*B 2"]:
    """Centroid of what is seen of a part, held fixed for gradients: it places a cut, it does not move the face.

    Args:
        points: the part's projected vertices in pixels.
        areas: what each of them stands for, such as `render.visible_areas`, some of it positive; all alike if None.
    """
    if areas is None:
        return jax.lax.stop_gradient(points.mean(-2))
    return jax.lax.stop_gradient((areas[..., None] * points).sum(-2) / areas.sum(-1, keepdims=True))
