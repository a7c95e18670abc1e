"""Finds the parts and landmarks of a face model from parsed pictures of it.

python -m jaxface.annotate MODEL --out parts.npz
"""

import dataclasses
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8

from jaxface.annotation.files import picture_name, read_edits, read_views, write_annotation, write_pictures
from jaxface.annotation.landmarks import LandmarkCosts, choose_landmarks, contour_lines
from jaxface.annotation.views import BLOCK, Views, draw_all_views, draw_views, mesh_box, random_views, view_camera
from jaxface.annotation.votes import (
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
from jaxface.core.coefficients import Coefficients, vector_columns, vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.parts import PARTS
from jaxface.core.units import CROP_SIZE, MM_PER_UNIT
from jaxface.files import visualize
from jaxface.files.atomic import atomic_write
from jaxface.files.progress import progress
from jaxface.models.native import write_face_model
from jaxface.models.registry import load_face_model
from jaxface.photos.detection import DetectedFace, detect_faces
from jaxface.photos.parsing import LabelFolder, Parser, create_parser, whole_picture
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
        vectors: coefficients of the pictures, from `annotation.views.random_views`.
        box: what the pictures show, from `face_box`.
        parser: of `jaxface.photos.parsing`. It is asked about whole pictures, named as `picture_name` says.
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

    The detector looks for the face in a picture of the whole mesh; if it finds none, it is all the mesh.
    """
    whole = mesh_box(model)
    picture = next(draw_all_views(model, random_views(model, 1, seed=0), view_camera(whole, size=size)))
    face = _detect(picture)
    if face is None:
        return whole
    margin = _ROOM * face.size
    low, high = face.box[:2] - margin, face.box[2:] + margin
    inside = np.asarray(picture.visible) & ((picture.points > low[None]) & (picture.points < high[None])).all(-1)
    points = np.asarray(model.mean_shape)[inside]
    return np.stack([points.min(0), points.max(0)])


def _detect(picture: Views) -> DetectedFace | None:
    return next(iter(detect_faces(np.asarray(picture.image))), None)


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
            cell = visualize.draw_landmarks(cell, points[marks[visible[marks]]], radius=size / CROP_SIZE)
        cells.append(cell)
    front, *sides = cells
    return visualize.grid([[sides[0], front, sides[1]]])


def _turned(
    model: FaceModel, box: Float[np.ndarray, "2 3"], yaws: Sequence[float], *, size: int
) -> list[tuple[np.ndarray, ...]]:
    """Image, triangles, points and visible vertices of the mean face, turned; drawn by the program of the views."""
    middle, columns = box.mean(0), vector_columns(model)
    vectors = np.zeros((BLOCK, vector_size(model)), np.float32)
    for index, yaw in enumerate(yaws):
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        vectors[index, columns["angles"]] = (0, yaw, 0)
        vectors[index, columns["translation"]] = turn @ middle
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
        distance = MM_PER_UNIT * np.linalg.norm(offset, axis=-1)
        report["mm_from_the_models_own_landmarks"] = {
            "mean": round(float(distance.mean()), 3),
            "median": round(float(np.median(distance)), 3),
            "outline": round(float(distance[:17].mean()), 3),
        }
    return report


def merged(
    annotation: Annotation, edits: Mapping[str, Integer[np.ndarray, "..."]]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parts, landmarks and contours after edits by hand (see `annotation.files.read_edits`)."""
    parts = merge_edits(annotation.parts, {name: edits[name] for name in edits if edit_kind(name)})
    groups = []
    for prefix, found in (("landmarks/", annotation.landmarks), ("contours/", annotation.contours)):
        by_hand = {name.removeprefix(prefix): edits[name] for name in edits if name.startswith(prefix)}
        groups.append(found | by_hand)
    return parts, groups[0], groups[1]


def render_views(model: str | os.PathLike, folder: str | os.PathLike, *, views: int = VIEWS, seed: int = 0) -> int:
    """Writes the pictures of a face model for a parser of one's own; `annotate_file` reads them again (`renders`).

    Args:
        model: name or path of the face model.
        folder: for the pictures; made if need be.
        views: number of pictures.
        seed: of the random faces.

    Returns:
        The number of pictures.

    Raises:
        InputError: when the model or the folder cannot be used.
    """
    face_model = load_face_model(model)
    box = face_box(face_model, size=SIZE)
    vectors = random_views(face_model, views, seed=seed, box=box)
    write_pictures(Path(folder), face_model, vectors, box, size=SIZE)
    return len(vectors)


def annotate_file(
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    views: int = VIEWS,
    seed: int = 0,
    parser: str = "mediapipe",
    parser_weights: str | os.PathLike | None = None,
    labels: str | None = None,
    label_folder: str | os.PathLike | None = None,
    renders: str | os.PathLike | None = None,
    edits: str | os.PathLike | None = None,
    save_model: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Annotates a face model and writes what was found: OUT, and beside it a picture (.png) and figures (.json).

    Args:
        model: name or path of the face model.
        out: file for the annotation, .npz.
        views: number of pictures.
        seed: of the random faces.
        parser: what labels the parts, one of `parsing.PARSERS`.
        parser_weights: the file of the weights of "dml_csr".
        labels: instead of a parser, the order of the label maps in `label_folder`, a key of `parts.PARSER_LABELS`.
        label_folder: holds a label map for every picture in `renders`.
        renders: the folder that `render_views` wrote.
        edits: a file of edits by hand that are merged in (see `annotation.files.read_edits`).
        save_model: file for the face model with its annotation, .npz.

    Returns:
        The figures.

    Raises:
        InputError: when a file cannot be used or no picture could be parsed.
    """
    out = Path(out)
    face_model = load_face_model(model)
    by_hand = read_edits(Path(edits), face_model) if edits is not None else {}
    label_parser = create_parser(parser, weights=parser_weights, labels=labels, label_folder=label_folder)
    start = time.perf_counter()
    if renders is not None:
        vectors, box = read_views(Path(renders), face_model)
    else:
        box = face_box(face_model, size=SIZE)
        vectors = random_views(face_model, views, seed=seed, box=box)
    annotation = annotate_model(face_model, vectors, box, label_parser, size=SIZE)
    settings = {
        "model": face_model.name,
        "parser": labels or parser,
        "views": len(vectors),
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 1),
    }
    parts, landmarks, contours = merged(annotation, by_hand)
    report = _report(face_model, annotation, parts, settings)
    bare = dataclasses.replace(face_model, landmarks={}, contours={})
    result = annotated_model(bare, parts, landmarks, contours)
    visualize.save_png(out.with_suffix(".png"), annotation_picture(result, box, size=SIZE))
    with atomic_write(out.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n")
    if save_model is not None:
        completed = annotated_model(face_model, parts, landmarks, contours)
        write_face_model(completed, Path(save_model))
    write_annotation(out, parts, landmarks, contours)
    return report
