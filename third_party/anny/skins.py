"""Mean and directions of skin colour at any point of the base mesh's texture layout, from photographic skins.

A skin is taken apart into its tone (the face's mean colour) and the pattern left over. Tones get directions of their
own (skin_tones.py), since photographs are too few for the world's. Of the patterns the symmetric part is explained by
lightness, age and sex, in this order; what remains, and the antisymmetric part, go into principal directions.
Everything is a linear combination of the skins' pictures, so that face, ears and neck agree under one vector of
coefficients, wherever they are asked for.
"""

import dataclasses

import numpy as np
import skin_tones
from skin_tones import lightness

MIDDLE = 0.483121
"""v of the face's middle line in the layout: u runs from the crown to the neck, v from the right ear to the left."""

SYMMETRIC, ANTISYMMETRIC = 12, 8
AGES = {"young": -1.0, "middleage": 0.0, "old": 1.0}
SEXES = {"female": -1.0, "male": 1.0}

HAIRLINE = np.array(
    [[0.0, 0.770], [0.07, 0.776], [0.09, 0.797], [0.105, 0.822], [0.155, 0.822], [0.175, 0.90], [0.36, 0.905]]
)
"""Where the scalp's painted hair begins: distance from the middle line, and u below which it is hair."""


@dataclasses.dataclass(frozen=True)
class SkinBasis:
    """Linear skin colours over the texture layout.

    Attributes:
        skins: [S, H, W, 3] pictures; row 0 is v = 1.
        tones: [S, 3] mean colours of the faces.
        even: [S, 1 + K] how much of each skin's symmetric pattern goes into the mean and each direction.
        odd: [S, 1 + K] the same of the antisymmetric patterns.
        constant: [3, 1 + K] colour that is added everywhere.
        names: [K] of the directions.
    """

    skins: np.ndarray
    tones: np.ndarray
    even: np.ndarray
    odd: np.ndarray
    constant: np.ndarray
    names: tuple[str, ...]

    def at(self, uv: np.ndarray, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean [N, 3] and directions [N, 3, size] at texture coordinates [N, 2] of the base mesh, v up.

        Args:
            uv: [N, 2].
            size: number of the model's directions; those that are only painted on the face are zero here.
        """
        even, odd = patterns(self.skins, self.tones, uv)
        both = np.tensordot(even, self.even, (0, 0)) + np.tensordot(odd, self.odd, (0, 0)) + self.constant
        added = max((size or 0) - len(self.names), 0)
        return both[..., 0], np.pad(both[..., 1:], ((0, 0), (0, 0), (0, added)))


def skin_basis(
    photographs: dict[str, np.ndarray], face: np.ndarray, symmetric: int = SYMMETRIC, antisymmetric: int = ANTISYMMETRIC
) -> SkinBasis:
    """The basis that is best at points `face` [N, 2] of the layout: those of the face's skin, each weighs the same.

    Args:
        photographs: skins by name, such as "old_asian_male", [512, 512, 3] uint8.
        face: [N, 2], symmetric.
        symmetric, antisymmetric: number of principal directions, at most S - 4 and S of S skins.
    """
    names = list(photographs)
    skins = np.stack([photographs[name] for name in names]).astype(np.float32) / 255
    tones = sample(skins, face).mean(1)
    skins = shave(skins, tones)
    tone, tone_axes = np.array(skin_tones.MEAN), np.stack(list(skin_tones.DIRECTIONS.values()), -1)

    even, odd = patterns(skins, tones, face)
    lights = lightness(tones) - lightness(tone)
    known = np.stack([np.ones(len(names)), lights, *traits(names)], 1)
    shares = np.linalg.pinv(known)  # [4, S]: how much of each skin's pattern goes with what is known of it
    rest = np.eye(len(names)) - known @ shares
    even_axes = rest @ principal(np.tensordot(rest, even, 1), symmetric, len(names) - known.shape[1])
    odd_axes = principal(odd, antisymmetric, len(names))

    tone_patterns = np.outer(shares[1], lightness(tone_axes.T))
    trait_patterns = shares[2:].T * known[:, 2:].std(0)
    directions = np.concatenate([shares[:1].T, tone_patterns, trait_patterns, even_axes, 0 * odd_axes], 1)
    constant = np.zeros((3, directions.shape[1]))
    constant[:, 0], constant[:, 1:4] = tone, tone_axes
    return SkinBasis(
        skins=skins,
        tones=tones,
        even=directions,
        odd=np.pad(odd_axes, ((0, 0), (directions.shape[1] - antisymmetric, 0))),
        constant=constant,
        names=(*skin_tones.DIRECTIONS, "age", "sex")
        + tuple(f"symmetric {i + 1}" for i in range(symmetric))
        + tuple(f"antisymmetric {i + 1}" for i in range(antisymmetric)),
    )


def explained(photographs: dict[str, np.ndarray], face: np.ndarray) -> str:
    """What share of the skins' variance the basis has, seen at points `face` [N, 2]; and of those it was made without.

    Each skin stands beside its mirror image: the parts are orthogonal, so each is looked at once.
    """
    whole = skin_basis(photographs, face)
    both = (whole, *(skin_basis({n: s for n, s in photographs.items() if n != name}, face) for name in photographs))
    colors = sample(whole.skins, face)
    patterns = colors - whole.tones[:, None]
    lines = []
    for name, bases in (("all skins", both[:1] * len(colors)), ("each left out once", both[1:])):
        left = np.mean([np.sum(_rest(color, *basis.at(face)) ** 2) for color, basis in zip(colors, bases, strict=True)])
        total, pattern = (np.mean(np.sum((x - x.mean(0)) ** 2, (1, 2))) for x in (colors, patterns))
        lines.append(f"{name}: {1 - left / total:.3f} of the variance, {1 - left / pattern:.3f} without the tones")
    return "\n".join(lines)


def _rest(color: np.ndarray, mean: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """What a linear basis [N, 3, K] cannot say of colours [N, 3]."""
    flat, wanted = basis.reshape(-1, basis.shape[-1]), (color - mean).ravel()
    return wanted - flat @ np.linalg.lstsq(flat, wanted, rcond=None)[0]


def traits(names: list[str]) -> np.ndarray:
    """Age and sex [2, S] of skins, by their names, without their mean."""
    words = [name.split("_") for name in names]
    values = np.array([[AGES[word[0]] for word in words], [SEXES[word[2]] for word in words]])
    return values - values.mean(1, keepdims=True)


def principal(patterns: np.ndarray, count: int, freedom: int) -> np.ndarray:
    """Weights [S, count] of patterns [S, ...] that give their principal directions, one standard deviation each."""
    left, _, _ = np.linalg.svd(patterns.reshape(len(patterns), -1), full_matrices=False)
    return left[:, :count] / np.sqrt(freedom)


def patterns(skins: np.ndarray, tones: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is left of the skins without their tone, at points [N, 2]: symmetric and antisymmetric part [S, N, 3]."""
    here = sample(skins, uv) - tones[:, None]
    there = sample(skins, uv * [1, -1] + [0, 2 * MIDDLE]) - tones[:, None]
    return (here + there) / 2, (here - there) / 2


def shave(skins: np.ndarray, tones: np.ndarray) -> np.ndarray:
    """The skins with the hair of the scalp painted over by their tone."""
    height, width = skins.shape[1:3]
    u, v = (np.arange(width) + 0.5) / width, 1 - (np.arange(height) + 0.5) / height
    line = np.interp(np.abs(v - MIDDLE), *HAIRLINE.T)
    hair = np.clip((line[:, None] + 0.012 - u[None]) / 0.024, 0, 1)[..., None]
    return skins * (1 - hair) + tones[:, None, None] * hair


def sample(pictures: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear look-up [S, N, 3] in pictures [S, H, W, 3] at texture coordinates [N, 2], v up."""
    height, width = pictures.shape[1:3]
    columns = np.clip(uv[:, 0] * width - 0.5, 0, width - 1.001)
    rows = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1.001)
    left, top = columns.astype(int), rows.astype(int)
    x, y = (columns - left)[:, None], (rows - top)[:, None]
    above = pictures[:, top, left] * (1 - x) + pictures[:, top, left + 1] * x
    below = pictures[:, top + 1, left] * (1 - x) + pictures[:, top + 1, left + 1] * x
    return above * (1 - y) + below * y
