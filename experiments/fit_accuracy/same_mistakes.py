"""What share of a detector's errors is the same in two pictures of one person: `fitting.estimate.SAME_MISTAKES`.

    python experiments/fit_accuracy/same_mistakes.py [--people 600]

Draws each person twice, with another expression, pose, light and camera, and takes the errors of the points in units of
the shipped covariance. Prints the share that two pictures have in common, and what strangers have in common.
"""

import argparse
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

import jaxface
from jaxface.annotation.calibration import LOST, Detections, detection_errors
from jaxface.files import command_line, progress
from jaxface.fitting.evidence import dense_evidence, errors_at, shipped_calibration
from jaxface.photos.detection import detect_faces_in
from jaxface.render import label_triangles
from jaxface.synthetic.people import find_people
from jaxface.synthetic.photographs import draw_photographs

SEED, TOGETHER, LARGEST_YAW = 31, 8, 60.0
APART = ((0, 20), (20, 50), (50, 121))
"""Degrees of yaw between the two pictures."""


def draw_twice(model, people: int) -> tuple[Detections, np.ndarray]:
    """Pictures 2 k and 2 k + 1 show person k; and which of the pictures, of all that were drawn, show a face."""
    labels = jnp.asarray(label_triangles(model.parts, model.triangles))
    heads = jax.tree.map(jnp.asarray, find_people(model))
    draw, random = jax.jit(draw_photographs), np.random.default_rng(SEED)
    rows: list[list[np.ndarray]] = []
    seen = np.zeros(2 * people, bool)
    for start in progress.progress(range(0, 2 * people, TOGETHER), description="draw and detect", unit="block"):
        index = start + jnp.arange(TOGETHER)
        keys, person_keys = (jax.vmap(jax.random.key)(1_000_003 * SEED + k) for k in (index, 7_000_000 + index // 2))
        yaws = np.radians(random.uniform(-LARGEST_YAW, LARGEST_YAW, TOGETHER)).astype(np.float32)
        drawn = draw(keys, model, labels, heads, yaws=yaws, person_keys=person_keys)
        drawn = {name: np.asarray(values) for name, values in drawn.items()}
        for k, faces in enumerate(detect_faces_in(list(drawn["image"]))):
            if faces and faces[0].landmarks478 is not None and start + k < len(seen):
                seen[start + k] = True
                truth = [drawn[name][k] for name in ("coefficients", "focal", "center", "distance")]
                rows.append([faces[0].landmarks478, *truth])
    return Detections(*(np.stack(values) for values in zip(*rows, strict=True))), seen


def whitened(errors: np.ndarray, yaws: np.ndarray, evidence) -> np.ndarray:
    """Errors [N, 2 P] in units of their covariance: Sigma^-1/2 e, with Sigma = diag v + F F'."""
    at = jax.jit(lambda yaw: errors_at(evidence, yaw))
    rows = []
    for error, yaw in zip(errors, yaws, strict=True):
        variances, factors = (np.asarray(array, float) for array in at(np.float32(np.radians(yaw))))
        scaled = error / np.sqrt(variances)
        u, s, _ = np.linalg.svd(factors / np.sqrt(variances)[:, None], full_matrices=False)
        rows.append(scaled + u @ ((1 / np.sqrt(1 + s * s) - 1) * (u.T @ scaled)))
    return np.stack(rows)


def share(a: np.ndarray, b: np.ndarray) -> float:
    """Of the squared errors of pictures a and b, what is common to both."""
    return float(2 * (a * b).sum() / (np.square(a).sum() + np.square(b).sum()))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--people", type=int, default=600, help="to draw (default: 600, a quarter of an hour)")
    options = parser.parse_args(arguments)
    if options.people < 2:
        parser.error("--people: at least two have to be drawn")
    model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
    table = shipped_calibration()
    found, seen = draw_twice(model, options.people)
    corners, weights = np.zeros((478, 3), int), np.zeros((478, 3))
    corners[table.points], weights[table.points] = table.triangles, table.barycentric
    errors = detection_errors(model, found, corners, weights)[:, table.points]
    right = np.median(np.linalg.norm(errors, axis=-1), axis=1) < LOST
    white = np.full((len(seen), errors[0].size), np.nan)
    white[seen] = np.where(
        right[:, None], whitened(errors.reshape(len(errors), -1), found.yaws, dense_evidence(model, table)), np.nan
    )
    yaws = np.full(len(seen), np.nan)
    yaws[seen] = found.yaws
    both = np.isfinite(white[0::2, 0]) & np.isfinite(white[1::2, 0])
    first, second = white[0::2][both], white[1::2][both]
    apart = np.abs(yaws[0::2] - yaws[1::2])[both]
    print(f"{both.sum()} people seen twice: {share(first, second):.2f} of the squared errors is common")
    for low, high in APART:
        some = (apart >= low) & (apart < high)
        if some.any():
            print(f"{low} to {high} degrees apart: {share(first[some], second[some]):.2f}, {some.sum()} people")
    print(f"strangers: {share(first, np.roll(second, 1, axis=0)):.2f}")
    return 0


if __name__ == "__main__":
    command_line.keep_compiled()
    command_line.run(main)
