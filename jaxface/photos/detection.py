"""Finding faces in photos, by MediaPipe's networks rebuilt in JAX.

First the full-range detector, on the whole photo and on overlapping windows of it (`face_search`); then the mesh, on a
square around each face that may be there (`face_points`). Faces that stand on their side or their head are found too:
where the photo shows none upright, it is searched again, turned.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxface.core.errors import InputError
from jaxface.photos import face_mesh
from jaxface.photos.face_boxes import contains
from jaxface.photos.face_points import Place, find_points
from jaxface.photos.face_search import search


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


def detect_faces(image: UInt8[np.ndarray, "H W 3"], *, min_size: float = 24) -> list[DetectedFace]:
    """All faces in a photo, the largest first; an empty list when there is none.

    Args:
        image: the photo, RGB.
        min_size: faces whose longer side is shorter than this many pixels are left out. Half the pixels take up to four
            times as long to look for.

    Raises:
        InputError: when the photo is not RGB bytes, or `min_size` is no size.
    """
    return detect_faces_in([image], min_size=min_size)[0]


def detect_faces_in(images: Sequence[UInt8[np.ndarray, "H W 3"]], *, min_size: float = 24) -> list[list[DetectedFace]]:
    """All faces in each of several photos: what `detect_faces` finds, sooner, as the networks see many at once.

    Args:
        images: photos of any sizes, RGB.
        min_size: as for `detect_faces`.

    Raises:
        InputError: says which photo is not RGB bytes, or that `min_size` is no size.
    """
    if not 0 < min_size < math.inf:
        raise InputError(f"min_size is a number of pixels above 0, not {min_size}")
    photos = [_as_photo(image, number) for number, image in enumerate(images)]
    found: list[list[DetectedFace]] = [[] for _ in photos]
    for quarter in range(4):
        waiting = [index for index, faces in enumerate(found) if not faces]
        if not waiting:
            break
        boxes = search([photos[index] for index in waiting], min_size=min_size, quarter=quarter)
        places = [
            Place(index, box, quarter * math.pi / 2) for index, some in zip(waiting, boxes, strict=True) for box in some
        ]
        for place, look in find_points(photos, places):
            face, others = DetectedFace(look.points, place.box.score), found[place.photo]
            if face.size >= min_size and not any(_same(face, other) for other in others):
                others.append(face)
    return [sorted(faces, key=lambda face: -face.size) for faces in found]


def _as_photo(image: UInt8[np.ndarray, "H W 3"], number: int) -> Image.Image:
    pixels = np.asarray(image)
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size:
        return Image.fromarray(pixels)
    raise InputError(
        f"photo {number} is {pixels.dtype} {list(pixels.shape)}, but should be uint8 [H, W, 3], RGB from 0 to 255; "
        "jaxface.files.images.read_image gives that, to_bytes makes it of colours from 0 to 1"
    )


def _same(face: DetectedFace, other: DetectedFace) -> bool:
    """Whether the middle of one lies in the other: they were found in two windows, or one is a part of the other."""
    boxes = (face.box, other.box), (other.box, face.box)
    return any(contains(a, (b[:2] + b[2:]) / 2) for a, b in boxes)
