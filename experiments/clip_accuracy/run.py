"""How well a clip's blinks, gaze and smile are followed: drawn people whose every frame is known.

    python experiments/clip_accuracy/run.py [--people 6,8] [--out results.json]

A person with skin, hair and glasses that no network saw turns the head, blinks within three frames, closes the
lids slowly, looks from side to side and up and down, smiles and opens the mouth: 72 frames, 25 per second, 512 pixels.
Lids: height between upper and lower lid in the head, in that person's own when open; gaze: degrees between where the
eyes look and where they were drawn to look; corners of the mouth: how far their way from the frames at rest is off.
"""

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxface
from jaxface.clips.frames import Clip
from jaxface.clips.track import track_face
from jaxface.clips.tracking import cut_samples, follow_face, smooth_windows
from jaxface.core import face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import vector_columns
from jaxface.core.units import MM_PER_UNIT
from jaxface.files import command_line
from jaxface.files.progress import progress
from jaxface.render import label_triangles
from jaxface.results.person import load_for_person
from jaxface.synthetic.eyeballs import TURNS, gaze_tables
from jaxface.synthetic.held_out import split_people
from jaxface.synthetic.people import find_people
from jaxface.synthetic.people_pictures import draw_people
from jaxface.synthetic.random_faces import random_coefficients

FRAMES, RATE, SIDE = 72, 25, 512
REST = slice(0, 8)
QUICK, SLOW = 9, slice(21, 24)
"""Frames in which the lids are closed: the middle of a blink of three frames, and of nine."""

ASIDE, SMILE = slice(30, 60), slice(60, 72)


def acted(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Expression [F, Ke] and angles [F, 3] of the frames."""
    expression = np.zeros((FRAMES, len(names)), np.float32)

    def act(stem: str, start: int, values) -> None:
        for unit in [index for index, name in enumerate(names) if name.startswith(stem)]:
            expression[start : start + len(values), unit] = values

    act("eyeBlink", 8, [0.6, 1, 0.6])
    act("eyeBlink", 18, [0.25, 0.5, 0.75, 1, 1, 1, 0.75, 0.5, 0.25])
    gaze = np.zeros((FRAMES, 2))
    gaze[30:50, 0] = 22 * np.sin(2 * np.pi * np.arange(20) / 20)
    gaze[50:60, 1] = 15 * np.sin(2 * np.pi * np.arange(10) / 10)
    for unit, name in enumerate(names):
        if match := re.fullmatch(r"eyeLook(In|Out|Up|Down)(Left|Right)", name):
            upright = match[1] in ("Up", "Down")
            sign = 1 if (match[1] == "Down" if upright else (match[1] == "Out") == (match[2] == "Left")) else -1
            expression[:, unit] = np.clip(sign * gaze[:, int(upright)] / TURNS[int(upright)], 0, 1)
    smile = np.sin(np.pi * np.arange(12) / 11)
    act("mouthSmile", 60, 0.85 * smile)
    act("jawOpen", 60, 0.35 * smile)
    act("cheekSquint", 60, 0.3 * smile)
    turn = 2 * np.pi * np.arange(FRAMES)
    return expression, np.radians(np.stack([5 * np.sin(turn / 50), 12 * np.sin(turn / 60), 3 * np.cos(turn / 70)], -1))


def draw_clip(model, person: int) -> tuple[np.ndarray, np.ndarray]:
    """The frames [F, S, S, 3] and their coefficients [F, K]."""
    heads = jax.tree.map(jnp.asarray, split_people(find_people(model), held_out=True))
    labels, draw = jnp.asarray(label_triangles(model.parts, model.triangles)), jax.jit(draw_people)
    face = random_coefficients(jax.random.key(person)[None], model, heads).replace(translation=jnp.zeros((1, 3)))
    camera = Camera(1.2 * 1.15 * Camera().focal, (SIDE / 2, SIDE / 2), 12.0, (SIDE, SIDE))
    expression, angles = (jnp.asarray(array, jnp.float32) for array in acted(model.expression_labels))
    images, vectors = [], []
    for frame in progress(range(FRAMES), description="draw", unit="frame"):
        acting = face.replace(expression=expression[frame][None], angles=angles[frame][None])
        drawn = draw(jax.random.key(person + 1000)[None], model, heads, labels, acting, camera)
        images.append(np.asarray(drawn["image"][0]))
        vectors.append(np.asarray(drawn["coefficients"][0]))
    return np.stack(images), np.stack(vectors)


def follow(images: np.ndarray):
    """The track of a clip, and seconds per frame of the fit."""
    model, prior, recognizer, evidence = load_for_person("anny", "off")
    clip = Clip(Path("drawn"), RATE, FRAMES, lambda: iter([(index / RATE, one) for index, one in enumerate(images)]))
    followed = follow_face(clip)
    windows = smooth_windows(followed, model)
    samples = cut_samples(clip, followed, windows, model)
    return track_face(model, samples, windows, prior, times=followed.times, recognizer=recognizer, evidence=evidence)


def measure(model, truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """How far coefficients [F, K] are from the true ones."""
    columns, small = vector_columns(model), face_models.shape_of_vertices(model, model.landmarks["68"])
    marks, gazes = [], []
    for vectors in (truth, found):
        identity, expression = (jnp.asarray(vectors[:, columns[name]]) for name in ("identity", "expression"))
        marks.append(MM_PER_UNIT * np.asarray(face_models.shape(small, identity, expression)))
        gazes.append(np.einsum("fk,ekc->fec", expression, gaze_tables(model.expression_labels)))
    heights = [(one[:, [37, 38, 43, 44], 1] - one[:, [41, 40, 47, 46], 1]).mean(1) for one in marks]
    openness = heights[1] / np.median(heights[1][REST])
    opened = np.r_[0:7, 12:17, 62:70]
    aside = np.linalg.norm(gazes[0] - gazes[1], axis=-1).mean(1)
    moved = [one[SMILE][:, [48, 54]] - one[REST][:, [48, 54]].mean(0) for one in marks]
    return {
        "quick blink": float(openness[QUICK]),
        "slow blink": float(openness[SLOW].mean()),
        "open, off by": float(np.quantile(np.abs(openness - heights[0] / np.median(heights[0][REST]))[opened], 0.9)),
        "open height, of the true": float(np.median(heights[1][REST] / heights[0][REST])),
        "gaze, degrees": float(np.delete(aside, np.r_[8:11, 18:27]).mean()),
        "gaze while it moves": float(aside[ASIDE].mean()),
        "corners in a smile, mm": float(np.linalg.norm(moved[0] - moved[1], axis=-1).mean()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--people", default="6,8", help="numbers of people to draw (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file for the measures, JSON")
    options = parser.parse_args(arguments)
    model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
    results = {}
    for person in options.people.split(","):
        images, truth = draw_clip(model, int(person))
        began = time.process_time()
        track = follow(images)
        results[person] = measure(model, truth, track.vectors) | {"processor, s": time.process_time() - began}
        print(person, {name: round(value, 3) for name, value in results[person].items()})
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    command_line.keep_compiled()
    command_line.run(main)
