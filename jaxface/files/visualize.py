"""Pictures for people: overlays, part maps, landmarks, clay renders, and sheets that show them side by side.

Numpy and Pillow only. A picture is uint8 RGB [H, W, 3], row 0 on top; points are (x, y) in pixels, y down.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image, ImageDraw, ImageFont

from jaxface.core.parts import BACKGROUND
from jaxface.core.units import CROP_SIZE
from jaxface.files.atomic import atomic_write

Picture = UInt8[np.ndarray, "H W 3"]

CLASS_COLORS = np.array(
    [
        [0, 0, 0],  # background: never painted
        [52, 140, 235],  # left eye
        [64, 196, 232],  # right eye
        [150, 96, 214],  # left brow
        [214, 104, 196],  # right brow
        [250, 176, 56],  # nose
        [232, 74, 84],  # upper lip
        [250, 128, 114],  # lower lip
        [112, 190, 120],  # skin
        [196, 206, 196],  # forehead and, in label maps, inner mouth
        [120, 20, 60],  # inner mouth
        [92, 64, 40],  # hair
        [20, 40, 120],  # glasses
        [150, 150, 40],  # beard
        [160, 120, 100],  # other skin
        [110, 110, 120],  # other
    ],
    np.uint8,
)
"""Colour of each of `parts.CLASSES` [16, 3]: left and right apart, so that a mirrored face is seen at once."""

PART_COLORS = CLASS_COLORS[:10]
"""Those of a label map's labels."""

INK, PAPER, DOT = (40, 44, 52), (255, 255, 255), (255, 236, 64)
"""Colours of lines and text, of the background, and of landmarks."""

_GAP = 6


# Clay is lit by a key light from the upper left and a weak one from the right; directions in posed model space.
_LIGHTS = ((0.85, (-0.45, 0.55, 0.70)), (0.25, (0.80, 0.10, 0.60)))

_CLAY, _AMBIENT = np.array([226, 221, 214]), 0.12


def to_picture(colors: np.ndarray) -> Picture:
    """Colours in [0, 1], clipped, as a uint8 picture; uint8 comes back as it is."""
    colors = np.asarray(colors)
    if colors.dtype == np.uint8:
        return colors
    return np.round(np.clip(np.nan_to_num(colors), 0.0, 1.0) * 255).astype(np.uint8)


def overlay(
    image: np.ndarray, rendered: Float[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], *, opacity: float = 1.0
) -> Picture:
    """Lays a render over a photo.

    Args:
        image: [H, W, 3] photo, uint8, or float in [0, 1].
        rendered: colours in [0, 1], or uint8.
        mask: where the render shows something; fractions in [0, 1] blend.
        opacity: of the render, 0 to 1.
    """
    alpha = opacity * np.asarray(mask, np.float32)[..., None]
    below, above = (to_picture(picture).astype(np.float32) for picture in (image, rendered))
    return np.round(below * (1 - alpha) + above * alpha).astype(np.uint8)


def draw_labels(image: np.ndarray, labels: Integer[np.ndarray, "H W"], *, opacity: float = 0.45) -> Picture:
    """Tints a photo with the colours of its parts, each part with a thin contour.

    Args:
        image: [H, W, 3] photo, uint8, or float in [0, 1].
        labels: label map, or classes, of `jaxface.core.parts`.
        opacity: of the tint; contours are opaque.
    """
    labels = np.asarray(labels)
    colors = CLASS_COLORS[labels]
    tinted = overlay(image, colors, labels != BACKGROUND, opacity=opacity)
    tinted[_contours(labels)] = colors[_contours(labels)]
    return tinted


def _contours(labels: np.ndarray) -> np.ndarray:
    """Pixels of a part beside the background or a part of larger label: lines one pixel thin, on the small part."""
    padded = np.pad(labels, 1, mode="edge")
    neighbors = (padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1])
    at_edge = np.zeros(labels.shape, bool)
    for neighbor in neighbors:
        at_edge |= (neighbor != labels) & ((neighbor == BACKGROUND) | (neighbor > labels))
    return at_edge & (labels != BACKGROUND)


def draw_landmarks(
    image: np.ndarray,
    points: Float[np.ndarray, "N 2"],
    *,
    radius: float = 1.5,
    color: tuple[int, int, int] = DOT,
) -> Picture:
    """Draws smooth round dots with a dark rim; points that are not finite or outside the picture are left out.

    Args:
        image: [H, W, 3] photo, uint8, or float in [0, 1].
        points: (x, y) in pixels, y down.
        radius: of the dots, in pixels.
        color: of the dots, RGB.
    """
    picture = to_picture(image).astype(np.float32)
    height, width = picture.shape[:2]
    reach = radius + 2.0
    for x, y in np.asarray(points, np.float32):
        if not (-reach < x < width + reach and -reach < y < height + reach):  # false for NaN as well
            continue
        rows = slice(max(int(y - reach), 0), max(int(y + reach) + 1, 0))
        columns = slice(max(int(x - reach), 0), max(int(x + reach) + 1, 0))
        patch = picture[rows, columns]
        row, column = np.mgrid[: patch.shape[0], : patch.shape[1]]
        distance = np.hypot(column + columns.start + 0.5 - x, row + rows.start + 0.5 - y)
        for size, ink, strength in ((radius + 0.75, INK, 0.6), (radius, color, 1.0)):
            covered = strength * np.clip(size + 0.5 - distance, 0.0, 1.0)[..., None]  # share of the pixel, about
            patch[:] = patch * (1 - covered) + np.array(ink, np.float32) * covered
    return np.round(picture).astype(np.uint8)


def clay(
    normals: Float[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    *,
    background: np.ndarray | tuple[int, int, int] = PAPER,
) -> Picture:
    """The shape alone: grey clay under two lamps (Lambert's law).

    Args:
        normals: per pixel, in posed model space (x right, y up, z towards the viewer), of any length.
        mask: where there is surface.
        background: a colour, or a picture to put the clay on.
    """
    normals = np.asarray(normals, np.float32)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-8)
    shading = np.full(normals.shape[:2], _AMBIENT, np.float32)
    for strength, direction in _LIGHTS:
        towards = np.array(direction, np.float32) / np.linalg.norm(direction)
        shading += strength * np.clip(normals @ towards, 0.0, None)
    surface = np.clip(shading, 0.0, 1.0)[..., None] * _CLAY / 255
    below = np.broadcast_to(to_picture(np.asarray(background, np.uint8)), normals.shape)
    return overlay(below, surface, mask)


def grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    *,
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
    cell: int | None = None,
) -> Picture:
    """Joins pictures to one sheet on white paper.

    Args:
        rows: pictures (uint8, or float in [0, 1]) per row; None leaves a cell empty.
        titles: above the columns.
        captions: below the rows.
        cell: side in pixels of the square that each picture is fitted into; by default that of the largest picture.

    Raises:
        ValueError: when there is no picture.
    """
    pictures = [[None if picture is None else to_picture(picture) for picture in row] for row in rows]
    sides = [max(picture.shape[:2]) for row in pictures for picture in row if picture is not None]
    if not sides:
        raise ValueError("a grid needs at least one picture")
    cell = cell or max(sides)
    letters = max(11, cell // 14)
    font = ImageFont.load_default(size=letters)
    line = int(letters * 1.6)
    columns = max(len(row) for row in pictures)
    row_height = cell + _GAP + (line if captions else 0)
    top = line if titles else 0
    sheet = Image.new("RGB", (columns * (cell + _GAP) + _GAP, top + len(pictures) * row_height + _GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        middle = _GAP + column * (cell + _GAP) + cell / 2
        draw.text((middle, _GAP / 2 + line / 2), _fitted(title, font, cell), INK, font, anchor="mm")
    for index, row in enumerate(pictures):
        y = top + _GAP + index * row_height
        for column, picture in enumerate(row):
            if picture is not None:
                tile = _fitted_picture(picture, cell)
                x = _GAP + column * (cell + _GAP) + (cell - tile.width) // 2
                sheet.paste(tile, (x, y + (cell - tile.height) // 2))
        if index < len(captions):
            caption = _fitted(captions[index], font, sheet.width - 2 * _GAP)
            draw.text((_GAP, y + cell + line / 2), caption, INK, font, anchor="lm")
    return np.asarray(sheet)


def _fitted_picture(picture: np.ndarray, cell: int) -> Image.Image:
    image = Image.fromarray(picture)
    scale = cell / max(image.size)
    if scale == 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip() + "…"
        if text == "…":
            return ""
    return text


def preview_sheet(
    images: UInt8[np.ndarray, "N H W 3"],
    drawn: Mapping[str, np.ndarray],
    target_labels: UInt8[np.ndarray, "N H W"],
    *,
    captions: Sequence[str] = (),
    cell: int | None = None,
) -> Picture:
    """One row per face: photo, render laid over it, clay, parts of the reconstruction, parts of the target.

    Args:
        images: the photos.
        drawn: the reconstructions as `training.evaluation.draw_faces` gives them: colors [N, H, W, 3], normals
            [N, H, W, 3], labels [N, H, W] and landmarks [N, 68, 2].
        target_labels: label maps of the photos.
        captions: below the rows.
        cell: side of one picture in pixels; by default 160, or that of the photos if they are larger.
    """
    rows = []
    for index, image in enumerate(images):
        colors, normals, labels, landmarks = (
            np.asarray(drawn[name][index]) for name in ("colors", "normals", "labels", "landmarks")
        )
        seen = labels != BACKGROUND
        rows.append(
            [
                image,
                draw_landmarks(overlay(image, colors, seen), landmarks, radius=image.shape[0] / CROP_SIZE),
                clay(normals, seen),
                draw_labels(image, labels),
                draw_labels(image, target_labels[index]),
            ]
        )
    titles = ("photo", "reconstruction", "shape", "its parts", "target parts")
    return grid(rows, titles=titles, captions=captions, cell=cell or max(160, images.shape[1]))


def save_png(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Writes a picture (uint8, or float in [0, 1]) as PNG; the file appears only when it is complete.

    Raises:
        InputError: when it cannot be written.
    """
    with atomic_write(path) as partial:
        Image.fromarray(to_picture(picture)).save(partial, format="PNG")
