"""Alignment: the square crop that the encoder sees, and the way back to the photo.

The recipe is Deep3DFaceRecon's (Deng et al. 2019), which 3DDFA-V3 keeps: a scaled-orthographic camera is fitted to five
landmarks, and the photo is scaled and moved so that the face model's unit measures 102 pixels in a 224-pixel crop with
the model's origin at its centre. That code truncates sizes to integers; here the crop is resampled once, at the exact
scale and place, so that points map both ways without rounding.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxface.core.cameras import Camera
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.units import CROP_SIZE

PIXELS_PER_UNIT = 102.0  # of a crop of CROP_SIZE


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Where a crop lies in its photo: crop point = scale * photo point + (offset_x, offset_y).

    Points are (x, y) in pixels, y down, continuous (pixel centres at + 0.5), in the photo and in the crop.

    Attributes:
        scale: crop pixels per photo pixel.
        offset_x: place of the photo's left edge in the crop, in crop pixels.
        offset_y: place of the photo's upper edge in the crop, in crop pixels.
        size: side of the crop in pixels.
        photo_size: (height, width) of the photo in pixels.
    """

    scale: float
    offset_x: float
    offset_y: float
    size: int
    photo_size: tuple[int, int]

    def to_crop(self, points: Float[np.ndarray, "*B 2"]) -> Float[np.ndarray, "*B 2"]:
        """Photo points to crop points."""
        return np.asarray(points) * self.scale + np.array([self.offset_x, self.offset_y])

    def to_photo(self, points: Float[np.ndarray, "*B 2"]) -> Float[np.ndarray, "*B 2"]:
        """Crop points to photo points."""
        return (np.asarray(points) - np.array([self.offset_x, self.offset_y])) / self.scale

    def photo_camera(self, camera: Camera) -> Camera:
        """The camera that draws into the photo what `camera` draws into the crop."""
        camera = camera.resized(self.size)
        x, y = self.to_photo(np.array(camera.center))
        return dataclasses.replace(
            camera, focal=camera.focal / self.scale, center=(float(x), float(y)), image_size=self.photo_size
        )

    def crop_image(self, photo: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S S 3"]:
        """Cuts the crop out of the photo, bicubic and antialiased; black outside the photo."""
        left, top = (float(x) for x in self.to_photo(np.zeros(2)))
        right, bottom = (float(x) for x in self.to_photo(np.full(2, self.size)))
        margin = 3 * math.ceil(max(1.0, 1 / self.scale))  # what the bicubic filter reaches beyond the box
        x0, y0 = math.floor(left) - margin, math.floor(top) - margin
        x1, y1 = math.ceil(right) + margin, math.ceil(bottom) + margin
        # Pillow fills with black outside; a large photo is not copied whole for a small face.
        near_x, near_y = (int(np.clip(low, 0, end - 1)) for low, end in ((x0, photo.shape[1]), (y0, photo.shape[0])))
        part = photo[near_y : max(y1, near_y + 1), near_x : max(x1, near_x + 1)]
        image = Image.fromarray(part).crop((x0 - near_x, y0 - near_y, x1 - near_x, y1 - near_y))
        box = (left - x0, top - y0, right - x0, bottom - y0)
        return np.array(image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box))

    def crop_labels(self, labels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "S S"]:
        """Cuts a label map like the photo: the nearest pixel's label; background outside."""
        centers = np.arange(self.size) + 0.5
        columns, rows = np.floor(self.to_photo(np.stack([centers, centers], axis=-1))).astype(int).T
        height, width = labels.shape
        row_inside, column_inside = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        result = labels[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)]
        return np.where(row_inside[:, None] & column_inside, result, 0).astype(np.uint8)

    def to_dict(self) -> dict:
        """Plain numbers and lists for JSON."""
        return dataclasses.asdict(self) | {"photo_size": list(self.photo_size)}

    @classmethod
    def from_dict(cls, values: dict) -> "Alignment":
        """The inverse of `to_dict`.

        Raises:
            InputError: when a field is missing or not a number.
        """
        try:
            height, width = values["photo_size"]
            scale, offset_x, offset_y = (float(values[name]) for name in ("scale", "offset_x", "offset_y"))
            return cls(scale, offset_x, offset_y, int(values["size"]), (int(height), int(width)))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"not an alignment: {values!r} (needs scale, offset_x, offset_y, size, photo_size)"
            ) from error


def five_points(landmarks: Float[np.ndarray, "68 D"]) -> Float[np.ndarray, "5 D"]:
    """Both eyes' centres (of their corners), nose tip, both mouth corners, each pair in the image's order."""
    landmarks = np.asarray(landmarks, np.float64)
    right_eye, left_eye = landmarks[[36, 39]].mean(0), landmarks[[42, 45]].mean(0)
    return np.stack([right_eye, left_eye, landmarks[30], landmarks[48], landmarks[54]])


def alignment_template(model: FaceModel) -> Float[np.ndarray, "5 3"]:
    """What a face is aligned to: `five_points` of the model's mean shape, in model units, y up."""
    return five_points(np.asarray(model.mean_shape)[np.asarray(model.landmarks["68"])])


def fit_alignment(
    landmarks: Float[np.ndarray, "68 2"],
    template: Float[np.ndarray, "5 3"],
    *,
    photo_size: tuple[int, int],
    size: int = CROP_SIZE,
) -> Alignment:
    """Deep3D's alignment of 68 landmarks to five points of a face model.

    Args:
        landmarks: ibug-68 points in photo pixels, y down.
        template: of the face model, see `alignment_template`.
        photo_size: (height, width) of the photo in pixels.
        size: side of the crop in pixels; at 224, a model unit takes 102 pixels.

    Raises:
        InputError: when the landmarks are not finite or fall together.
    """
    targets = five_points(landmarks)
    if not np.isfinite(targets).all():
        raise InputError("the landmarks hold numbers that are not finite; the face cannot be aligned")
    targets[:, 1] *= -1  # y up, like the model
    points = np.concatenate([template, np.ones((5, 1))], axis=1)
    affine, *_ = np.linalg.lstsq(points, targets, rcond=None)  # rows: scaled rotation [3, 2], then the origin's place
    face_scale = np.linalg.norm(affine[:3], axis=0).mean()  # photo pixels per model unit
    if face_scale < 1e-3:
        raise InputError("the landmarks fall together in one point; the face cannot be aligned")
    origin_x, origin_y = affine[3, 0], -affine[3, 1]
    scale = PIXELS_PER_UNIT * size / CROP_SIZE / face_scale
    offset_x, offset_y = size / 2 - scale * origin_x, size / 2 - scale * origin_y
    return Alignment(float(scale), float(offset_x), float(offset_y), size, photo_size)


def align_face(
    image: UInt8[np.ndarray, "H W 3"],
    landmarks: Float[np.ndarray, "68 2"],
    model: FaceModel,
    *,
    size: int = CROP_SIZE,
) -> tuple[UInt8[np.ndarray, "S S 3"], Alignment]:
    """Cuts the aligned crop of one face out of a photo.

    Args:
        image: the photo.
        landmarks: ibug-68 points of the face in photo pixels.
        model: gives the template: its mean shape at its own 68 landmarks.
        size: side of the crop in pixels.

    Raises:
        InputError: when the landmarks are degenerate.
    """
    alignment = fit_alignment(landmarks, alignment_template(model), photo_size=image.shape[:2], size=size)
    return alignment.crop_image(image), alignment


def scaled_alignment(alignment: Alignment, size: int) -> Alignment:
    """The same crop with `size` pixels a side."""
    factor = size / alignment.size
    return dataclasses.replace(
        alignment,
        scale=alignment.scale * factor,
        offset_x=alignment.offset_x * factor,
        offset_y=alignment.offset_y * factor,
        size=size,
    )
