"""Finds the parts and landmarks of a face model from parsed pictures of it.

python -m jaxface.annotate MODEL --out parts.npz
"""

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8

from jaxface import visualize
from jaxface.annotation import (
    Ballot,
    clean_islands,
    edit_kind,
    elect,
    fill_holes,
    merge_edits,
    mesh_graph,
    mesh_rim,
    mirror_partners,
    part_overlap,
    parts_of_labels,
)
from jaxface.annotation_files import picture_name, read_edits, read_views, write_annotation, write_pictures
from jaxface.annotation_landmarks import LandmarkCosts, choose_landmarks, contour_lines
from jaxface.coefficients import Coefficients, vector_size
from jaxface.command_line import atomic_write, progress, run
from jaxface.data.detection import DetectedFace, detect_faces
from jaxface.data.parsing import PARSERS, LabelFolder, Parser, create_parser, whole_picture
from jaxface.errors import InputError, MissingDependencyError
from jaxface.face_model import FaceModel
from jaxface.formats import load_with_names
from jaxface.formats.native import write_face_model
from jaxface.parts import PARSER_LABELS, PARTS
from jaxface.random_views import BLOCK, Views, draw_all_views, draw_views, mesh_box, random_views, view_camera
from jaxface.render import label_triangles

SIZE = 384
"""Side of the pictures in pixels."""
VIEWS = 160
"""Pictures by default."""

_YAWS = (0.0, -0.7, 0.7)  # of the result's picture, in radians
_ROOM = 0.15  # around the face, of its size
_FRONTAL = math.radians(15)  # yaw up to which the detector's landmarks are asked for: beyond, those of the jaw wander


@dataclasses.dataclass(frozen=True)
class Annotation:
    """What was found on a mesh.

    Attributes:
        parts: vertex indices per part of `parts.PARTS`; parts that were not found are missing.
        landmarks: vertex indices per scheme: "68", if the detector could be asked.
        contours: lines of vertices per scheme, as in `FaceModel.contours`.
        agreement: part -> mean share of the votes that its vertices gave it, in [0, 1].
        parsed: number of pictures that were parsed.
        detected: number of pictures, frontal ones, in which the detector found landmarks.
    """

    parts: dict[str, Integer[np.ndarray, "N"]]
    landmarks: dict[str, Integer[np.ndarray, "L"]]
    contours: dict[str, Integer[np.ndarray, "C N"]]
    agreement: dict[str, float]
    parsed: int
    detected: int


def annotate_model(
    model: FaceModel,
    vectors: Float[np.ndarray, "N K"],
    box: Float[np.ndarray, "2 3"],
    parser: Parser,
    *,
    size: int = SIZE,
) -> Annotation:
    """Draws a model, has every picture parsed, and lets the vertices vote (3DDFA-V3, eq. 3).

    Args:
        model: the face model; its own parts and landmarks are not looked at.
        vectors: coefficients of the pictures, from `random_views.random_views`.
        box: what the pictures show, from `face_box`.
        parser: of `jaxface.data.parsing`. It is asked about whole pictures, named as `picture_name` says.
        size: side of the pictures in pixels.

    Raises:
        InputError: when no picture could be parsed, or a label map cannot be used.
    """
    ballot, costs, parsed = Ballot.empty(model), LandmarkCosts.empty(len(model.mean_shape)), 0
    pictures = draw_all_views(model, vectors, view_camera(box, size=size))
    frontal = np.abs(np.asarray(Coefficients.from_vector(vectors, model).angles)[:, 1]) <= _FRONTAL
    for index in progress(range(len(vectors)), description="annotate", unit="picture"):
        picture = next(pictures)
        image, face = np.asarray(picture.image), _detect(picture)
        labels = _parse(parser, image, face, picture_name(index))
        if labels is not None and labels.any():
            ballot.add(np.asarray(picture.triangle), np.asarray(picture.barycentric), labels)
            parsed += 1
        if face is not None and frontal[index]:
            costs.add(np.asarray(picture.points), np.asarray(picture.visible), face.landmarks68)
    if not parsed:
        raise InputError(
            f"none of the {len(vectors)} pictures of {model.name or 'the model'} could be parsed; write them with "
            "--render-only DIR and look whether they show a face"
        )
    return _conclude(model, ballot, costs)


def face_box(model: FaceModel, *, size: int = SIZE) -> Float[np.ndarray, "2 3"]:
    """Lowest and highest coordinates, in model units, of the face alone: many a mesh has ears, skull and neck as well.

    The detector looks for the face in a picture of the whole mesh; without it, or if it finds none, it is all the mesh.
    """
    whole = mesh_box(model)
    picture = next(draw_all_views(model, random_views(model, 1, seed=0), view_camera(whole, size=size)))
    face = _detect(picture)
    if face is None:
        return whole
    margin = _ROOM * face.size
    low, high = face.landmarks478.min(0) - margin, face.landmarks478.max(0) + margin
    inside = np.asarray(picture.visible) & ((picture.points > low[None]) & (picture.points < high[None])).all(-1)
    points = np.asarray(model.mean_shape)[inside]
    return np.stack([points.min(0), points.max(0)])


def _detect(picture: Views) -> DetectedFace | None:
    try:
        faces = detect_faces(np.asarray(picture.image))
    except MissingDependencyError:
        return None
    return faces[0] if faces else None


def _parse(
    parser: Parser, image: UInt8[np.ndarray, "S S 3"], face: DetectedFace | None, name: str
) -> UInt8[np.ndarray, "S S"] | None:
    if isinstance(parser, LabelFolder):
        if not (parser.folder / name).exists():
            return None  # outside parsers fail on some pictures
        face = None  # the one face of the picture, however little the detector makes of it
    elif face is None:
        return None
    return parser(image, face, whole_picture(len(image)), path=name)


def _conclude(model: FaceModel, ballot: Ballot, costs: LandmarkCosts) -> Annotation:
    mirror, graph = mirror_partners(model), mesh_graph(model)
    elected, share = elect(ballot, mirror)
    parts = parts_of_labels(fill_holes(clean_islands(elected, graph), graph, mesh_rim(model)))
    landmarks, contours = {}, {}
    if costs.pictures:
        landmarks["68"] = choose_landmarks(costs, model, mirror, parts)
        if "skin" in parts:
            contours["68"] = contour_lines(model, landmarks["68"], parts["skin"])
    agreement = {part: float(share[vertices].mean()) for part, vertices in parts.items()}
    return Annotation(parts, landmarks, contours, agreement, ballot.pictures, costs.pictures)


def annotated_model(
    model: FaceModel,
    parts: Mapping[str, Integer[np.ndarray, "N"]],
    landmarks: Mapping[str, Integer[np.ndarray, "L"]],
    contours: Mapping[str, Integer[np.ndarray, "C N"]],
) -> FaceModel:
    """A copy of `model` with these parts, and with the landmarks and contours of those schemes that it lacks."""
    return dataclasses.replace(
        model,
        parts=dict(parts),
        landmarks={**landmarks, **model.landmarks},
        contours={**({} if "68" in model.landmarks else contours), **model.contours},
    )


def annotation_picture(
    model: FaceModel, box: Float[np.ndarray, "2 3"], *, size: int = SIZE
) -> UInt8[np.ndarray, "H W 3"]:
    """The mean face with its parts in colours and its landmarks, from the front and from both sides."""
    labels = label_triangles(model.parts, model.triangles)
    views = _turned(model, box, _YAWS, size=size)
    cells = []
    for image, triangle, points, visible in views:
        label = np.where(triangle >= 0, labels[triangle], 0).astype(np.uint8)
        cell = visualize.draw_labels(image, label, opacity=0.6)
        if "68" in model.landmarks:
            marks = np.asarray(model.landmarks["68"])
            cell = visualize.draw_landmarks(cell, points[marks[visible[marks]]], radius=size / 224)
        cells.append(cell)
    front, *sides = cells
    return visualize.grid([[sides[0], front, sides[1]]])


def _turned(
    model: FaceModel, box: Float[np.ndarray, "2 3"], yaws: Sequence[float], *, size: int
) -> list[tuple[np.ndarray, ...]]:
    """Image, triangles, points and visible vertices of the mean face, turned; drawn by the program of the views."""
    middle = box.mean(0)
    vectors = np.zeros((BLOCK, vector_size(model)), np.float32)
    for index, yaw in enumerate(yaws):
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        vectors[index, -33:-30], vectors[index, -3:] = (0, yaw, 0), turn @ middle
    views = draw_views(model, vectors, view_camera(box, size=size))
    fields = [np.asarray(field) for field in (views.image, views.triangle, views.points, views.visible)]
    return [tuple(field[index] for field in fields) for index in range(len(yaws))]


def _report(model: FaceModel, annotation: Annotation, parts: Mapping[str, Any], settings: Mapping[str, Any]) -> dict:
    """What is written beside the annotation as JSON: sizes, agreement, overlap with the parts that the model has."""
    overlap = part_overlap(parts, model.parts, model)
    report: dict[str, Any] = {
        **settings,
        "pictures_parsed": annotation.parsed,
        "pictures_with_landmarks": annotation.detected,
        "parts": {
            part: {"vertices": len(parts[part]), "agreement": round(annotation.agreement.get(part, 1.0), 4)}
            for part in PARTS
            if part in parts
        },
        "missing_parts": [part for part in PARTS if part not in parts],
        "iou_with_the_models_own_parts": {
            part: {kind: round(value, 4) for kind, value in values.items()} for part, values in overlap.items()
        },
    }
    if "68" in annotation.landmarks and "68" in model.landmarks:
        points = np.asarray(model.mean_shape)
        offset = points[annotation.landmarks["68"]] - points[np.asarray(model.landmarks["68"])]
        distance = 100 * np.linalg.norm(offset, axis=-1)  # a model unit is 100 mm
        report["mm_from_the_models_own_landmarks"] = {
            "mean": round(float(distance.mean()), 3),
            "median": round(float(np.median(distance)), 3),
            "outline": round(float(distance[:17].mean()), 3),
        }
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.annotate",
        description="Finds the eight parts and 68 landmarks of a face model: draws random faces of it, has a face "
        "parser label the pictures, and lets every vertex vote. Writes vertex indices (OUT), a picture of them (OUT "
        "with .png) and figures (OUT with .json). Look at the picture, mend by hand with --edit.",
        epilog="example: python -m jaxface.annotate FaceXModel/ --out parts.npz   "
        "-- with a parser of your own: (1) --render-only pictures/  (2) label pictures/view_*.png into labels/ under "
        "the same names  (3) --renders pictures/ --label-folder labels/ --labels bisenet --out parts.npz. "
        "Exit code 0: done; 2: nothing could be done.",
    )
    parser.add_argument("model", metavar="MODEL", help="face model: a name or a file")
    parser.add_argument("--out", type=Path, help="file for the annotation, .npz")
    parser.add_argument("--views", type=_count, default=VIEWS, help=f"number of pictures (default: {VIEWS})")
    parser.add_argument("--seed", type=int, default=0, help="of the random faces (default: 0)")
    parser.add_argument("--parser", choices=PARSERS, default="mediapipe", help="face parser (default: mediapipe)")
    parser.add_argument("--parser-weights", metavar="FILE", help="PyTorch checkpoint of the parser dml_csr")
    parser.add_argument("--render-only", type=Path, metavar="DIR", help="write the pictures for another parser; stop")
    parser.add_argument("--renders", type=Path, metavar="DIR", help="the folder that --render-only wrote")
    parser.add_argument("--label-folder", metavar="DIR", help="label maps of those pictures, under the same names")
    parser.add_argument("--labels", choices=tuple(PARSER_LABELS), help="what the values of those label maps mean")
    parser.add_argument("--edit", type=Path, metavar="EDITS.npz", help="edits by hand that are merged in")
    parser.add_argument(
        "--save-model", type=Path, metavar="FILE.npz", help="write the face model with its annotation as well"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 9999:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 9999")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.out is None) == (options.render_only is None):
        parser.error("give either --out FILE.npz or --render-only DIR")
    if (options.renders is None) != (options.label_folder is None):
        parser.error("--renders DIR and --label-folder DIR belong together")
    for path in (options.out, options.save_model):
        if path is not None and path.suffix != ".npz":
            raise InputError(f"{path}: the result is an .npz file; let its name end so")
    model, names = load_with_names(options.model)
    if options.render_only is not None:
        box = face_box(model, size=SIZE)
        vectors = random_views(model, options.views, seed=options.seed, box=box, expression_names=names)
        write_pictures(options.render_only, model, vectors, box, size=SIZE)
        print(f"{len(vectors)} pictures in {options.render_only}")
        return 0
    edits = read_edits(options.edit, model) if options.edit else {}
    label_parser = create_parser(
        options.parser, weights=options.parser_weights, labels=options.labels, label_folder=options.label_folder
    )
    start = time.perf_counter()
    if options.renders is not None:
        vectors, box = read_views(options.renders, model)
    else:
        detect_faces(np.zeros((64, 64, 3), np.uint8))  # says at once if MediaPipe is missing
        box = face_box(model, size=SIZE)
        vectors = random_views(model, options.views, seed=options.seed, box=box, expression_names=names)
    annotation = annotate_model(model, vectors, box, label_parser, size=SIZE)
    settings = {
        "model": model.name,
        "parser": options.labels or options.parser,
        "views": len(vectors),
        "seed": options.seed,
        "seconds": round(time.perf_counter() - start, 1),
    }
    parts, landmarks, contours = merged(annotation, edits)
    report = _report(model, annotation, parts, settings)
    bare = dataclasses.replace(model, landmarks={}, contours={})
    result = annotated_model(bare, parts, landmarks, contours)
    visualize.save_png(options.out.with_suffix(".png"), annotation_picture(result, box, size=SIZE))
    with atomic_write(options.out.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n")
    if options.save_model is not None:
        completed = annotated_model(model, parts, landmarks, contours)
        write_face_model(completed, options.save_model, expression_names=names)
    write_annotation(options.out, parts, landmarks, contours)
    _print_report(report)
    print(f"look at {options.out.with_suffix('.png')}")
    return 0


def merged(
    annotation: Annotation, edits: Mapping[str, Integer[np.ndarray, "..."]]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parts, landmarks and contours after edits by hand (see `annotation_files.read_edits`)."""
    parts = merge_edits(annotation.parts, {name: edits[name] for name in edits if edit_kind(name)})
    groups = []
    for prefix, found in (("landmarks/", annotation.landmarks), ("contours/", annotation.contours)):
        by_hand = {name.removeprefix(prefix): edits[name] for name in edits if name.startswith(prefix)}
        groups.append(found | by_hand)
    return parts, groups[0], groups[1]


def _print_report(report: Mapping[str, Any]) -> None:
    for part, values in report["parts"].items():
        overlap = report["iou_with_the_models_own_parts"].get(part)
        known = f", IoU with the model's own {overlap['area']:.3f} of the area" if overlap else ""
        print(f"{part:11} {values['vertices']:6} vertices, {values['agreement']:.0%} of the votes{known}")
    if report["missing_parts"]:
        print(f"not found: {', '.join(report['missing_parts'])}; add them by hand (--edit)")


if __name__ == "__main__":
    run(main)
