"""Finding faces in photos, by MediaPipe's networks rebuilt in JAX.

First the full-range detector, on the whole photo and on overlapping windows of it (`face_search`); then the mesh, on a
square around each face that may be there (`face_points`). Where the mesh refuses what may be a face, the network that
comes with jaxface looks: it sees profiles (`profiles`). Faces that stand on their side or their head are found too:
where the photo shows none upright, it is searched again, turned.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.spatial import ConvexHull

from jaxface.core.errors import InputError
from jaxface.photos import face_mesh
from jaxface.photos.face_boxes import contains
from jaxface.photos.face_points import Place, find_points
from jaxface.photos.face_search import search
from jaxface.photos.profiles import find_profile

REFUSED = 24
"""Places of a photo, those of which the detector is surest, at which the network looks where the mesh sees no face: in
large photos without faces there are hundreds."""


@dataclasses.dataclass(frozen=True)
class DetectedFace:
    """One face in a photo; coordinates are photo pixels (x, y), y down, pixel centres at + 0.5.

    Attributes:
        landmarks478: [478, 2] MediaPipe's mesh points, irises last; None where its mesh sees no face, but jaxface's
            network does.
        score: the detector's confidence in [0, 1].
        profile68: [68, 2] ibug's landmarks as jaxface's network sees them, where the mesh sees no face.
    """

    landmarks478: Float[np.ndarray, "478 2"] | None
    score: float
    profile68: Float[np.ndarray, "68 2"] | None = None

    @property
    def landmarks68(self) -> Float[np.ndarray, "68 2"]:
        """The ibug-68 landmarks, in photo pixels."""
        if self.landmarks478 is not None:
            return face_mesh.ibug_landmarks(self.landmarks478)
        assert self.profile68 is not None
        return self.profile68

    @property
    def outline(self) -> Float[np.ndarray, "N 2"]:
        """A closed polygon around the face, in photo pixels; of a profile from chin to brows."""
        if self.landmarks478 is not None:
            return self.landmarks478[face_mesh.FACE_OVAL]
        return self.landmarks68[ConvexHull(self.landmarks68).vertices]

    @property
    def box(self) -> Float[np.ndarray, "4"]:
        """Left, top, right, bottom of the face's outline, in photo pixels."""
        outline = self.outline
        return np.concatenate([outline.min(0), outline.max(0)])

    @property
    def size(self) -> float:
        """The longer side of the box, in photo pixels."""
        left, top, right, bottom = self.box
        return float(max(right - left, bottom - top))

    def moved(self, offset: Float[np.ndarray, "2"]) -> "DetectedFace":
        """The same face where the photo's points are moved by (x, y)."""
        mesh, profile = (None if p is None else p + offset for p in (self.landmarks478, self.profile68))
        return DetectedFace(mesh, self.score, profile)

    def labels(self, height: int, width: int) -> UInt8[np.ndarray, "H W"]:
        """The part labels in a photo of that size; draw smaller maps with `face_mesh.label_map` and mapped points.

        Raises:
            InputError: when MediaPipe's mesh does not see the face; parsers do, see `photos.parsing`.
        """
        if self.landmarks478 is None:
            raise InputError("MediaPipe's mesh does not see this face; have its parts labelled by the parser jaxface")
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
        seen = find_points(photos, places)
        _add(found, [(place, DetectedFace(look.points, place.box.score)) for place, look in seen], min_size)
        known = {id(place.box) for place, _ in seen}
        refused = [place for place in places if id(place.box) not in known and not _in_a_face(place, found)]
        _add(found, _profiles(photos, refused, quarter), min_size)
    return [sorted(faces, key=lambda face: -face.size) for faces in found]


def _add(found: list[list[DetectedFace]], more: Sequence[tuple[Place, DetectedFace]], min_size: float) -> None:
    """Adds faces to those of their photos, but for small ones and those that are there already."""
    for place, face in more:
        others = found[place.photo]
        if face.size >= min_size and not any(_same(face, other) for other in others):
            others.append(face)


def _in_a_face(place: Place, found: Sequence[Sequence[DetectedFace]]) -> bool:
    middle = place.box.box[:2] / 2 + place.box.box[2:] / 2
    return any(contains(face.box, middle) for face in found[place.photo])


def _profiles(photos: Sequence[Image.Image], places: Sequence[Place], quarter: int) -> list[tuple[Place, DetectedFace]]:
    """The faces at places where the mesh saw none, those of which the network is surest first."""
    found = []
    for number, photo in enumerate(photos):
        own = [place for place in places if place.photo == number]  # the detector's surest first
        found += [(place, find_profile(photo, place.box, quarter=quarter)) for place in own[:REFUSED]]
    sure = [(place, profile) for place, profile in found if profile is not None]
    sure.sort(key=lambda pair: pair[1].unsure)
    return [(place, DetectedFace(None, place.box.score, profile.landmarks)) for place, profile in sure]


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
