"""Finding faces in photos with MediaPipe, in two passes.

First its full-range face detector, on the whole photo and on overlapping windows of it; then its face mesh, on a square
of twice the box that was found. (On whole photos the mesh came out shifted, and the short-range detector missed faces.)
"""

import atexit
import contextlib
import dataclasses
import functools
import math
import os
import re
import types
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxface.core import landmarks
from jaxface.core.errors import MissingDependencyError, missing_extra
from jaxface.photos import face_mesh

_WINDOW = 384  # pixels; the detector itself looks at 192 x 192


# Sizes that the photo is scaled to. A face that fills its window is missed, so the first leaves room around the photo;
# the last has windows of about an eighth of the photo's side, for the small faces of a group.
_TARGETS = tuple(_WINDOW // 2 * 2**level for level in range(5))

_MESH_CROP = 512  # largest picture given to the mesh, in pixels; it looks at 192 x 192

_CROP_FACTORS = (2.0, 1.4)


# Which Debian and Ubuntu package holds the libraries that OpenCV, which MediaPipe imports, takes from the system.
_SYSTEM_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxcb.so.1": "libxcb1",
}


@dataclasses.dataclass(frozen=True)
class DetectedFace:
    """One face in a photo; coordinates are photo pixels (x, y), y down, pixel centres at + 0.5.

    Attributes:
        landmarks478: [478, 2] MediaPipe's mesh points, irises last.
        score: the detector's confidence in [0, 1].
    """

    landmarks478: Float[np.ndarray, "478 2"]
    score: float

    @property
    def landmarks68(self) -> Float[np.ndarray, "68 2"]:
        """The ibug-68 landmarks, in photo pixels."""
        return face_mesh.ibug_landmarks(self.landmarks478)

    @property
    def box(self) -> Float[np.ndarray, "4"]:
        """Left, top, right, bottom of the face's outline, in photo pixels."""
        return face_mesh.face_box(self.landmarks478)

    @property
    def size(self) -> float:
        """The longer side of the box, in photo pixels."""
        left, top, right, bottom = self.box
        return float(max(right - left, bottom - top))

    def labels(self, height: int, width: int) -> UInt8[np.ndarray, "H W"]:
        """The part labels in a photo of that size; draw smaller maps with `face_mesh.label_map` and mapped points."""
        return face_mesh.label_map(self.landmarks478, height, width)


def detect_faces(image: UInt8[np.ndarray, "H W 3"], *, min_size: float = 32) -> list[DetectedFace]:
    """All faces in a photo, the largest first; an empty list when there is none.

    Args:
        image: the photo, RGB.
        min_size: faces whose longer side is shorter than this many pixels are left out.

    Raises:
        MissingDependencyError: when MediaPipe or a library that it needs is not installed.
    """
    faces: list[DetectedFace] = []
    photo = Image.fromarray(image)
    for score, box in sorted(_candidates(photo), key=lambda candidate: -candidate[0]):
        if any(_contains(face.box, box[:2] / 2 + box[2:] / 2) for face in faces):
            continue  # the same face, found in another window
        points = _mesh_points(photo, box)
        if points is not None:
            face = DetectedFace(points, score)
            if face.size >= min_size and all(_overlap(face.box, other.box) < 0.5 for other in faces):
                faces.append(face)
    return sorted(faces, key=lambda face: -face.size)


def _candidates(photo: Image.Image) -> list[tuple[float, np.ndarray]]:
    """(score, box) of all that may be a face: by the full-range detector, or else by the short-range one."""
    targets = [target for target in _TARGETS if target < 1.5 * max(photo.size)] or _TARGETS[:1]
    found = [candidate for target in targets for candidate in _search(photo, target, "full_range")]
    return found or [candidate for target in targets[:2] for candidate in _search(photo, target, "short_range")]


def _search(photo: Image.Image, target: int, name: str) -> list[tuple[float, np.ndarray]]:
    """Detects in overlapping square windows of the photo scaled to `target` pixels on its longer side."""
    scale = target / max(photo.size)
    width, height = (max(1, round(side * scale)) for side in photo.size)
    resized = photo.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    found = []
    for top in _window_starts(height):
        for left in _window_starts(width):
            window = np.array(resized.crop((left, top, left + _WINDOW, top + _WINDOW)))
            for detection in _process(getattr(_detectors(), name), window).detections or ():
                box = detection.location_data.relative_bounding_box
                corner = np.array([box.xmin, box.ymin]) * _WINDOW + (left, top)
                extent = np.array([box.width, box.height]) * _WINDOW
                found.append((float(detection.score[0]), np.concatenate([corner, corner + extent]) / scale))
    return found


def _window_starts(length: int) -> list[int]:
    if length <= _WINDOW:
        return [(length - _WINDOW) // 2]  # centred: room on both sides
    # A third of overlap: larger faces than that were seen at the scale before.
    count = 1 + math.ceil((length - _WINDOW) / (_WINDOW * 2 / 3))
    return [round(start) for start in np.linspace(0, length - _WINDOW, count)]


def _mesh_points(photo: Image.Image, box: Float[np.ndarray, "4"]) -> Float[np.ndarray, "478 2"] | None:
    """The mesh points of the face in `box`, in photo pixels; None when the mesh sees no face there."""
    center, side = box[:2] / 2 + box[2:] / 2, max(box[2:] - box[:2])
    for factor in _CROP_FACTORS:
        left, top = np.floor(center - factor * side / 2).astype(int)
        length = int(np.ceil(factor * side))
        crop = photo.crop((left, top, left + length, top + length))
        if length > _MESH_CROP:
            crop = crop.resize((_MESH_CROP, _MESH_CROP), Image.Resampling.BILINEAR, reducing_gap=2.0)
        result = _process(_detectors().mesh, np.array(crop)).multi_face_landmarks
        if result:
            points = np.array([(point.x, point.y) for point in result[0].landmark]) * length + (left, top)
            if _contains(box, points[landmarks.IBUG_68[30]]):  # else the mesh went for a neighbour's face
                return points
    return None


def _contains(box: Float[np.ndarray, "4"], point: Float[np.ndarray, "2"]) -> bool:
    return bool((box[:2] <= point).all() and (point <= box[2:]).all())


def _overlap(a: Float[np.ndarray, "4"], b: Float[np.ndarray, "4"]) -> float:
    """Intersection over union of two boxes."""
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def _process(detector, image: UInt8[np.ndarray, "H W 3"]):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MediaPipe calls deprecated functions of protobuf
        return detector.process(image)


@functools.cache
def _detectors() -> types.SimpleNamespace:
    """MediaPipe's networks, made once per process and closed at its end."""
    with _silent():
        solutions = _load_mediapipe().solutions
        detectors = types.SimpleNamespace(
            full_range=solutions.face_detection.FaceDetection(model_selection=1),
            short_range=solutions.face_detection.FaceDetection(model_selection=0),
            mesh=solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, max_num_faces=1),
        )
        for detector in vars(detectors).values():
            atexit.register(detector.close)
            _process(
                detector, np.zeros((_WINDOW, _WINDOW, 3), np.uint8)
            )  # most of the chatter comes with the first run
    return detectors


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Closes the process's stderr to libraries that write there directly, and Python's warnings."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _load_mediapipe() -> types.ModuleType:
    """Imports MediaPipe.

    Raises:
        MissingDependencyError: names the package to install: Python's, or the system's.
    """
    try:
        import mediapipe
    except ImportError as error:
        raise _what_to_install(error) from error
    if not hasattr(mediapipe, "solutions"):
        raise MissingDependencyError(
            f"mediapipe {mediapipe.__version__} carries no face models; run: pip install 'jaxface[photo]'"
        )
    return mediapipe


def _what_to_install(error: ImportError) -> MissingDependencyError:
    library = re.search(r"(lib[\w.+-]*\.so[\w.]*)", str(error))
    if library:
        name = library.group(1)
        package = _SYSTEM_PACKAGES.get(name)
        hint = f"on Debian and Ubuntu: apt-get install {package}" if package else "install the package that holds it"
        return MissingDependencyError(
            f"face detection needs the system library {name}; {hint}; or replace the Python package "
            "opencv-contrib-python by opencv-contrib-python-headless"
        )
    if getattr(error, "name", None) not in (None, "mediapipe") and "mediapipe" not in str(error):
        return MissingDependencyError(f"face detection cannot start: {error}; run: pip install 'jaxface[photo]'")
    return missing_extra("photo", "face detection", "MediaPipe")
