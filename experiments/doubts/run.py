"""How often `results.doubts` warns of drawn people who are easy to fit, and of those who are not.

    python experiments/doubts/run.py [--people 50] [--out results.json]

Draws people with skins, hair and glasses that no network saw. Each is easy (the head within 43 degrees of yaw, 30 of
pitch and roll, at most a third of the face hidden), and is made hard in four ways: turned upside down, scaled to a face
of 24 to 40 pixels, with a grey box over half of the face, and drawn anew at 65 to 90 degrees of yaw. Where the detector
finds no face, as in most of the last two, it is cut out by the true landmarks and counts as found by the network.
Prints per kind how many were warned of, by the kind's own sentence and by any.
"""

import argparse
import collections
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxface
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import LAST_COLUMNS, vector_size
from jaxface.core.units import CROP_SIZE
from jaxface.files import command_line
from jaxface.files.progress import progress
from jaxface.fitting.estimate import DISTANCE_DEVIATION, distance_prior, estimate_faces
from jaxface.fitting.evidence import evidence_for, people_prior
from jaxface.fitting.first_look import onlooker_for
from jaxface.fitting.posterior import shape_covariance, spread_of
from jaxface.photos.alignment import align_face
from jaxface.photos.detection import detect_faces
from jaxface.photos.face_crops import face_sample
from jaxface.photos.face_mesh import POINTS
from jaxface.photos.samples import photo_sample, stack_samples
from jaxface.render import label_triangles
from jaxface.results.doubts import doubts_of, signs_of
from jaxface.results.drawing import Reconstruction
from jaxface.results.expected_error import error_measures, vertex_errors
from jaxface.synthetic.held_out import split_people
from jaxface.synthetic.people import find_people
from jaxface.synthetic.photographs import draw_photographs

SEED = 77_000_003
SENTENCE = {"upside down": "upside down", "small": "too small", "hidden": "hidden", "profile": "extreme profile"}
"""What should be said of each kind."""

WRONG = 0.1
"""Eye distances that the detector's landmarks are off by, the median, where it is wrong."""

Picture = tuple[str, np.ndarray, np.ndarray]
"""Kind, photo, true landmarks."""


def pictures(model, people: int) -> Iterator[Picture]:
    """All pictures of so many people."""
    draw, random = jax.jit(draw_photographs), np.random.default_rng(SEED)
    labels = jnp.asarray(label_triangles(model.parts, model.triangles))
    heads = jax.tree.map(jnp.asarray, split_people(find_people(model), held_out=True))
    for index in progress(range(people), description="draw and look", unit="person"):
        key = jax.random.key(SEED + index)[None]
        yaws = random.uniform(-43, 43), random.choice([-1, 1]) * random.uniform(65, 90)
        drawn = [draw(key, model, labels, heads, yaws=jnp.asarray(np.radians([yaw]), jnp.float32)) for yaw in yaws]
        (photo, marks, angles, hidden), (turned, turned_marks, *_) = (
            (np.asarray(one["image"][0]), np.asarray(one["landmarks"][0]), *_state(one)) for one in drawn
        )
        if np.abs(angles[[0, 2]]).max() > 30 or hidden > 1 / 3:
            continue
        yield "easy", photo, marks
        yield "upside down", np.ascontiguousarray(photo[::-1, ::-1]), len(photo) - marks
        scale = random.uniform(24, 40) / np.ptp(marks, axis=0).max()
        size = round(scale * len(photo))
        small = np.full_like(photo, 120)
        small[100 : 100 + size, 100 : 100 + size] = np.asarray(Image.fromarray(photo).resize((size, size)))
        yield "small", small, 100 + size / len(photo) * marks
        yield "hidden", _covered(photo, marks, side=index % 3), marks
        yield "profile", turned, turned_marks


def _state(drawn) -> tuple[np.ndarray, float]:
    hidden, seen = np.asarray(drawn["hidden"][0]), np.asarray(drawn["labels"][0]) > 0
    return np.degrees(np.asarray(drawn["coefficients"][0])[LAST_COLUMNS["angles"]]), hidden.sum() / (
        hidden | seen
    ).sum()


def _covered(photo: np.ndarray, marks: np.ndarray, *, side: int) -> np.ndarray:
    """A grey box over the lower half of the face, or over one side."""
    (left, top), (right, bottom) = np.clip(marks.min(0) - 40, 0, None).astype(int), (marks.max(0) + 40).astype(int)
    across, down = marks[30].astype(int)
    covered = photo.copy()
    boxes = [
        (slice(down, bottom), slice(left, right)),
        *((slice(top, bottom), s) for s in _halves(left, across, right)),
    ]
    covered[boxes[side]] = 128
    return covered


def _halves(left: int, middle: int, right: int) -> tuple[slice, slice]:
    return slice(left, middle), slice(middle, right)


def judge(model, kinds: Iterator[Picture]) -> Iterator[dict]:
    """What is said of each picture."""
    evidence, prior, camera = evidence_for(model, dense=True), people_prior(model), Camera().resized(CROP_SIZE)
    onlooker, held = onlooker_for(model), jnp.zeros(vector_size(model), bool)
    unknown = distance_prior(jnp.full(1, jnp.nan), camera, deviation=DISTANCE_DEVIATION)

    @jax.jit
    def estimate(look, points, known):
        return estimate_faces(
            evidence, look.vectors, points, known, camera, prior, held=held, log_stretch=unknown, look=look
        )

    for kind, photo, marks in kinds:
        faces, size = detect_faces(photo), vector_size(model)
        crop, alignment = align_face(photo, faces[0].landmarks68 if faces else marks, model)
        labels = np.ones(crop.shape[:2], np.uint8)
        if faces:
            sample = face_sample(crop, labels, faces[0], alignment, coefficients=size)
        else:
            sample = photo_sample(crop, labels, marks, alignment, coefficients=size)
            spread = np.resize(sample["landmarks"], (POINTS, 2))
            sample |= {"points": spread, "point_weights": np.zeros(POINTS, np.float32)}
        batch = stack_samples([sample])
        look = onlooker(batch["image"], batch["landmarks"])
        rows = evidence.rows
        found = estimate(look, jnp.asarray(batch["points"][:, rows]), jnp.asarray(batch["point_weights"][:, rows]))
        covariance = spread_of(found, evidence.spread)[:, None, None] ** 2 * shape_covariance(model, found, held)
        vector = np.asarray(found.vectors[0] if faces else look.vectors[0])
        one = Reconstruction(vector, sample, alignment, "Face", covariance=np.asarray(covariance[0]) if faces else None)
        expected = error_measures(model, vertex_errors(model, one))["expected_error_mm"]
        off = np.median(np.linalg.norm(sample["landmarks"] - alignment.to_crop(marks), axis=-1)[17:]) / (
            0.4 * len(crop)
        )
        yield {
            "kind": kind,
            "found": bool(faces),
            "off": off,
            "doubts": doubts_of(signs_of(one, expected_error_mm=expected)),
        }


def summary(rows: Sequence[dict]) -> dict:
    """Counts by kind."""
    told: dict[str, dict] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        some = [row for row in rows if row["kind"] == kind]
        said = collections.Counter(doubt.partition(":")[0] for row in some for doubt in row["doubts"])
        own = said[SENTENCE[kind]] if kind in SENTENCE else 0
        found, warned = sum(row["found"] for row in some), sum(bool(row["doubts"]) for row in some)
        told[kind] = {"pictures": len(some), "found": found, "own": own, "any": warned, "said": dict(said)}
    wrong = [row for row in rows if row["found"] and row["off"] > WRONG and row["kind"] != "small"]
    disagree = sum(any(doubt.startswith("detectors") for doubt in row["doubts"]) for row in wrong)
    return {"kinds": told, "detector wrong": len(wrong), "of these told": disagree}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--people", type=int, default=50, help="to draw (default: 50, ten minutes)")
    parser.add_argument("--out", type=Path, help="file for the counts, JSON")
    options = parser.parse_args(arguments)
    model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
    rows = []
    for row in judge(model, pictures(model, options.people)):
        rows.append(row)
        if options.out:  # after each, so that a run that is stopped tells of what it saw
            options.out.write_text(json.dumps(summary(rows) | {"pictures": rows}, indent=1) + "\n")
    told = summary(rows)
    for kind, counts in told["kinds"].items():
        print(kind, counts)
    print(f"the detector was wrong in {told['detector wrong']}, told of {told['of these told']}")
    return 0


if __name__ == "__main__":
    command_line.keep_compiled()
    command_line.run(main)
