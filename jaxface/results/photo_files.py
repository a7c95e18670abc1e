"""What a reconstruction leaves on disk: pictures, meshes, coefficients and an HTML page.

OUT/<photo>/index.html           offline page: the mesh turns under the mouse, its expression moves, slider between
                                 photo and overlay
OUT/<photo>/photo_overlay.png    all faces drawn into the original photo
OUT/<photo>/face_<i>/
    crop.png                     what was reconstructed: the aligned crop
    overlay.png, shape.png, parts.png    the face in its colours, as clay, and its parts, over the crop
    expected_error.png           how far each spot is expected to lie from the truth: blue 0, red 5 mm; of fits alone
    landmarks.png                the landmarks on the crop, one picture per scheme of the face model
    depth.png, normals.png       in the photo: 16 bits, millimetres from the camera, 0 where there is no face; and
                                 255 (n + 1) / 2 of the normals (x right, y up, z towards the viewer)
    visible_parts.png            what is seen of the parts, in the photo: pixels are labels of `core.parts`, coloured
    whole_parts/<part>.png       each part in the photo as if nothing hid it, black and white
    mesh.obj, mesh.mtl, texture.png      millimetres, y up, before the pose, expression kept; the texture is the
                                 photo's, blended into the model's colours where the photo does not show the face
    model_colors.obj, .mtl, .png the same mesh in the model's own colours, without light
    mesh.ply                     the same mesh, the photo's texture as a colour per vertex
    mesh.glb                     in metres, photo's texture inside, the expression basis as blendshapes
    coefficients.json            see `face_record`

docs/results.md tells more, and results/assets/face.schema.json is the JSON schema of coefficients.json.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxface.core import cameras, metrics
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face, landmark_points
from jaxface.core.parts import PARTS
from jaxface.core.units import CROP_SIZE
from jaxface.core.version import __version__
from jaxface.files import visualize
from jaxface.files.atomic import atomic_write
from jaxface.files.images import encode_image
from jaxface.render import label_map, label_triangles, rasterize
from jaxface.results import viewer
from jaxface.results.blendshapes import blendshape_weights, expression_blendshapes
from jaxface.results.doubts import doubts_of, signs_of
from jaxface.results.drawing import (
    USUAL_DRAWING,
    DrawingOptions,
    DrawnFace,
    Reconstruction,
    draw_face,
    draw_into_photo,
    face_pictures,
    landmark_picture,
)
from jaxface.results.expected_error import error_measures, error_picture, vertex_errors
from jaxface.results.exporters import EXPORTERS, export_face
from jaxface.results.photo_maps import PhotoMaps, depth_picture, normal_colors, photo_maps, write_photo_maps
from jaxface.texture.from_photo import texture_layout

SCHEMA = "jaxface face 1"
"""What coefficients.json says of itself."""


def measure(model: FaceModel, reconstruction: Reconstruction) -> dict[str, Any]:
    """How sure the fit is of its shape, and how well it agrees with the detector's masks and landmarks.

    The agreement says nothing about the shape: a detector's masks and landmarks are no truth.

    Returns:
        expected_error_mm and expected_error_mm_of {part: mm}, see `expected_error.error_measures`;
        part_iou (mean of the seven parts other than skin), part_iou_of {part: IoU}, landmark_error_px (pixels of the
        224 crop), landmark_error_interocular (share of the distance between the outer eye corners); NaN if unknown;
        doubts: what speaks against trusting the face, see `doubts.doubts_of`.
    """
    return _measures(model, reconstruction, vertex_errors(model, reconstruction))


def _measures(model: FaceModel, one: Reconstruction, errors: Float[np.ndarray, "V"] | None) -> dict[str, Any]:
    sure = error_measures(model, errors)
    signs = signs_of(one, expected_error_mm=sure["expected_error_mm"])
    return sure | detector_agreement(model, one) | {"doubts": doubts_of(signs)}


def detector_agreement(model: FaceModel, reconstruction: Reconstruction) -> dict[str, Any]:
    """The part of `measure` that compares with the detector's masks and landmarks."""
    sample = reconstruction.sample
    size = sample["image"].shape[0]
    weights, target = sample["landmark_weights"][None], sample["landmarks"][None]
    triangle_labels = label_triangles(model.parts, model.triangles)
    measured = _measured(
        model,
        reconstruction.vector[None],
        reconstruction.camera(size),
        triangle_labels,
        sample["labels"][None],
        target,
        weights,
    )
    iou, error, interocular = (np.asarray(value)[0] for value in measured)
    iou = np.where([part in model.parts for part in PARTS], iou, np.nan)
    return {
        "part_iou": float(metrics.mean_part_iou(iou)),
        "part_iou_of": dict(zip(PARTS, iou.tolist(), strict=True)),
        "landmark_error_px": float(error) * CROP_SIZE / size,
        "landmark_error_interocular": float(error / interocular) if interocular > 0 else float("nan"),
    }


@jax.jit
def _measured(model: FaceModel, vector: Float[Array, "1 K"], camera: Camera, triangle_labels, labels, target, weights):
    coefficients = Coefficients.from_vector(vector, model)
    face = decode_face(model, coefficients, camera)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=camera.image_size)
    landmarks = landmark_points(model, face.points, coefficients.angles[:, 2])
    return (
        metrics.part_iou(label_map(fragments, triangle_labels), labels),
        metrics.landmark_error(landmarks, target, weights),
        metrics.interocular_distance(target, weights),
    )


def projection_matrix(coefficients: Coefficients, camera: Camera) -> Float[np.ndarray, "3 4"]:
    """P with (x w, y w, w) = P (X, Y, Z, 1): from model space before the pose to image points in pixels, y down.

    Args:
        coefficients: a batch of one.
        camera: of the picture.
    """
    rotation = np.asarray(cameras.rotation_matrix(coefficients.angles), np.float64)[0]
    translation = np.asarray(coefficients.translation, np.float64)[0]
    (cx, cy), f, d = camera.center, camera.focal, camera.distance
    inner = np.array([[f, 0, -cx], [0, -f, -cy], [0, 0, -1]])  # w = d - z
    return inner @ np.column_stack([rotation, translation]) + np.outer([cx * d, cy * d, d], [0, 0, 0, 1])


def face_record(
    model: FaceModel,
    reconstruction: Reconstruction,
    drawn: DrawnFace,
    measures: Mapping,
    *,
    photo_name: str,
    settings: Mapping[str, str],
) -> dict:
    """What coefficients.json holds; schema "jaxface face 1", see docs/results.md and results/assets/face.schema.json.

    schema, jaxface (version), photo {file, height, width}, face_model, settings;
    coefficients {identity, expression, albedo, angles (pitch, yaw, roll; radians), light [3 channels][9 bands],
    translation (model units)};
    expression_names: of the linear expression coefficients, which come first;
    camera {crop, photo}: {focal, center, distance, image_size, matrix}: the 3 x 4 matrix takes (X, Y, Z, 1) of model
    space (before the pose; 1 unit = 10 cm; divide the OBJ's millimetres by 100, multiply the GLB's metres by 10) to
    (x w, y w, w) in pixels, y down, pixel centres at + 0.5;
    alignment {scale, offset_x, offset_y, size, photo_size}: crop point = scale * photo point + offset;
    landmarks68 {photo [68][2] pixels, model [68][3] model space before the pose}; in the photo, those of the outline
    lie on the outline that is seen;
    landmarks {scheme: the same} for all schemes of the face model;
    measures: as in `measure`, null where unknown.
    """
    coefficients, alignment = drawn.coefficients, reconstruction.alignment
    crop_camera = reconstruction.camera(alignment.size)
    cameras_of = {"crop": crop_camera, "photo": alignment.photo_camera(crop_camera)}
    height, width = alignment.photo_size
    landmarks = {
        scheme: {
            "photo": drawn.alignment.to_photo(drawn.landmarks[scheme]).round(3).tolist(),
            "model": drawn.face.shape[0][np.asarray(vertices)].tolist(),
        }
        for scheme, vertices in model.landmarks.items()
    }
    record = {
        "schema": SCHEMA,
        "jaxface": __version__,
        "photo": {"file": photo_name, "height": height, "width": width},
        "face_model": model.name,
        "settings": dict(settings),
        "coefficients": {
            field.name: getattr(coefficients, field.name)[0].tolist() for field in dataclasses.fields(coefficients)
        },
        "expression_names": list(model.expression_labels),
        "camera": {
            name: {
                **dataclasses.asdict(camera),
                "matrix": projection_matrix(coefficients, camera).tolist(),
            }
            for name, camera in cameras_of.items()
        },
        "alignment": alignment.to_dict(),
        "landmarks68": landmarks["68"],
        "landmarks": landmarks,
        "measures": measures,
    }
    return _without_nan(record)


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_photo(
    folder: Path,
    model: FaceModel,
    photo: UInt8[np.ndarray, "H W 3"],
    reconstructions: Sequence[Reconstruction],
    *,
    photo_name: str,
    subtitle: str,
    settings: Mapping[str, str],
    drawing: DrawingOptions = USUAL_DRAWING,
) -> tuple[list[DrawnFace], list[dict]]:
    """Writes everything about one photo into an existing, empty folder; returns the faces as drawn and measured.

    Args:
        folder: where it goes.
        model: the face model.
        photo: the original photo.
        reconstructions: its faces.
        photo_name: file name of the photo, told in the results.
        subtitle: of the page, beside the photo's name.
        settings: told in every result.
        drawing: how the faces are drawn and textured.

    Raises:
        InputError: when a file cannot be written.
    """
    drawn = [draw_face(model, one, photo, options=drawing) for one in reconstructions]
    all_errors = [vertex_errors(model, one) for one in reconstructions]
    all_measures = [_measures(model, one, errors) for one, errors in zip(reconstructions, all_errors, strict=True)]
    blendshapes = expression_blendshapes(model)
    links = {told: file for file, (told, _) in EXPORTERS.items()} | _OTHER_FILES
    page_faces = []
    faces = zip(reconstructions, drawn, all_measures, all_errors, strict=True)
    for index, (one, face, measures, errors) in enumerate(faces):
        name = f"face_{index}"
        (folder / name).mkdir()
        maps = photo_maps(model, face)
        pictures = _pictures(face, maps)
        if errors is not None:
            pictures["Expected error"] = error_picture(model, face, errors)
        record = face_record(
            model,
            one,
            face,
            measures,
            photo_name=photo_name,
            settings=settings,
        )
        write_photo_maps(folder / name, maps)
        _write_face(folder / name, model, face, pictures, record)
        page_faces.append(
            viewer.ViewerFace(
                label=one.label,
                vertices=np.asarray(face.face.shape[0]),
                texture=face.texture,
                pictures=pictures,
                part_iou=measures["part_iou_of"],
                measures=_printed(measures, face),
                files={title: f"{name}/{file}" for title, file in links.items()},
                weights=blendshape_weights(model, face.coefficients.expression[0]),
            )
        )
    overlay = draw_into_photo(photo, drawn)
    _write_png(folder / "photo_overlay.png", overlay)
    html = viewer.page_html(
        page_faces,
        np.asarray(model.triangles),
        texture_layout(model)[0],
        vertex_part_colors(model),
        title=photo_name,
        subtitle=subtitle,
        part_colors={part: tuple(visualize.PART_COLORS[i + 1].tolist()) for i, part in enumerate(PARTS)},
        photo={"Photo": photo, "Overlay": overlay},
        settings=settings,
        blendshapes=blendshapes,
    )
    (folder / "index.html").write_text(html, encoding="utf-8")
    return drawn, all_measures


_OTHER_FILES = {
    "texture": "texture.png",
    "depth": "depth.png",
    "normals": "normals.png",
    "coefficients": "coefficients.json",
}

_PICTURE_FILES = {
    "Photo": "crop",
    "Overlay": "overlay",
    "Shape": "shape",
    "Parts": "parts",
    "Expected error": "expected_error",
}


def _pictures(drawn: DrawnFace, maps: PhotoMaps) -> dict[str, UInt8[np.ndarray, "S S 3"]]:
    seen = (maps.depth_picture > 0)[..., None]
    return face_pictures(drawn) | {
        "Depth": depth_picture(drawn.picture, maps.depth_picture),
        "Normals": np.where(seen, normal_colors(drawn.normals), drawn.picture),
    }


def _write_face(folder: Path, model: FaceModel, drawn: DrawnFace, pictures: Mapping, record: dict) -> None:
    for title, name in _PICTURE_FILES.items():
        if title in pictures:
            _write_png(folder / f"{name}.png", pictures[title])
    _write_png(folder / "landmarks.png", landmark_picture(drawn))
    export_face(folder, model, drawn)
    (folder / "coefficients.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


def _write_png(path: Path, picture: np.ndarray) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(encode_image(picture, "PNG"))


def vertex_part_colors(model: FaceModel) -> UInt8[np.ndarray, "V 3"]:
    """A colour per vertex: that of its part, as in the pictures of parts."""
    labels = label_triangles(model.parts, model.triangles)
    colors = np.zeros((len(model.mean_shape), 3), np.uint8)
    # From the skin to the small parts, so that these keep the vertices on their border.
    for label in sorted(np.unique(labels), reverse=True):
        colors[np.asarray(model.triangles)[labels == label].ravel()] = visualize.PART_COLORS[label]
    return colors


def _printed(measures: Mapping, drawn: DrawnFace) -> dict[str, str]:
    pitch, yaw, roll = np.degrees(np.asarray(drawn.coefficients.angles)[0])

    def known(value: float, text: str) -> str:
        return text if np.isfinite(value) else "unknown"

    iou, error, expected = (measures[name] for name in ("part_iou", "landmark_error_interocular", "expected_error_mm"))
    return {
        "Doubts": "; ".join(measures["doubts"]) or "none",
        "Expected error of the shape": known(expected, f"{expected:.1f} mm"),
        "Agreement with the detector, Part IoU": known(iou, f"{iou:.3f}"),
        "Agreement with the detector, landmarks": known(error, f"{100 * error:.2f} % of the eye distance"),
        "Pitch, yaw, roll": f"{pitch:.0f}°, {yaw:.0f}°, {roll:.0f}°",
        "Face in the photo": f"{drawn.alignment.size / drawn.alignment.scale:.0f} px crop",
    }
