"""One picture for all that is worn: cut to what is used, shrunk, laid in shelves, with a border against bleeding."""

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt
from wearables import Piece

SIZE, BORDER = 2048, 8
SIDES = {"hair": (408, 512), "hat": (256, 256), "clothes": (256, 256), "brows": (256, 112), "lashes": (256, 112)}
"""Width and height of a piece's place by its slot, border included; 32 x 32 for the rest."""
GREY = ("hair", "brows", "lashes")
"""Slots whose pictures hold light and dark alone, 0.5 on average: their colour is drawn."""


def make_atlas(pieces: list[Piece]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The atlas [SIZE, SIZE, 4] uint8, and each piece's texture coordinates [N, 2] in it, v up."""
    atlas = np.zeros((SIZE, SIZE, 4), np.uint8)
    coordinates: list[np.ndarray] = [np.zeros((0, 2))] * len(pieces)
    order = sorted(range(len(pieces)), key=lambda i: (-_sides(pieces[i])[1], -_sides(pieces[i])[0]))
    x = y = shelf = 0
    done: dict[tuple[int, ...], np.ndarray] = {}
    for i in order:
        piece, (width, height) = pieces[i], _sides(pieces[i])
        picture = prepared(piece)
        low, high = piece.uv.min(0), np.maximum(piece.uv.max(0), piece.uv.min(0) + 1e-3)
        key = (hash(picture.tobytes()), *np.round(np.concatenate([low, high]) * 4096).astype(int).tolist())
        if key not in done:
            if x + width > SIZE:
                x, y = 0, y + shelf
            if x == 0:
                shelf = height  # the highest of its shelf, since they come in this order
            if y + height > SIZE:
                raise SystemExit("the atlas is full")
            inner = _cut(picture, low, high, width - 2 * BORDER, height - 2 * BORDER)
            atlas[y : y + height, x : x + width] = np.pad(inner, [(BORDER, BORDER)] * 2 + [(0, 0)], mode="edge")
            done[key] = np.array([x, y])
            x += width
        inside = (piece.uv - low) / (high - low) * (np.array([width, height]) - 2 * BORDER)
        left, top = done[key]
        coordinates[i] = (
            np.stack([left + BORDER + inside[:, 0], SIZE - (top + height - BORDER - inside[:, 1])], -1) / SIZE
        )
    return atlas, coordinates


def _sides(piece: Piece) -> tuple[int, int]:
    return SIDES.get(piece.slot, (32, 32))


def prepared(piece: Piece) -> np.ndarray:
    """A piece's picture [H, W, 4] uint8: grey with the mean 0.5 where only light and dark count, and where nothing is
    seen the colour of the nearest that is."""
    picture = piece.picture.astype(float)
    seen = picture[..., 3] > 96
    if piece.slot in GREY:
        light = picture[..., :3] @ np.array([0.299, 0.587, 0.114])
        level = max(light[seen].mean(), 1.0)
        # Black hair has little contrast of its own: at most three times as much is made of it.
        contrast = min(127.5 / level, 3.0)
        picture[..., :3] = np.clip(127.5 + (light - level) * contrast, 20, 255)[..., None]
    nearest = distance_transform_edt(~seen, return_distances=False, return_indices=True)
    picture[..., :3] = picture[nearest[0], nearest[1], :3]
    return np.round(picture).astype(np.uint8)


def _cut(picture: np.ndarray, low: np.ndarray, high: np.ndarray, width: int, height: int) -> np.ndarray:
    """The part of a picture between two texture coordinates, v up, in another size."""
    rows, columns = picture.shape[:2]
    box = (low[0] * columns, (1 - high[1]) * rows, high[0] * columns, (1 - low[1]) * rows)
    bands = [Image.fromarray(np.ascontiguousarray(picture[..., i])) for i in range(4)]
    small = [band.resize((width, height), Image.Resampling.BILINEAR, box=box) for band in bands]
    return np.stack([np.asarray(band) for band in small], -1)
