"""Face parsers: which part of the face each pixel of an aligned crop shows.

A parser is a function that labels the crop of one face. Four can be had: jaxface's own network ("jaxface"), outlines
drawn from MediaPipe's points ("mediapipe"), the DML-CSR network with a user's own weights ("dml_csr"), and label maps
that lie on disk already.
"""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from jaxface.core import parts
from jaxface.core.errors import InputError, needs_extra
from jaxface.files.images import decode_mask
from jaxface.photos import face_mesh
from jaxface.photos.alignment import Alignment, fit_alignment, scaled_alignment
from jaxface.photos.detection import DetectedFace
from jaxface.photos.turning import template_of, turned_crop, turned_picture, upright_turn

PARSERS = ("jaxface", "mediapipe", "dml_csr")
"""The face parsers that can be named, the usual one first."""

FIT_PARSER = "mediapipe"
"""What guides fits unless told otherwise: measured on scans, the network's parts do not lead nearer to people yet
(docs/figures.md)."""

_NEIGHBOURS = np.ones((3, 3), bool)  # pixels that touch at a corner hang together


class Parser(Protocol):
    """Labels one face of a photo."""

    def __call__(
        self,
        photo: UInt8[np.ndarray, "H W 3"],
        face: DetectedFace | None,
        alignment: Alignment,
        *,
        path: str | os.PathLike | None = None,
    ) -> UInt8[np.ndarray, "S S"]:
        """The parts of one face in our labels (`core.parts`), the forehead cut; all background if it shows none.

        Args:
            photo: the whole photo, RGB.
            face: the face to label, in photo pixels. With None (which "mediapipe" cannot do without), all that lies in
                the crop is taken for one face.
            alignment: the crop to label: S = `alignment.size`. `whole_picture` makes one for pictures that are crops
                themselves.
            path: the photo's file; label maps on disk are found by its name.

        Raises:
            InputError: when the face cannot be labelled.
        """


def create_parser(
    name: str = PARSERS[0],
    *,
    weights: str | os.PathLike | None = None,
    labels: str | None = None,
    label_folder: str | os.PathLike | None = None,
) -> Parser:
    """The parser that the options of a command line ask for.

    Args:
        name: one of `PARSERS`.
        weights: the file of the weights of "dml_csr".
        labels: the order of the label maps in `label_folder`, a key of `parts.PARSER_LABELS`.
        label_folder: where the label maps lie: they take the place of a parser.

    Raises:
        InputError: when the options do not go together or a file or folder cannot be used.
    """
    if (labels is None) != (label_folder is None):
        raise InputError("--labels SCHEME and --label-folder DIR belong together; give both or neither")
    if weights is not None and name != "dml_csr":
        raise InputError("--parser-weights are those of dml_csr; add --parser dml_csr or leave them out")
    if label_folder is not None and labels is not None:
        if name == "dml_csr":
            raise InputError(f"--parser {name} and --labels exclude each other: label maps on disk need no parser")
        return LabelFolder(label_folder, labels)
    if name == "jaxface":
        return jaxface_labels
    if name == "mediapipe":
        return mediapipe_labels
    if name != "dml_csr":
        raise InputError(f"unknown parser {name!r}; there are {', '.join(PARSERS)}")
    if weights is None:
        raise InputError("--parser dml_csr needs --parser-weights FILE, the network's PyTorch checkpoint")
    return DmlCsrParser(weights)


def whole_picture(size: int) -> Alignment:
    """The alignment of a square picture of that many pixels that is taken as it is."""
    return Alignment(1.0, 0.0, 0.0, size, (size, size))


def jaxface_labels(
    photo: UInt8[np.ndarray, "H W 3"],
    face: DetectedFace | None,
    alignment: Alignment,
    *,
    path: str | os.PathLike | None = None,
) -> UInt8[np.ndarray, "S S"]:
    """The parser "jaxface": the network that comes along; hair, hands, glasses and what else hides is background."""
    with needs_extra("photo", "the parser jaxface"):
        from jaxface.networks.parser import load_parser  # loads Flax, which the other parsers can do without

    parser, own, turn = load_parser(), alignment, 0
    if face is not None:  # crops of other face models are cut out differently
        template = template_of(parser.face_model)
        own = fit_alignment(face.landmarks68, template, photo_size=photo.shape[:2], size=alignment.size)
        turn = upright_turn(face.landmarks68, template)
    crop = turned_crop(photo, scaled_alignment(own, parser.image_size), turn)
    classes = turned_picture(parser(crop[None], size=own.size).classes[0], -turn, nearest=True)
    labels = parts.CLASS_LABELS[classes]
    labels = _moved(labels, own, alignment) * _photo_mask(photo, alignment)
    return clean_labels(labels, face, alignment)


def _moved(labels: UInt8[np.ndarray, "S S"], source: Alignment, target: Alignment) -> UInt8[np.ndarray, "T T"]:
    """The labels of one crop in the pixels of another; background where the first does not reach."""
    middles = np.arange(target.size) + 0.5
    places = source.to_crop(target.to_photo(np.stack([middles, middles], axis=-1)))
    places = np.floor(places + 1e-6).astype(int)  # of one and the same crop, pixels are themselves
    there = (places >= 0) & (places < source.size)
    columns, rows = np.clip(places, 0, source.size - 1).T
    inside = there[:, 1, None] & there[None, :, 0]
    return np.where(inside, labels[rows[:, None], columns[None]], np.uint8(parts.BACKGROUND))


def mediapipe_labels(
    photo: UInt8[np.ndarray, "H W 3"],
    face: DetectedFace | None,
    alignment: Alignment,
    *,
    path: str | os.PathLike | None = None,
) -> UInt8[np.ndarray, "S S"]:
    """The parser "mediapipe": outlines of the parts from the detector's points; what hides the face is not known.

    Faces that its mesh does not see, profiles, are labelled by the parser "jaxface".
    """
    if face is None:
        raise InputError("the parser mediapipe draws the points of a detected face, but no face was detected")
    if face.landmarks478 is None:
        return jaxface_labels(photo, face, alignment, path=path)
    # Drawn from the points rather than resampled, so that outlines are exact at every size.
    labels = face_mesh.label_map(alignment.to_crop(face.landmarks478), alignment.size, alignment.size)
    return labels * _photo_mask(photo, alignment)


class DmlCsrParser:
    """The parser "dml_csr": the network of Zheng et al. (2022) on the aligned crop, tidied up.

    The crop is cut out of the photo anew at the network's own 473 x 473 pixels.

    Args:
        weights: its PyTorch checkpoint, with CelebAMask-HQ's 19 labels or LaPa's 11.

    Raises:
        InputError: when the file cannot be used.
    """

    def __init__(self, weights: str | os.PathLike):
        with needs_extra("photo", "the parser dml_csr"):
            from jaxface.networks import face_parsing  # loads Flax, which the other parsers can do without

        self._predict = face_parsing.label_predictor(*face_parsing.read_dml_csr(weights))
        self._crop_size = face_parsing.IMAGE_SIZE

    def __call__(
        self,
        photo: UInt8[np.ndarray, "H W 3"],
        face: DetectedFace | None,
        alignment: Alignment,
        *,
        path: str | os.PathLike | None = None,
    ) -> UInt8[np.ndarray, "S S"]:
        """See `Parser`."""
        labels = self._predict(scaled_alignment(alignment, self._crop_size).crop_image(photo)[None])[0]
        nearest = ((np.arange(alignment.size) + 0.5) * self._crop_size / alignment.size).astype(int)
        labels = labels[nearest[:, None], nearest] * _photo_mask(photo, alignment)
        return clean_labels(labels, face, alignment)


class LabelFolder:
    """Label maps on disk instead of a parser: for photo NAME.jpg the file NAME.png, of the photo's size.

    Args:
        folder: where the label maps lie.
        order: what their values mean, a key of `parts.PARSER_LABELS`: "celebamask", "lapa", "bisenet" or "jaxface".

    Raises:
        InputError: when there is no such folder or order.
    """

    def __init__(self, folder: str | os.PathLike, order: str):
        self.folder, self.order = Path(folder), order
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder; --label-folder names the folder of the label maps")
        if order not in parts.PARSER_LABELS:
            raise InputError(f"unknown order of labels {order!r}; there are {', '.join(parts.PARSER_LABELS)}")

    def __call__(
        self,
        photo: UInt8[np.ndarray, "H W 3"],
        face: DetectedFace | None,
        alignment: Alignment,
        *,
        path: str | os.PathLike | None = None,
    ) -> UInt8[np.ndarray, "S S"]:
        """See `Parser`."""
        if path is None:
            raise InputError(f"{self.folder}: label maps are found by the photo's name, but it has none")
        labels = read_label_map(self.folder / f"{Path(path).stem}.png", self.order, photo.shape[:2])
        return clean_labels(alignment.crop_labels(labels), face, alignment)


def read_label_map(path: str | os.PathLike, order: str, size: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
    """Reads a photo's label map and translates it into our labels.

    Args:
        path: an 8-bit picture of one channel (grayscale or palette).
        order: what its values mean, a key of `parts.PARSER_LABELS`.
        size: (height, width) of the photo in pixels, upright.

    Raises:
        InputError: names the file when it is missing, damaged or coloured, of another size, or holds unknown values.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such label map; it should bear the photo's name and end in .png")
    labels, table = decode_mask(path), parts.PARSER_LABELS[order]
    if labels.shape != tuple(size):
        (height, width), (photo_height, photo_width) = labels.shape, size
        raise InputError(
            f"{path}: is {width} x {height} pixels, but the photo is {photo_width} x {photo_height}; a label map lies "
            "over the whole photo, pixel on pixel"
        )
    if (unknown := labels >= len(table)).any():
        row, column = np.argwhere(unknown)[0]
        raise InputError(
            f"{path}: holds the value {labels[row, column]} (row {row}, column {column}), but the largest label of "
            f"{order} is {len(table) - 1}; is it another parser's map?"
        )
    return table[labels]


def clean_labels(
    labels: UInt8[np.ndarray, "S S"], face: DetectedFace | None, alignment: Alignment
) -> UInt8[np.ndarray, "S S"]:
    """What a parser's raw labels of a crop still need: other faces out, small islands out, the forehead cut."""
    if face is not None:
        outline = alignment.to_crop(face.outline)
        labels = keep_touching(labels, face_mesh.fill_polygon(outline, *labels.shape))
    return parts.cut_forehead(remove_islands(labels))


def keep_touching(labels: UInt8[np.ndarray, "H W"], region: np.ndarray) -> UInt8[np.ndarray, "H W"]:
    """Makes background of every connected piece of a label that lies outside `region` [H, W]: other people's faces."""
    result = np.zeros_like(labels)
    for label in np.unique(labels[labels != parts.BACKGROUND]):
        pieces, count = ndimage.label(labels == label, structure=_NEIGHBOURS)
        touching = np.isin(np.arange(count + 1), np.unique(pieces[region]))
        touching[0] = False
        result[touching[pieces]] = label
    return result


def remove_islands(labels: UInt8[np.ndarray, "H W"], *, min_share: float = 0.1) -> UInt8[np.ndarray, "H W"]:
    """Relabels the small pieces of each part like the nearest pixel around them: a parser's noise.

    Args:
        labels: part labels (`jaxface.core.parts`).
        min_share: pieces with fewer pixels than this share of the part's largest piece go; pixels that touch at a
            corner belong to one piece. Background, forehead and the inside of the mouth stay as they are.
    """
    removed = np.zeros(labels.shape, bool)
    for label in parts.LABELS.values():
        pieces, _ = ndimage.label(labels == label, structure=_NEIGHBOURS)
        sizes = np.bincount(pieces.ravel())
        small = sizes < min_share * sizes[1:].max(initial=0)
        small[0] = False  # the rest of the picture
        removed |= small[pieces]
    if not removed.any():
        return labels
    rows, columns = ndimage.distance_transform_edt(removed, return_distances=False, return_indices=True)
    return labels[rows, columns]


def _photo_mask(photo: UInt8[np.ndarray, "H W 3"], alignment: Alignment) -> UInt8[np.ndarray, "S S"]:
    """1 where the crop shows the photo, 0 beyond its edges."""
    return alignment.crop_labels(np.ones(photo.shape[:2], np.uint8))
