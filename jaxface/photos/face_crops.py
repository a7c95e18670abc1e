"""From a photo to the crops of its faces: detection, alignment, part labels."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.units import CROP_SIZE
from jaxface.photos.alignment import Alignment, align_face
from jaxface.photos.detection import DetectedFace, detect_faces
from jaxface.photos.face_mesh import POINTS
from jaxface.photos.parsing import Parser, mediapipe_labels
from jaxface.photos.samples import Sample, photo_sample


class NoFaceError(InputError):
    """A photo that could be read and shows no face."""


@dataclasses.dataclass(frozen=True)
class FaceCrop:
    """One face of a photo, cut out and labelled.

    Attributes:
        sample: the aligned crop, its part labels and landmarks (photos/samples.py).
        alignment: where the crop lies in the photo.
        face: what the detector found; None for a face that no detector was asked about.
    """

    sample: Sample
    alignment: Alignment
    face: DetectedFace | None = None

    def found(self) -> dict[str, Any]:
        """What the detector found, as written beside samples: "score" and "box"; nothing where none was asked."""
        if self.face is None:
            return {}
        return {"score": round(self.face.score, 4), "box": np.round(self.face.box, 2).tolist()}


def preprocess_photo(
    image: UInt8[np.ndarray, "H W 3"],
    model: FaceModel,
    *,
    size: int = CROP_SIZE,
    parser: Parser = mediapipe_labels,
    path: str | os.PathLike | None = None,
    focal: float | None = None,
) -> list[FaceCrop]:
    """Cuts out every face of a photo, the largest face first; faces that the parser does not see are left out.

    Args:
        image: the photo, RGB.
        model: gives the alignment's template and the length of the (zero) coefficients.
        size: side of the crops in pixels.
        parser: labels the parts (`jaxface.photos.parsing`).
        path: the photo's file; label maps on disk are found by its name.
        focal: focal length in pixels of the photo, see `files.images.photo_focal`; None if nobody knows.

    Raises:
        NoFaceError: when there is no face to be found, or none with labels.
        InputError: when a face cannot be labelled.
    """
    faces = detect_faces(image)
    return seen_crops(
        [make_crop(image, face, model, size=size, parser=parser, path=path, focal=focal) for face in faces]
    )


def seen_crops(crops: Sequence[FaceCrop]) -> list[FaceCrop]:
    """The crops, of all faces found in a photo, that have a label.

    Raises:
        NoFaceError: when there is none.
    """
    if not crops:
        raise NoFaceError("no face found; faces need about 24 pixels, and at least one side in view")
    seen = [crop for crop in crops if crop.sample["labels"].any()]
    if not seen and (face := crops[0].face) is not None:
        left, top, right, bottom = (round(float(edge)) for edge in face.box)
        raise NoFaceError(f"no part has a label where the face was found (x {left} to {right}, y {top} to {bottom})")
    return seen


def make_crop(
    image: UInt8[np.ndarray, "H W 3"],
    face: DetectedFace,
    model: FaceModel,
    *,
    size: int = CROP_SIZE,
    parser: Parser = mediapipe_labels,
    path: str | os.PathLike | None = None,
    focal: float | None = None,
) -> FaceCrop:
    """Cuts out one detected face.

    Landmarks outside the crop or the photo get the weight 0: the detector made them up. Arguments as for
    `preprocess_photo`.
    """
    crop, alignment = align_face(image, face.landmarks68, model, size=size)
    labels = parser(image, face, alignment, path=path)
    sample = face_sample(crop, labels, face, alignment, coefficients=vector_size(model), focal=focal)
    return FaceCrop(sample, alignment, face)


def face_sample(
    crop: UInt8[np.ndarray, "S S 3"],
    labels: UInt8[np.ndarray, "S S"],
    face: DetectedFace,
    alignment: Alignment,
    *,
    coefficients: int,
    focal: float | None = None,
) -> Sample:
    """The sample of a face that the detector found, with all its points.

    Args:
        crop: the face, cut out.
        labels: of its parts.
        face: what the detector found.
        alignment: where the crop lies in the photo.
        coefficients: length K of the face model's coefficient vector.
        focal: focal length in pixels of the photo; None if nobody knows.
    """
    height, width = alignment.photo_size
    # Of a profile nobody knows the mesh's points.
    points = np.full((POINTS, 2), -1.0) if face.landmarks478 is None else face.landmarks478
    inside = ((points >= 0) & (points <= (width, height))).all(-1)
    return {
        **photo_sample(crop, labels, face.landmarks68, alignment, coefficients=coefficients),
        "points": alignment.to_crop(points).astype(np.float32),
        "point_weights": np.asarray(inside, np.float32),
        "focal": np.asarray(np.nan if focal is None else focal * alignment.scale, np.float32),
    }
