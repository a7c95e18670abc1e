"""The Basel Face Model as 3DDFA-V3 and Deep3DFaceRecon ship it: 35,709 vertices, 80 + 64 + 80 coefficients.

Both are in model units (10 cm), x right in the picture, y up, z towards the viewer, with bases already multiplied by
their standard deviations, so that coefficients, camera (`Camera()`) and the encoders' weights carry over unchanged.
Triangles stay as they are: the reference code's normals follow from the same order of corners as ours.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from jaxface.core.face_models import FaceModel
from jaxface.files.matlab import is_matlab, read_matlab
from jaxface.models.checks import Content, check_face_model
from jaxface.models.source import FaceModelFormat, Source

ANNOTATED_PARTS = ("right_eye", "left_eye", "right_brow", "left_brow", "nose", "upper_lip", "lower_lip", "skin")
"""The order of 3DDFA-V3's lists `annotation`."""

CONTOUR_LINES = 33
"""Lines on the cheeks in 3DDFA-V3's `parallel`: one for each of the first 33 of its 106 landmarks, the outline."""

DEEP3D_KEYS = ("meanshape", "meantex", "idBase", "exBase", "texBase", "tri", "keypoints", "skinmask")
"""What is read of `BFM_model_front.mat`."""

_SIGNATURE = {"u", "id", "exp", "u_alb", "alb", "ldm68"}

_BYTES = 1 / 255  # colours are stored as 0 to 255


def is_3ddfa_v3(values: Any) -> bool:
    """Whether the content of a file is that of 3DDFA-V3's `face_model.npy`, perhaps not all of it."""
    return isinstance(values, Mapping) and len(_SIGNATURE & values.keys()) >= 4


def read_3ddfa_v3(content: Content) -> FaceModel:
    """Makes a face model of 3DDFA-V3's `face_model.npy` (Wang et al. 2024), whose indices count from 0.

    The mean shape is used as it is. Landmarks are "68", "106" and "134". The reference code lets the first 33 of the
    106 march over the lines `parallel`: they are the contours "106". A jaw of 17 landmarks is every second of those 33,
    so contours "68" are every second line; the reference code itself keeps its 68 in place. A vertex on several lines
    belongs to the last, as there.

    Args:
        content: of the file.

    Raises:
        InputError: when a key is missing or does not fit.
    """
    mean_shape = content.vertices("u")
    count = len(mean_shape)
    landmarks = {scheme: content.indices(f"ldm{scheme}", count=count) for scheme in ("68", "106", "134")}
    lists = content.index_lists("annotation", count=count, length=len(ANNOTATED_PARTS))
    lines = content.index_lists("parallel", count=count, length=CONTOUR_LINES)
    contours = contour_lines(lines, landmarks["106"][:CONTOUR_LINES], count)
    model = FaceModel(
        mean_shape=mean_shape,
        identity_basis=content.basis("id", count=count),
        expression_basis=content.basis("exp", count=count),
        mean_albedo=content.vertices("u_alb", count=count, scale=_BYTES),
        albedo_basis=content.basis("alb", count=count, scale=_BYTES),
        triangles=content.triangles("tri", count=count),
        parts=_named_by_the_subject(dict(zip(ANNOTATED_PARTS, lists, strict=True)), mean_shape),
        landmarks=landmarks,
        contours={"68": contours[::2], "106": contours},
        uv=content.texture_coordinates("uv_coords", count=count),
        name="3DDFA-V3",
    )
    return check_face_model(model, content.path)


def _named_by_the_subject(
    parts: dict[str, Int32[np.ndarray, "N"]], mean_shape: Float[np.ndarray, "V 3"]
) -> dict[str, Int32[np.ndarray, "N"]]:
    """Exchanges left and right if all that is called left lies to the left in the picture: the subject's right."""
    x = mean_shape[:, 0]
    pairs = [(parts[f"left_{name}"], parts[f"right_{name}"]) for name in ("eye", "brow")]
    if not all(len(left) and len(right) and x[left].max() < x[right].min() for left, right in pairs):
        return parts
    other_side = {"left": "right", "right": "left"}
    return {"_".join(other_side.get(word, word) for word in name.split("_")): part for name, part in parts.items()}


def contour_lines(
    lines: list[Int32[np.ndarray, "N"]], landmarks: Int32[np.ndarray, "C"], count: int
) -> Int32[np.ndarray, "C N"]:
    """Lines of vertices as one array: a vertex on several belongs to the last, short lines repeat their first vertex.

    Args:
        lines: vertex indices of each line.
        landmarks: one per line; stands for a line that is empty.
        count: of the vertices.
    """
    line_of = np.full(count, -1)
    for index, line in enumerate(lines):
        line_of[line] = index
    kept = [np.flatnonzero(line_of == index) for index in range(len(lines))]
    kept = [line if len(line) else landmarks[index : index + 1] for index, line in enumerate(kept)]
    longest = max(len(line) for line in kept)
    return np.stack([np.pad(line, (0, longest - len(line)), constant_values=line[0]) for line in kept]).astype(np.int32)


def read_deep3d(content: Content) -> FaceModel:
    """Makes a face model of Deep3DFaceRecon's `BFM_model_front.mat` (Deng et al. 2019), whose indices count from 1.

    As in the reference code, the mean shape is centred: its vertex mean is subtracted. The file has 68 landmarks and,
    for the reflectance loss, a mask of skin, which becomes the part "skin"; it has no other parts, no contours and no
    texture coordinates. The annotation tool makes parts (`python -m jaxface.annotate`).

    Args:
        content: the arrays DEEP3D_KEYS of the file.

    Raises:
        InputError: when a key is missing or does not fit.
    """
    mean_shape = content.vertices("meanshape")
    count = len(mean_shape)
    model = FaceModel(
        mean_shape=mean_shape - mean_shape.mean(0, dtype=np.float64).astype(np.float32)[None],
        identity_basis=content.basis("idBase", count=count, limit=80),
        expression_basis=content.basis("exBase", count=count, limit=64),
        mean_albedo=content.vertices("meantex", count=count, scale=_BYTES),
        albedo_basis=content.basis("texBase", count=count, limit=80, scale=_BYTES),
        triangles=content.triangles("tri", count=count, first=1),
        parts={"skin": content.mask("skinmask", count=count)},
        landmarks={"68": content.indices("keypoints", count=count, first=1)},
        name="Deep3D",
    )
    return check_face_model(model, content.path)


def _recognizes_deep3d(source: Source) -> bool:
    return is_matlab(source.start) and "shapeMU" not in source.variables  # Basel's own has that


PUBLISHED_3DDFA_V3 = FaceModelFormat(
    "3DDFA-V3's face_model.npy",
    lambda source: is_3ddfa_v3(source.content),
    lambda source: read_3ddfa_v3(Content(source.path, source.content)),
)
"""3DDFA-V3's file, as the registry knows it."""
PUBLISHED_DEEP3D = FaceModelFormat(
    "Deep3DFaceRecon's BFM_model_front.mat",
    _recognizes_deep3d,
    lambda source: read_deep3d(Content(source.path, read_matlab(source.path, DEEP3D_KEYS))),
)
"""Deep3DFaceRecon's file, as the registry knows it."""
