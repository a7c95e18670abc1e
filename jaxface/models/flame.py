"""FLAME 2020, 2023 and 2023 Open: a head with a jaw and two eyeballs that turn (Li et al. 2017; flame.is.tue.mpg.de).

A pickle with v_template [V, 3] in metres, f [T, 3], shapedirs [V, 3, 400] (300 identity, then 100 expression), posedirs
[V, 3, 36], J_regressor [5, V], kintree_table [2, 5] and weights [V, 5]; now and then vt and ft. Files that are looked
for beside it, all optional:

    FLAME_masks.pkl               vertices of regions: gives the nose and the skin
    landmark_embedding.npy        DECA's 68 landmarks and the lines on which those of the outline move
    flame_static_embedding.pkl    the 51 landmarks inside the outline, as scheme "51"
    <stem>_parts.npz              parts, landmarks and contours from the annotation tool; they go before the others

The file's global turn and its neck get no coefficients: the pose (angles, translation) turns the whole head, and the
face follows from a turn of the neck what it does from one of the head.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Integer

from jaxface.core.errors import InputError
from jaxface.core.face_models import PLAIN_EYE, PLAIN_SKIN, FaceModel
from jaxface.core.skinning import Skinning
from jaxface.models.annotations import with_annotation
from jaxface.models.checks import Content
from jaxface.models.source import FaceModelFormat

IDENTITY, EXPRESSION = 300, 100
"""Columns of shapedirs: identity first, then expression."""

UNITS_PER_METRE = 10.0
"""FLAME counts metres, jaxface 10 cm."""

JOINTS = ("root", "neck", "jaw", "left_eye", "right_eye")
"""The joints in the file's order."""

PARENTS = (-1, 0, 1, 1, 1)
"""Index of the joint that each joint turns with; -1 for the root."""

POSED = (2, 3, 4)
"""The joints that have coefficients: jaw, left eye, right eye."""

EYES_AT = np.array([0.0, 0.27, -0.09])
"""Where the middle between the eyeballs comes to, in model units.

BFM's crops have their middle at the model's origin and the corners of the eyes about 0.25 above it; the corners lie
about 1 cm before the eyeballs' centres.
"""

LARGEST = 1e10  # of any number in a file: kintree_table holds 2**32 - 1

_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")


def is_flame(content: Any) -> bool:
    """Whether the content of a pickle looks like a FLAME model."""
    return isinstance(content, dict) and {"v_template", "shapedirs", "J_regressor"} <= set(_texts(content))


def read_flame(path: str | os.PathLike[str], content: dict[Any, Any] | None = None) -> FaceModel:
    """Reads a FLAME pickle, without running anything in it, and its companions into NumPy arrays (float32, int32).

    The expression coefficients are FLAME's 100 linear ones and 3 axis-angle numbers in radians for each of jaw, left
    eye and right eye. There are no albedo coefficients: the colour is a plain skin tone.

    Args:
        path: the pickle; its companions are looked for beside it.
        content: what `pickles.read_pickle` has read from it, if it has.

    Raises:
        InputError: when a file is missing, damaged or inconsistent.
    """
    from jaxface.files.pickles import read_pickle

    path = Path(path)
    arrays = _arrays(_texts(read_pickle(path) if content is None else content), path)
    mean, weights = arrays["v_template"], arrays["weights"]
    joints = arrays["J_regressor"] @ mean
    shift = EYES_AT - UNITS_PER_METRE * joints[[JOINTS.index("left_eye"), JOINTS.index("right_eye")]].mean(0)
    bases = arrays["shapedirs"].reshape(len(mean), -1)
    joint_bases = (arrays["J_regressor"] @ bases).reshape(len(JOINTS), 3, -1)

    def scaled(array: np.ndarray, offset: np.ndarray | float = 0.0) -> np.ndarray:
        return (UNITS_PER_METRE * array + offset).astype(np.float32)

    skinning = Skinning(
        joints=scaled(joints, shift),
        joint_identity_basis=scaled(joint_bases[..., :IDENTITY]),
        joint_expression_basis=scaled(joint_bases[..., IDENTITY:]),
        weights=weights.astype(np.float32),
        pose_basis=scaled(arrays["posedirs"]),
        parents=PARENTS,
        posed=POSED,
    )
    eyeballs = weights[:, [JOINTS.index("left_eye"), JOINTS.index("right_eye")]].sum(1) > 0.5
    albedo = np.where(eyeballs[:, None], PLAIN_EYE, PLAIN_SKIN).astype(np.float32)
    landmarks, contours = _landmarks(path, arrays["f"])
    model = FaceModel(
        mean_shape=scaled(mean, shift),
        identity_basis=scaled(arrays["shapedirs"][..., :IDENTITY]),
        expression_basis=scaled(arrays["shapedirs"][..., IDENTITY:]),
        mean_albedo=albedo,
        albedo_basis=np.zeros((len(mean), 3, 0), np.float32),
        triangles=arrays["f"],
        parts=_parts(path, len(mean), eyeballs),
        landmarks=landmarks,
        contours=contours,
        uv=arrays.get("uv"),
        skinning=skinning,
        name=path.stem,
    )
    annotation = path.with_name(f"{path.stem}_parts.npz")
    return with_annotation(model, annotation) if annotation.is_file() else model


def _texts(content: dict[Any, Any]) -> dict[str, Any]:
    """Python 2 wrote keys as bytes."""
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _arrays(content: dict[str, Any], path: Path) -> dict[str, np.ndarray]:
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: it is not a whole FLAME model; download it again")
    vertices = np.shape(content["v_template"])[0] if np.ndim(content["v_template"]) == 2 else 0
    shapes = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, IDENTITY + EXPRESSION),
        "posedirs": (vertices, 3, 9 * (len(JOINTS) - 1)),
        "J_regressor": (len(JOINTS), vertices),
        "weights": (vertices, len(JOINTS)),
    }
    arrays = {key: _numbers(content[key], shape, f"{path}: {key}") for key, shape in shapes.items()}
    if not np.allclose(arrays["weights"].sum(1), 1, atol=1e-3):
        raise InputError(f"{path}: the rows of weights do not sum to 1; download the file again")
    parents = _numbers(content["kintree_table"], (2, len(JOINTS)), f"{path}: kintree_table")[0]
    if tuple(parents[1:]) != PARENTS[1:]:  # the first one is -1, or 2**32 - 1 where it was stored unsigned
        raise InputError(f"{path}: kintree_table has the parents {parents.tolist()}, expected {list(PARENTS)}")
    arrays["f"] = Content(path, content).triangles("f", count=vertices)
    if "vt" in content and "ft" in content:
        arrays["uv"] = _vertex_uv(Content(path, content), arrays["f"], vertices)
    return arrays


def _vertex_uv(content: Content, triangles: Integer[np.ndarray, "T 3"], vertices: int) -> Float[np.ndarray, "V 2"]:
    """One texture coordinate per vertex; on a seam, that of its first triangle."""
    coordinates = content.texture_coordinates("vt", count=len(np.atleast_1d(content.get("vt"))))
    corners = content.triangles("ft", count=len(coordinates))
    if corners.shape != triangles.shape:
        raise InputError(f"{content.path}: ft has {len(corners)} triangles, f {len(triangles)}")
    uv = np.zeros((vertices, 2), np.float32)
    uv[triangles.ravel()[::-1]] = coordinates[corners.ravel()[::-1]]
    return uv


def _parts(path: Path, vertices: int, eyeballs: np.ndarray) -> dict[str, np.ndarray]:
    """What is certain of the parts: nose and skin, from FLAME's own regions."""
    masks = path.with_name("FLAME_masks.pkl")
    if not masks.is_file():
        return {}
    from jaxface.files.pickles import read_pickle

    content = _content(masks, read_pickle(masks))
    face, nose, lips = (content.indices(region, count=vertices) for region in ("face", "nose", "lips"))
    return {"nose": np.unique(nose), "skin": np.setdiff1d(face, np.concatenate([nose, lips, np.flatnonzero(eyeballs)]))}


def _landmarks(path: Path, triangles: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Landmarks and contours by scheme, each moved from its triangle to the nearest corner; none without a file."""
    from jaxface.files.pickles import read_pickle, read_pickled_npy

    whole, inner = path.with_name("landmark_embedding.npy"), path.with_name("flame_static_embedding.pkl")
    if whole.is_file():
        content = _content(whole, read_pickled_npy(whole))
        marks = _corners(content, "full_lmk_faces_idx", "full_lmk_bary_coords", 68, triangles)
        if "dynamic_lmk_faces_idx" not in content.values:
            return {"68": marks[0]}, {}
        lines = _corners(content, "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords", 17, triangles)
        return {"68": marks[0]}, {"68": np.ascontiguousarray(lines.T)}
    if inner.is_file():
        marks = _corners(_content(inner, read_pickle(inner)), "lmk_face_idx", "lmk_b_coords", 51, triangles)
        return {"51": marks[0]}, {}
    return {}, {}


def _content(path: Path, values: Any) -> Content:
    return Content(path, _texts(values) if isinstance(values, dict) else {})


def _corners(
    content: Content, faces: str, weights: str, count: int, triangles: Integer[np.ndarray, "T 3"]
) -> Integer[np.ndarray, "N L"]:
    """The corner with the largest weight of each point that is given by a triangle and barycentric weights."""
    chosen = content.indices(faces, count=len(triangles))
    shares = content.numbers(weights)
    if not chosen.size or chosen.size % count or shares.size != 3 * chosen.size:
        raise InputError(
            f"{content.path}: {faces} and {weights} have {chosen.size} and {shares.size} numbers, expected {count} "
            f"landmarks and 3 weights for each"
        )
    corners: np.ndarray = triangles[chosen, shares.reshape(-1, 3).argmax(1)]
    return corners.reshape(-1, count)


def _numbers(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    array: Any = value if sp.issparse(value) else np.asarray(value)
    if array.dtype.kind not in "fiu" or array.shape != shape or 0 in shape:
        raise InputError(f"{what} is {array.dtype} {list(array.shape)}, expected numbers {list(shape)}")
    array = array.toarray() if sp.issparse(array) else array
    if not (array.min() > -LARGEST and array.max() < LARGEST):  # so that NaN fails as well
        raise InputError(f"{what} holds values that are not finite or beyond {LARGEST:g}; download the file again")
    numbers: np.ndarray = array.astype(np.float64, copy=False)
    return numbers


PUBLISHED = FaceModelFormat(
    "a FLAME .pkl",
    lambda source: source.start[:1] != b"\x93" and is_flame(source.content),
    lambda source: read_flame(source.path, source.content),
)
"""As the registry knows it."""
