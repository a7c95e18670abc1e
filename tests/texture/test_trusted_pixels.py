"""Which pixels lend colours: the parser's bare skin where it sees the face, the label map's face elsewhere."""

import numpy as np

from jaxface.core.parts import CLASSES
from jaxface.photos.alignment import Alignment
from jaxface.texture.trusted_pixels import trusted_pixels

SIZE = 128
ROW, COLUMN = np.mgrid[:SIZE, :SIZE] + 0.5
FACE = np.hypot((COLUMN - 64) / 40, (ROW - 64) / 50) < 1
HAT = ROW < 40


def crop():
    """A face with a hat that its label map overlooks, and what a parser says of it."""
    picture = np.where(FACE[..., None], np.uint8([200, 150, 130]), np.uint8([60, 90, 120]))
    picture[HAT] = 20
    colors = np.full((SIZE, SIZE, 3), (200, 150, 130), np.float32) / 255
    names = np.where(HAT, CLASSES.index("other"), np.where(FACE, CLASSES.index("skin"), 0))
    shares = np.eye(len(CLASSES), dtype=np.float32)[names[::4, ::4]]
    return picture, FACE.astype(np.uint8), colors, Alignment(1.0, 0.0, 0.0, SIZE, (SIZE, SIZE)), shares


def test_the_parser_sees_the_hat():
    picture, labels, colors, alignment, shares = crop()
    bare, mouth = trusted_pixels(picture, labels, colors, alignment, shares=shares, drawn=labels)
    assert bare.shape == mouth.shape == (SIZE, SIZE)
    assert bare[HAT].max() < 0.05 and bare[70:90, 50:80].min() > 0.99 and bare[~FACE].max() < 0.05
    assert mouth.max() == 0


def test_without_the_parser_the_label_map_counts():
    picture, labels, colors, alignment, shares = crop()
    plain, mouth = trusted_pixels(picture, labels, colors, alignment)
    assert mouth is plain and plain[70:90, 50:80].min() > 0.99 and plain[(ROW > 30) & HAT & FACE].mean() > 0.5
    # A parser that sees no face there is wrong about this picture.
    nothing = np.zeros_like(shares)
    nothing[..., 0] = 1
    blind, _ = trusted_pixels(picture, labels, colors, alignment, shares=nothing, drawn=labels)
    np.testing.assert_array_equal(blind, plain)


def test_beyond_the_photo_there_is_nothing():
    picture, labels, colors, _, shares = crop()
    cut = Alignment(1.0, 60.0, 0.0, SIZE, (SIZE, SIZE))  # the photo begins at column 60 of the crop
    for told in (None, shares):
        bare, _ = trusted_pixels(picture, labels, colors, cut, shares=told, drawn=labels)
        assert bare[:, :60].max() == 0 and bare[70:90, 66:80].min() > 0.99


def test_teeth_are_no_lips():
    picture, labels, colors, alignment, shares = crop()
    picture[80:92, 50:78] = 250
    shares[20:23, 12:20] = np.eye(len(CLASSES))[CLASSES.index("inner_mouth")]
    bare, mouth = trusted_pixels(picture, labels, colors, alignment, shares=shares, drawn=labels)
    assert mouth[83:89, 54:74].min() > 0.9 and bare[83:89, 54:74].max() < 0.1
    assert mouth[:72].max() == 0 and (bare + mouth).max() <= 1 + 1e-6
