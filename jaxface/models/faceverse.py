"""FaceVerse, versions 0 to 4 (Wang et al. 2022): a head or face with up to 177 expressions.

The reference code scales v3 by 0.01 and turns its y and z about, and divides v4 by 100: v3 and v4 are then in model
units (10 cm). It looks along +z at a face whose y points down, where ours has y up and z towards the viewer. So a file
whose landmarks say that it is upside down and seen from behind is turned by half a turn about x; one that is upright is
left as it is. Versions 0 to 2 are about one unit high whatever the size of a head (v2: 0.99 from top to chin), and stay
so: their shapes are right but for scale, and errors in mm do not hold for them.

What else differs from Deep3D's conventions, for those who bring coefficients or cameras along:
    v0 to v2    identity, expression, texture, angles, light 27 as (3, 9), translation; f 1315, distance 10
    v3          the same, then 4 angles of the eyeballs, which stay at rest here
    v4          identity, expression, texture, light 27 as (9, 3), angles, translation, 4 eye angles; f 1000, centre
                128, distance 10. Its code also moves the teeth with the jaw; that is left out here.
With half a turn about x, posed points are the same if pi is taken off their pitch (v0 to v2), or if y and z of angles
and translation change sign (v3, v4).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from jaxface.core.face_models import ARTIST_UNITS, STANDARD_NORMAL, FaceModel
from jaxface.core.landmarks import IBUG_68
from jaxface.core.parts import PARTS
from jaxface.models.checks import Content, check_face_model
from jaxface.models.source import FaceModelFormat

_SIGNATURE = {"meanshape", "meantex", "idBase", "exBase", "texBase", "tri"}

_BYTES = 1 / 255

_UNITS = {3: 0.01, 4: 0.01}
"""Model units per unit of the file."""


def is_faceverse(values: Any) -> bool:
    """Whether the content of a file is that of a FaceVerse model, perhaps not all of it."""
    return isinstance(values, Mapping) and len(_SIGNATURE & values.keys()) >= 4


def faceverse_version(content: Content) -> int:
    """The version 0 to 4 that a FaceVerse file has the keys of; 0 and 1 differ in their coefficients alone."""
    keys = content.values.keys()
    if {"keypoints_68", "keypoints_mediapipe"} & keys:
        return 4
    if {"mediapipe_keypoints", "exBase_52"} & keys:
        return 3
    if {"select_id", "tri_select"} & keys:
        return 2
    return 0 if content.numbers("idBase").shape[-1:] == (120,) else 1


def read_faceverse(content: Content, *, simplified: bool = False) -> FaceModel:
    """Makes a face model of a FaceVerse file (.npy), whose indices count from 0.

    Landmarks: "68" where the file has them, or has MediaPipe's points, among which they are; MediaPipe's 478 as
    "mediapipe"; others under their number ("66" are ibug's without the inner corners of the lips). Parts: the skin, as
    far as the file has it. v3's expressions are the 52 of `exBase_52` where the file has these.

    Args:
        content: of the file.
        simplified: v2's smaller mesh (6,335 of 28,632 vertices).

    Raises:
        InputError: when a key is missing or does not fit.
    """
    version = faceverse_version(content)
    unit = _UNITS.get(version, 1.0)
    mean_shape = content.vertices("meanshape", scale=unit)
    count = len(mean_shape)
    chosen = content.indices("select_id", count=count) if simplified else slice(None)
    suffix = "_select" if simplified else ""
    selected = len(mean_shape[chosen])
    landmarks = _landmarks(content, suffix, selected)
    shapes: dict[str, Any] = {
        "mean_shape": mean_shape[chosen],
        "identity_basis": content.basis("idBase", count=count, scale=unit)[chosen],
        "expression_basis": content.basis(_expression_key(content), count=count, scale=unit)[chosen],
    }
    if version == 3:
        shapes = {name: _half_turn(array) for name, array in shapes.items()}
    if upside_down(shapes["mean_shape"], landmarks):
        shapes = {name: _half_turn(array) for name, array in shapes.items()}
    names = _expression_names(content)
    model = FaceModel(
        **shapes,
        mean_albedo=content.vertices("meantex", count=count, scale=_BYTES)[chosen],
        albedo_basis=content.basis("texBase", count=count, scale=_BYTES)[chosen],
        triangles=content.triangles(f"tri{suffix}", count=selected),
        parts=_parts(content, suffix, selected),
        landmarks=landmarks,
        name=f"FaceVerse v{version}",
        expression_names=names,
        expression_bounds=ARTIST_UNITS if names else STANDARD_NORMAL,
    )
    return check_face_model(model, content.path)


def _expression_names(content: Content) -> tuple[str, ...]:
    """Names of the expression coefficients, in order (v2, v3: those of ARKit); empty if the file holds none."""
    count = content.numbers(_expression_key(content)).shape[-1]
    for key in ("exp_name_list_52", "exp_name_list"):
        names = content.values.get(key, ())
        if isinstance(names, list | tuple | np.ndarray) and np.shape(names) == (count,):
            return tuple(str(name) for name in names)
    return ()


def _expression_key(content: Content) -> str:
    return "exBase_52" if "exBase_52" in content.values else "exBase"


def _half_turn(array: np.ndarray) -> np.ndarray:
    """Half a turn about x of a mean [V, 3] or a basis [V, 3, K]; triangles keep their orientation."""
    signs = np.array([1, -1, -1], np.float32).reshape(1, 3, *[1] * (array.ndim - 2))
    return array * signs


def upside_down(mean_shape: Float[np.ndarray, "V 3"], landmarks: Mapping[str, Int32[np.ndarray, "L"]]) -> bool:
    """Whether y points down and z away from the viewer, as far as landmarks "68" or "66" tell beyond doubt."""
    vertices = landmarks.get("68", landmarks.get("66"))
    if vertices is None:
        return False
    points = mean_shape[vertices]
    brows, eyes, nose, mouth, chin = (
        points[rows, 1].mean() for rows in (slice(17, 27), slice(36, 48), slice(30, 36), slice(48, 60), slice(7, 10))
    )
    nose_depth, jaw_depth = points[27:36, 2].mean(), points[[0, 1, 15, 16], 2].mean()
    return bool(brows < eyes < nose < mouth < chin and nose_depth < jaw_depth)


def _landmarks(content: Content, suffix: str, count: int) -> dict[str, Int32[np.ndarray, "L"]]:
    landmarks = {}
    for key in ("keypoints_mediapipe", "mediapipe_keypoints"):
        if key in content.values:
            mediapipe = content.indices(key, count=count)
            landmarks["mediapipe"] = mediapipe
            if len(mediapipe) > IBUG_68.max():
                landmarks["68"] = mediapipe[IBUG_68]
    for key in (f"keypoints{suffix}", "keypoints_68"):
        if key in content.values or (key == f"keypoints{suffix}" and not landmarks):
            points = content.indices(key, count=count)
            landmarks[str(len(points))] = points
    return landmarks


def _parts(content: Content, suffix: str, count: int) -> dict[str, Int32[np.ndarray, "N"]]:
    parsing = content.values.get("parsing")
    if isinstance(parsing, Mapping):
        regions = Content(content.path, {f"parsing[{part!r}]": mask for part, mask in parsing.items()})
        return {part: regions.mask(f"parsing[{part!r}]", count=count) for part in PARTS if part in parsing}
    key = f"skinmask{suffix}"
    return {"skin": content.mask(key, count=count)} if key in content.values else {}


PUBLISHED = FaceModelFormat(
    "a FaceVerse .npy",
    lambda source: is_faceverse(source.content),
    lambda source: read_faceverse(Content(source.path, source.content)),
)
"""As the registry knows it."""
