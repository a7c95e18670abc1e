"""From a photo to the crops of its faces: detection, alignment, part labels."""

import os

import numpy as np
from jaxtyping import UInt8

from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.units import CROP_SIZE
from jaxface.photos.alignment import Alignment, align_face
from jaxface.photos.detection import DetectedFace, detect_faces
from jaxface.photos.parsing import Parser, mediapipe_labels
from jaxface.photos.samples import Sample, photo_sample


def preprocess_photo(
    image: UInt8[np.ndarray, "H W 3"],
    model: FaceModel,
    *,
    size: int = CROP_SIZE,
    parser: Parser = mediapipe_labels,
    path: str | os.PathLike | None = None,
) -> list[tuple[Sample, Alignment, DetectedFace]]:
    """Makes a sample of every face in a photo, the largest face first; faces that the parser does not see are left out.

    Args:
        image: the photo, RGB.
        model: gives the alignment's template and the length of the (zero) coefficients.
        size: side of the crops in pixels.
        parser: labels the parts (`jaxface.photos.parsing`).
        path: the photo's file; label maps on disk are found by its name.

    Raises:
        InputError: when there is no face to be found, or none with labels.
        MissingDependencyError: when MediaPipe is not installed.
    """
    faces = detect_faces(image)
    if not faces:
        raise InputError("no face found; faces need about 32 pixels, and the eyes, nose and mouth in view")
    found = [(*make_sample(image, face, model, size=size, parser=parser, path=path), face) for face in faces]
    seen = [sample for sample in found if sample[0]["labels"].any()]
    if not seen:
        left, top, right, bottom = (round(float(edge)) for edge in faces[0].box)
        raise InputError(f"no part has a label where the face was found (x {left} to {right}, y {top} to {bottom})")
    return seen


def make_sample(
    image: UInt8[np.ndarray, "H W 3"],
    face: DetectedFace,
    model: FaceModel,
    *,
    size: int = CROP_SIZE,
    parser: Parser = mediapipe_labels,
    path: str | os.PathLike | None = None,
) -> tuple[Sample, Alignment]:
    """The aligned sample of one detected face, and where its crop lies in the photo.

    Landmarks outside the crop or the photo get the weight 0: the detector made them up. Arguments as for
    `preprocess_photo`.
    """
    crop, alignment = align_face(image, face.landmarks68, model, size=size)
    labels = parser(image, face, alignment, path=path)
    sample = photo_sample(crop, labels, face.landmarks68, alignment, coefficients=vector_size(model))
    return sample, alignment
