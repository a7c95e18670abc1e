"""The network that comes with jaxface on drawn people whose skins, hair, brows and glasses it never saw.

    python experiments/people_network/run.py [--network FILE_OR_RUN] [--count N] [--photographs N] [--out FOLDER]

Writes results.json and sheet.png (photo, classes and points of the first people), and prints the tables of the README.
The people are drawn at first: a minute for 1,000. --photographs compares landmarks with MediaPipe's on whole
photographs, at about two a second.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxface.core import metrics, parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import vector_columns
from jaxface.core.face_models import FaceModel
from jaxface.core.units import CROP_SIZE, to_float
from jaxface.files import atomic, command_line, progress, visualize
from jaxface.files.tables import aligned_table
from jaxface.models import load_face_model
from jaxface.networks.checkpoints import create_configured_encoder, load_encoder, read_encoder
from jaxface.networks.parser import covariance, load_parser
from jaxface.networks.people_answer import PeopleAnswer
from jaxface.networks.people_network import pixel_classes
from jaxface.networks.people_weights import SHIPPED
from jaxface.photos.alignment import scaled_alignment
from jaxface.photos.detection import detect_faces
from jaxface.photos.face_crops import make_crop
from jaxface.photos.parsing import mediapipe_labels
from jaxface.render import label_triangles
from jaxface.synthetic.held_out import split_people
from jaxface.synthetic.people import SKIN_TONES, load_people
from jaxface.synthetic.photographs import draw_photographs
from jaxface.synthetic.source import Painter, SyntheticSource
from jaxface.training.evaluation import measure_faces

HERE = Path(__file__).resolve().parent
SEED, BATCH, SHOWN = 1017, 50, 12
YAWS = ((0, 30), (30, 60), (60, 90))
HIDDEN = ((0.0, 0.1), (0.1, 0.4), (0.4, 1.01))
"""Shares of the surface's points that something else, or the face itself, hides."""


def answers(path: Path, images: np.ndarray) -> tuple[PeopleAnswer, FaceModel, dict]:
    """What a network says of pictures [N, S, S, 3]; classes [N, S, S] in place of their logits."""
    weights = read_encoder(path)
    model = load_face_model(weights.config["face_model"])
    network = create_configured_encoder(ConfigDict(weights.config), model)

    @jax.jit
    def apply(variables, images):
        answer = network.apply(variables, to_float(images), train=False)
        return answer._replace(logits=pixel_classes(answer.logits))

    pieces = [
        jax.tree.map(np.asarray, apply(weights.variables, images[start : start + BATCH]))
        for start in progress.progress(range(0, len(images), BATCH), description="looking", unit="batch")
    ]
    return jax.tree.map(lambda *some: np.concatenate(some), *pieces), model, weights.config


def measures_of(model: FaceModel, answer: PeopleAnswer, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every measure of every person, NaN where it means nothing."""
    size = batch["image"].shape[1]
    samples = [{name: values[i] for name, values in batch.items()} for i in range(len(batch["image"]))]
    camera = Camera().resized(size)
    of_encoder = measure_faces(model, answer.vector, samples, camera)
    mean_face = measure_faces(model, np.zeros_like(answer.vector), samples, camera)
    found = {f"encoder {name}": values for name, values in of_encoder.items()}
    found |= {f"mean face {name}": values for name, values in mean_face.items()}
    for index, name in enumerate(parts.CLASSES):
        here, there = answer.logits == index, batch["classes"] == index
        union = (here | there).sum((1, 2))
        found[f"parser {name}"] = (here & there).sum((1, 2)) / np.where(union > 0, union, np.nan)
    truth = np.concatenate([batch["landmarks"], batch["surface_points"]], 1)
    error = np.linalg.norm(size * answer.points.position - truth, axis=-1) * CROP_SIZE / size
    seen = np.concatenate([batch["landmark_visible"], batch["surface_visible"]], 1) > 0
    for kind, mask in (("seen", seen), ("hidden", ~seen)):
        found[f"points {kind}, px"] = np.nanmean(np.where(mask, error, np.nan), 1, where=mask | ~mask.any(1)[:, None])
    found["visibility known"] = ((answer.points.visibility > 0) == seen).mean(1)
    return found


def calibration(model: FaceModel, answer: PeopleAnswer, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Observed over predicted: 1 where a spread is true, more where errors are larger than the network says."""
    size = batch["image"].shape[1]
    truth = np.concatenate([batch["landmarks"], batch["surface_points"]], 1) / size
    error = truth - answer.points.position
    inverse = np.linalg.inv(np.asarray(covariance(jnp.asarray(answer.points.whitening))).astype(np.float64))
    squared = np.einsum("npi,npij,npj->np", error, inverse, error)
    seen = np.concatenate([batch["landmark_visible"], batch["surface_visible"]], 1) > 0
    result = {
        "points seen: share within the 68 % ellipse": float((squared[seen] < 2.279).mean()),
        "points seen: share within the 95 % ellipse": float((squared[seen] < 5.991).mean()),
        "points hidden: share within the 68 % ellipse": float((squared[~seen] < 2.279).mean()),
        "points hidden: share within the 95 % ellipse": float((squared[~seen] < 5.991).mean()),
    }
    columns = {name: np.arange(some.start, some.stop) for name, some in vector_columns(model).items()}
    columns["translation_xy"], columns["translation_z"] = np.split(columns.pop("translation"), [2])
    off = answer.vector - batch["coefficients"]
    for group, some in columns.items():
        z = off[:, some] / np.exp(answer.log_spread[:, some])
        result[f"{group}: rms error over predicted"] = float(np.sqrt(np.mean(z**2)))
    return result


def groups_of(model: FaceModel, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which people belong to each line of the table."""
    columns = vector_columns(model)
    yaw = np.abs(np.degrees(batch["coefficients"][:, columns["angles"]][:, 1]))
    tone = batch["coefficients"][:, columns["albedo"]][:, :3]
    nearest = np.linalg.norm(tone[:, None] - SKIN_TONES[None], axis=-1).argmin(1)
    hidden = 1 - batch["surface_visible"].mean(1)
    return (
        {"all": np.ones(len(yaw), bool)}
        | {f"yaw {low} to {high}": (yaw >= low) & (yaw < high) for low, high in YAWS}
        | {f"skin {name}": np.isin(nearest, some) for name, some in (("lighter", range(5)), ("darker", range(5, 10)))}
        | {
            f"hidden {100 * low:.0f} to {min(100, 100 * high):.0f} %": (hidden >= low) & (hidden < high)
            for low, high in HIDDEN
        }
    )


def people_table(measures: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray]) -> str:
    """Encoder, mean face and parser by group."""
    columns = {
        "encoder Part IoU": "encoder part_iou",
        "mean face": "mean face part_iou",
        "landmarks, px": "encoder landmark_error_px",
        "mean face, px": "mean face landmark_error_px",
        "vertices, mm": "encoder vertex_error_mm",
        "mean face, mm": "mean face vertex_error_mm",
        "points, px": "points seen, px",
        "parser, seven parts": "parser parts",
    }
    measures = dict(measures) | {
        "parser parts": np.nanmean(np.stack([measures[f"parser {part}"] for part in parts.SEVEN_PARTS]), 0)
    }
    rows = [["", "people", *columns]]
    for name, chosen in groups.items():
        values = [np.nanmean(measures[key][chosen]) if chosen.any() else np.nan for key in columns.values()]
        rows.append([name, str(int(chosen.sum())), *(f"{value:.3f}" for value in values)])
    return aligned_table(rows)


def beside_mediapipe(path: Path, model: FaceModel, count: int) -> dict[str, float]:
    """On photographs where MediaPipe finds the face: the 51 inner landmarks, its own, and the parser's on its crops.

    And what agreement with its outlines is worth: Part IoU of these and of the encoder's mesh with the true parts, and
    with each other.
    """
    people = split_people(load_people(model), held_out=True)
    labels, parser, predict = label_triangles(model.parts, model.triangles), load_parser(path), load_encoder(path)[0]
    draw = jax.jit(lambda keys, yaws, model, people: draw_photographs(keys, model, labels, people, yaws=yaws))
    yaws = np.radians(np.linspace(-60, 60, count)).astype(np.float32)
    lines = []
    for index in progress.progress(range(count), description="photographs", unit="photo"):
        keys = jax.vmap(jax.random.key)(9_000_000 + np.array([index]))
        sample = draw(keys, yaws[index : index + 1], model, people)
        image, truth = np.asarray(sample["image"])[0], np.asarray(sample["landmarks"])[0]
        faces = detect_faces(image)
        if not faces:
            continue
        eyes = np.linalg.norm(truth[36] - truth[45])
        crop = make_crop(image, faces[0], model, parser=mediapipe_labels)
        alignment = scaled_alignment(crop.alignment, parser.image_size)
        own_crop = alignment.crop_image(image)[None]
        own = alignment.to_photo(parser(own_crop).landmarks[0])
        errors = [np.linalg.norm(points - truth, axis=-1)[17:].mean() / eyes for points in (faces[0].landmarks68, own)]
        true = crop.alignment.crop_labels(np.asarray(sample["labels"])[0])
        samples = [crop.sample, {**crop.sample, "labels": true}]
        vectors = np.repeat(predict(own_crop), 2, axis=0)
        agreement = measure_faces(model, vectors, samples, Camera().resized(CROP_SIZE))["part_iou"]
        outlines = metrics.mean_part_iou(metrics.part_iou(crop.sample["labels"][None], true[None]))
        lines.append([abs(np.degrees(yaws[index])), *errors, float(outlines[0]), *agreement])
    table = np.array(lines)
    result = {"photographs": count, "found": len(table)}
    for low, high in ((0, 30), (30, 60)):
        chosen = (table[:, 0] >= low) & (table[:, 0] <= high)
        for name, column in (("MediaPipe", 1), ("parser", 2)):
            result[f"yaw {low} to {high}: {name}, median %"] = round(100 * float(np.median(table[chosen, column])), 2)
        pairs = ("MediaPipe's outlines, truth", "encoder, MediaPipe's outlines", "encoder, truth")
        for column, name in enumerate(pairs, start=3):
            result[f"yaw {low} to {high}: Part IoU, {name}, median"] = round(float(np.median(table[chosen, column])), 3)
    return result


def sheet(path: Path, answer: PeopleAnswer, batch: Mapping[str, np.ndarray]) -> None:
    """Photo with points, classes found and true classes of the first people."""
    cells = []
    for index in range(min(SHOWN, len(batch["image"]))):
        picture = batch["image"][index].copy()
        size = len(picture)
        for (x, y), odds in zip(size * answer.points.position[index], answer.points.visibility[index], strict=True):
            if 0 <= x < size and 0 <= y < size and odds > 0:
                picture[int(y), int(x)] = (60, 255, 60)
        maps = [visualize.CLASS_COLORS[some] for some in (answer.logits[index], batch["classes"][index])]
        cells.append(np.concatenate([picture, *maps], 1))
    rows = [np.concatenate(cells[start : start + 2], 1) for start in range(0, len(cells) - 1, 2)]
    visualize.save_png(path, np.repeat(np.repeat(np.concatenate(rows), 2, 0), 2, 1))


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, default=SHIPPED, help="file or training run (default: what ships)")
    parser.add_argument("--count", type=int, default=1000, help="people (default: 1000)")
    parser.add_argument("--photographs", type=int, default=0, help="beside MediaPipe (default: none)")
    parser.add_argument("--cache", type=Path, help="keeps the drawn people there")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the results (default: beside this program)")
    options = parser.parse_args()
    model = load_face_model("anny")
    painter = Painter.of(model, seed=SEED, dense=True, held_out=True)
    size = int(read_encoder(options.network).config["image_size"])
    source = SyntheticSource(painter, count=options.count, size=size, cache_dir=options.cache)
    batch = {name: np.stack([source[i][name] for i in range(len(source))]) for name in source[0]}
    answer, model, config = answers(options.network, batch["image"])
    measures, groups = measures_of(model, answer, batch), groups_of(model, batch)
    print(people_table(measures, groups))
    classes = {name: float(metrics.mean_over_known(measures[f"parser {name}"])) for name in parts.CLASSES}
    print(aligned_table([["class", "IoU"], *([name, f"{value:.3f}"] for name, value in classes.items())]))
    told = calibration(model, answer, batch)
    print(aligned_table([["calibration", ""], *([name, f"{value:.3f}"] for name, value in told.items())]))
    beside = beside_mediapipe(options.network, model, options.photographs) if options.photographs else {}
    if beside:
        print(aligned_table([["beside MediaPipe", ""], *([name, str(value)] for name, value in beside.items())]))
    options.out.mkdir(parents=True, exist_ok=True)
    sheet(options.out / "sheet.png", answer, batch)
    rows = {
        group: {name: round(float(np.nanmean(values[chosen])), 5) for name, values in measures.items()}
        for group, chosen in groups.items()
        if chosen.any()
    }
    content = {"config": config, "count": options.count, "groups": rows, "classes": classes, "calibration": told}
    with atomic.atomic_write(options.out / "results.json") as partial:
        partial.write_text(json.dumps(content | {"beside MediaPipe": beside}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    command_line.run(main)
