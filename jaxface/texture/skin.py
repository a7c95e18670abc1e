"""Which pixels of a crop show bare skin of the face, well enough to take its colour: no hair, hat, hand or glasses.

The parser that comes with jaxface says so at a quarter of a crop's resolution and misses thin things. Edges of the
picture say where exactly a hat ends (a guided filter, He, Sun and Tang 2013), the colour of this face's own sure skin
which strands and frames the parser missed.
"""

import dataclasses

import numpy as np
import scipy.ndimage
import scipy.spatial
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from jaxface.core.parts import BACKGROUND, CLASSES
from jaxface.photos.turning import turned_picture
from jaxface.photos.upright_look import upright_look

SIZE = 256
"""Side in pixels at which a crop is looked at; a face of usual size is 130 wide in it."""

AGREEMENT = 0.5
"""Share of what the parser calls face that the fitted face must cover: else one of them errs, and it is not asked."""

UNLIKE_SKIN = 3.0
"""Standard deviations from the colour of the skin around at which a suspected pixel is none."""

REACH = 14
"""Pixels (of SIZE) from hair, hat or hand within which what is unlike skin and joined to them is theirs."""

MARGIN = 3
"""Pixels (of SIZE) that are left out around what is not skin: lenses mix colours across edges."""

SUSPICION = 100
"""Pixels (of SIZE) of glasses, each as probable as the parser says, from which frames are looked for."""

CRUMB = 0.03
"""Share of the largest piece of skin below which another is not taken."""

_FACE, _EYES, _BROWS, _COVERS = (
    [CLASSES.index(name) for name in names.split()]
    for names in (
        "left_eye right_eye left_brow right_brow nose upper_lip lower_lip skin forehead inner_mouth beard",
        "left_eye right_eye",
        "left_brow right_brow",
        "hair glasses other",
    )
)
_PLAIN = [CLASSES.index(name) for name in ("nose", "skin", "forehead")]
_GLASSES = CLASSES.index("glasses")


def class_shares(
    image: UInt8[np.ndarray, "S S 3"], landmarks: Float[np.ndarray, "68 2"] | None = None
) -> Float[np.ndarray, "s s C"] | None:
    """How probable the parser that comes with jaxface finds each of `parts.CLASSES`, or None where Flax is missing.

    Args:
        image: an aligned crop of any size.
        landmarks: of the face, in pixels of the crop: heads that lie are turned upright before they are looked at.
    """
    try:
        answer, turn = upright_look(image, landmarks)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("jaxface"):
            raise
        return None
    logits = np.asarray(answer.logits[0], np.float32)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares = turned_picture(shares / shares.sum(-1, keepdims=True), -turn).clip(0, 1)
    missing = 1 - shares.sum(-1, keepdims=True)  # where the turned picture did not reach
    return np.concatenate([shares[..., :1] + missing.clip(0), shares[..., 1:]], axis=-1)


def open_mouth(picture: UInt8[np.ndarray, "P P 3"], shares: Float[np.ndarray, "s s C"]) -> Float[np.ndarray, "R R"]:
    """How far each pixel of a crop shows the inside of a mouth, 0..1, SIZE pixels a side; arguments as for others."""
    pixels = _resized(picture)
    inside = _guided(_enlarged(shares[..., CLASSES.index("inner_mouth") :][..., :1])[..., 0], pixels, radius=3)
    return np.clip((inside - 0.3) / 0.3, 0, 1)


def bare_skin(
    picture: UInt8[np.ndarray, "P P 3"],
    shares: Float[np.ndarray, "s s C"],
    drawn: UInt8[np.ndarray, "P P"],
    *,
    keep_glasses: bool = False,
) -> Float[np.ndarray, "R R"] | None:
    """How far each pixel of a crop shows the bare face (skin, eyes, brows, lips, mouth, beard), 0..1.

    Args:
        picture: the crop.
        shares: the parser's probabilities of `parts.CLASSES` in it.
        drawn: parts of the fitted face; BACKGROUND where it is not.
        keep_glasses: calls glasses part of the face.

    Returns:
        The mask, softly edged, SIZE pixels a side; None where the parser sees no face where the fit has one.
    """
    look = _Look.of(picture, shares, drawn)
    seen = look.face > 0.5
    if not seen.any() or (seen & look.fitted).sum() < AGREEMENT * max(seen.sum(), 0.2 * look.fitted.sum()):
        return None
    color = _guided(look.face + (look.shares[..., _GLASSES] if keep_glasses else 0), look.pixels)
    bare = np.clip((color - 0.6) / 0.3, 0, 1)
    odd = look.oddness()
    # What lies over the face, or beside it, may reach farther than the parser saw: in strands, and an ear's edge.
    covers = [index for index in _COVERS if not (keep_glasses and index == _GLASSES)]
    cover = look.shares[..., covers].sum(-1) > 0.4
    beyond = cover | (color < 0.4)
    beyond |= look.backdrop(beyond)
    strange = (odd > UNLIKE_SKIN) & ~look.features() & (_distance(~beyond) < REACH)
    hidden = scipy.ndimage.binary_propagation(beyond, mask=beyond | strange)
    eyes = np.zeros(hidden.shape, np.float32)
    if not keep_glasses:
        glasses, eyes = look.glasses(odd)
        eyes = eyes * ~hidden
        hidden |= glasses
    # Without crumbs between strands.
    shown = scipy.ndimage.binary_opening(~hidden, iterations=2)
    piece, count = scipy.ndimage.label(shown)
    sizes = scipy.ndimage.sum_labels(shown & look.fitted, piece, np.arange(1, count + 1))
    # Whose skin a hand's is, colours do not tell; nor at the fit's own outline, whether it is the ear's or the neck's.
    hands = _distance(look.shares[..., CLASSES.index("other")] < 0.4)
    bare = bare * np.clip((np.minimum(hands, _distance(look.fitted)) - MARGIN) / (2 * MARGIN), 0, 1)
    away = _distance(np.isin(piece, 1 + np.flatnonzero(sizes > CRUMB * max(sizes, default=0))))
    return np.maximum(bare * np.clip((away - MARGIN + 1) / 3, 0, 1), eyes).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class _Look:
    """A crop, SIZE pixels a side: its colours in [0, 1], the parser's shares, those of the face, the fit's parts."""

    pixels: Float[np.ndarray, "R R 3"]
    shares: Float[np.ndarray, "R R C"]
    face: Float[np.ndarray, "R R"]
    labels: UInt8[np.ndarray, "R R"]

    @classmethod
    def of(cls, picture: np.ndarray, shares: np.ndarray, drawn: np.ndarray) -> "_Look":
        pixels, larger = _resized(picture), _enlarged(shares)
        labels = np.asarray(Image.fromarray(drawn).resize((SIZE, SIZE), Image.Resampling.NEAREST))
        return cls(pixels, larger, larger[..., _FACE].sum(-1), labels)

    @property
    def fitted(self) -> Bool[np.ndarray, "R R"]:
        return self.labels != BACKGROUND

    def features(self) -> Bool[np.ndarray, "R R"]:
        """Eyes, brows, lips and the mouth: unlike skin by nature."""
        plain = self.shares[..., _PLAIN].sum(-1)
        return (self.face > 0.5) & (plain < 0.5 * self.face)

    def oddness(self) -> Float[np.ndarray, "R R"]:
        """How many standard deviations a pixel's colour is from that of the skin around it, at least in one way."""
        log = np.log(self.pixels + 0.03)
        # Brightness, red against green, yellow against blue: skin varies much more in the first.
        ways = np.stack([log.mean(-1), log[..., 0] - log[..., 1], (log[..., 0] + log[..., 1]) / 2 - log[..., 2]], -1)
        sure = (self.shares[..., _PLAIN].sum(-1) > 0.9) & (_distance(self.shares[..., _COVERS].sum(-1) < 0.3) > 4)
        sure = sure.astype(np.float32)
        if sure.sum() < 50:
            return np.zeros(sure.shape, np.float32)
        around = ways
        for _ in range(2):  # without what was odd at the first look
            weight = _blurred(sure, 12) + 0.02 * sure.sum() / sure.size
            whole = (ways * sure[..., None]).sum((0, 1)) / sure.sum()
            mean = [_blurred(sure * ways[..., i], 12) + 0.02 * sure.sum() / sure.size * whole[i] for i in range(3)]
            around = np.stack(mean, -1) / weight[..., None]
            rest = np.abs(ways - around)
            spread = np.maximum(1.48 * np.median(rest[sure > 0], axis=0), [0.05, 0.02, 0.03])
            odd = np.sqrt(np.square(rest / spread[None, None]).mean(-1) * 1.5)
            sure = sure * (odd < UNLIKE_SKIN)
        return odd

    def backdrop(self, beyond: Bool[np.ndarray, "R R"]) -> Bool[np.ndarray, "R R"]:
        """Rims of the face that have the colours of what stands behind it: the parser's outline errs by pixels."""
        log = np.log(self.pixels + 0.03)
        behind = (beyond & (self.shares[..., CLASSES.index("background")] > 0.5)).astype(np.float32)
        inside = (self.face > 0.9).astype(np.float32) * (_distance(~beyond) > 4)
        away = []
        for known in (behind, inside):
            weight = _blurred(known, REACH / 2)
            mean = np.stack([_blurred(known * log[..., i], REACH / 2) for i in range(3)], axis=-1)
            away.append(
                np.where(weight > 0.01, np.abs(log - mean / np.maximum(weight, 1e-3)[..., None]).max(-1), np.inf)
            )
        hairy = self.shares[..., _EYES + _BROWS].sum(-1) > 0.3
        return (away[0] < 0.5 * away[1]) & ~hairy & (_distance(~beyond) < REACH)

    def glasses(self, odd: Float[np.ndarray, "R R"]) -> tuple[Bool[np.ndarray, "R R"], Float[np.ndarray, "R R"]]:
        """Glasses, if the parser suspects any, lenses included; and how well the eyes are seen through them, 0..1."""
        glasses = self.shares[..., _GLASSES]
        around = self.shares[..., _EYES + _BROWS].sum(-1) > 0.5
        near = _distance(~around) < 2.5 * REACH
        if (glasses * near).sum() < SUSPICION:
            return np.zeros(glasses.shape, bool), np.zeros(glasses.shape, np.float32)
        away = [_distance(self.shares[..., eye] < 0.3) for eye in _EYES]
        open_to = near & (np.minimum(*away) >= 2)
        seeds = (glasses > 0.15) & open_to
        frames = scipy.ndimage.binary_propagation(seeds, mask=seeds | (open_to & (odd > UNLIKE_SKIN - 1)))
        seen = np.zeros(glasses.shape, np.float32)
        for eye in away:  # glass that shines or is dark all around an eye shows no eye
            ring = (eye >= 2) & (eye < 6)
            if frames[ring].sum() <= 0.85 * ring.sum():
                seen = np.maximum(seen, np.clip((8 - eye) / 4, 0, 1))
        clear = np.clip(_distance(~frames) / 3, 0, 1)
        # Lenses shine, and bend what lies behind them: all between the frames goes, but for the eyes.
        hull = _distance(~_hull((glasses > 0.06) & near)) < 1.5 * MARGIN
        return frames | hull, np.where(np.minimum(*away) < 2, seen, seen * clear)


def _resized(picture: np.ndarray) -> Float[np.ndarray, "R R 3"]:
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255


def _enlarged(shares: np.ndarray) -> Float[np.ndarray, "R R C"]:
    layers = (Image.fromarray(np.ascontiguousarray(layer, np.float32)) for layer in np.moveaxis(shares, -1, 0))
    return np.stack([np.asarray(layer.resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for layer in layers], axis=-1)


def _guided(values: np.ndarray, guide: np.ndarray, radius: int = 6, tolerance: float = 1e-3) -> np.ndarray:
    """Values that follow the edges of a colour picture: a local linear function of its colours (He et al., eq. 19)."""
    side = 2 * radius + 1

    def mean(image):
        return scipy.ndimage.uniform_filter(image, (side, side) + (0,) * (image.ndim - 2), mode="nearest")

    center, level = mean(guide), mean(values)
    products = mean(guide[..., :, None] * guide[..., None, :]) - center[..., :, None] * center[..., None, :]
    together = mean(guide * values[..., None]) - center * level[..., None]
    slope = np.linalg.solve(products + tolerance * np.eye(3, dtype=np.float32), together[..., None])[..., 0]
    offset = level - (slope * center).sum(-1)
    return np.clip((mean(slope) * guide).sum(-1) + mean(offset), 0, 1)


def _hull(chosen: np.ndarray) -> np.ndarray:
    """The smallest convex region around pixels."""
    places = np.argwhere(chosen)
    if len(places) < 3 or (np.ptp(places, axis=0) < 2).any():
        return chosen
    planes = scipy.spatial.ConvexHull(places, qhull_options="QJ").equations
    inside = np.zeros_like(chosen)
    (top, left), (bottom, right) = places.min(0), places.max(0) + 1
    inside[top:bottom, left:right] = True
    row, column = np.ogrid[top:bottom, left:right]
    for down, along, offset in planes:
        outside = down * row + along * column + offset > 1e-6
        inside[top:bottom, left:right] &= ~outside
    return inside


def _distance(inside: np.ndarray) -> np.ndarray:
    """Of pixels from the nearest that is not inside."""
    if inside.all():
        return np.full(inside.shape, float(max(inside.shape)), np.float32)
    return scipy.ndimage.distance_transform_edt(inside).astype(np.float32)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return scipy.ndimage.gaussian_filter(image, sigma, mode="constant", truncate=3)
