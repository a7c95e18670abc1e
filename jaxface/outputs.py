"""What a reconstruction leaves on disk: pictures, meshes, coefficients and an HTML page.

OUT/<photo>/index.html           offline page: the mesh turns under the mouse, slider between photo and overlay
OUT/<photo>/photo_overlay.png    all faces drawn into the original photo
OUT/<photo>/face_<i>/
    crop.png                     what was reconstructed: the aligned crop
    overlay.png, shape.png, parts.png    the face in its colours, as clay, and its parts, over the crop
    landmarks.png                the landmarks on the crop, one picture per scheme of the face model
    visible_parts.png            what is seen of the parts, in the photo: pixels are labels of `jaxface.parts`, coloured
    whole_parts/<part>.png       each part in the photo as if nothing hid it, black and white
    mesh.obj, mesh.mtl, texture.png      millimetres, y up, before the pose, expression kept; the texture is the
                                 photo's, blended into the model's colours where the photo does not show the face
    model_colors.obj, .mtl, .png the same mesh in the model's own colours, without light
    mesh.ply                     the same mesh, the photo's texture as a colour per vertex
    mesh.glb                     in metres, photo's texture inside
    coefficients.json            see `face_record`
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

import jaxface
from jaxface import camera as cameras
from jaxface import drawing, metrics, visualize
from jaxface.camera import Camera
from jaxface.coefficients import Coefficients
from jaxface.drawing import DrawnFace, Reconstruction, draw_face, draw_into_photo, face_pictures, texture_layout
from jaxface.face import decode_face, landmark_points
from jaxface.face_model import FaceModel, vertex_normals
from jaxface.formats import meshes, viewer
from jaxface.parts import PARTS
from jaxface.render import label_map, label_triangles, rasterize

SCHEMA = "jaxface face 1"


def measure(model: FaceModel, reconstruction: Reconstruction) -> dict[str, Any]:
    """Part IoU and landmark error against the detector's masks and landmarks, at the sample's size.

    Returns:
        part_iou (mean of the seven parts other than skin), part_iou_of {part: IoU}, landmark_error_px (pixels of the
        224 crop), landmark_error_interocular (share of the distance between the outer eye corners); NaN if unknown.
    """
    sample = reconstruction.sample
    camera = Camera().resized(sample["image"].shape[0])
    labels, landmarks = _measured(
        model, reconstruction.vector[None], camera, label_triangles(model.parts, model.triangles)
    )
    iou = np.asarray(metrics.part_iou(labels, sample["labels"][None]))[0]
    iou = np.where([part in model.parts for part in PARTS], iou, np.nan)
    weights, target = sample["landmark_weights"][None], sample["landmarks"][None]
    error = float(metrics.landmark_error(landmarks, target, weights)[0])
    return {
        "part_iou": float(metrics.mean_part_iou(iou)),
        "part_iou_of": dict(zip(PARTS, iou.tolist(), strict=True)),
        "landmark_error_px": error * 224 / sample["image"].shape[0],
        "landmark_error_interocular": error / float(metrics.interocular_distance(target, weights)[0]),
    }


@jax.jit
def _measured(model: FaceModel, vector: Float[Array, "1 K"], camera: Camera, triangle_labels):
    coefficients = Coefficients.from_vector(vector, model)
    face = decode_face(model, coefficients, camera)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=camera.image_size)
    return label_map(fragments, triangle_labels), landmark_points(model, face.points, coefficients.angles[:, 2])


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
    """What coefficients.json holds; schema "jaxface face 1".

    schema, jaxface (version), photo {file, height, width}, face_model, settings;
    coefficients {identity, expression, albedo, angles (pitch, yaw, roll; radians), light [3 channels][9 bands],
    translation (model units)};
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
    crop_camera = Camera().resized(alignment.size)
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
        "jaxface": jaxface.__version__,
        "photo": {"file": photo_name, "height": height, "width": width},
        "face_model": model.name,
        "settings": dict(settings),
        "coefficients": {
            field.name: getattr(coefficients, field.name)[0].tolist() for field in dataclasses.fields(coefficients)
        },
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
) -> tuple[list[DrawnFace], list[dict]]:
    """Writes everything about one photo into an existing, empty folder; returns the faces as drawn and measured."""
    drawn = [draw_face(model, one, photo) for one in reconstructions]
    all_measures = [measure(model, one) for one in reconstructions]
    page_faces = []
    for index, (one, face, measures) in enumerate(zip(reconstructions, drawn, all_measures, strict=True)):
        name = f"face_{index}"
        (folder / name).mkdir()
        pictures = face_pictures(face)
        record = face_record(model, one, face, measures, photo_name=photo_name, settings=settings)
        _write_face(folder / name, model, face, pictures, record)
        page_faces.append(
            viewer.ViewerFace(
                label=one.label,
                vertices=np.asarray(face.face.shape[0]),
                texture=face.texture,
                pictures=pictures,
                part_iou=measures["part_iou_of"],
                measures=_printed(measures, face),
                files={
                    "GLB": f"{name}/mesh.glb",
                    "OBJ": f"{name}/mesh.obj",
                    "OBJ, the model's colours": f"{name}/model_colors.obj",
                    "PLY": f"{name}/mesh.ply",
                    "texture": f"{name}/texture.png",
                    "coefficients": f"{name}/coefficients.json",
                },
            )
        )
    overlay = draw_into_photo(photo, drawn)
    visualize.save_png(folder / "photo_overlay.png", overlay)
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
    )
    (folder / "index.html").write_text(html, encoding="utf-8")
    return drawn, all_measures


def _write_face(folder: Path, model: FaceModel, drawn: DrawnFace, pictures: Mapping, record: dict) -> None:
    names = {"Photo": "crop", "Overlay": "overlay", "Shape": "shape", "Parts": "parts"}
    for title, name in names.items():
        visualize.save_png(folder / f"{name}.png", pictures[title])
    visualize.save_png(folder / "landmarks.png", drawing.landmark_picture(drawn))
    _write_segmentation(folder, model, drawn)
    triangles, uv, vertices = np.asarray(model.triangles), texture_layout(model)[0], np.asarray(drawn.face.shape[0])
    normals = np.asarray(vertex_normals(drawn.face.shape[0], triangles))
    meshes.write_obj(folder / "mesh.obj", vertices, triangles, uv=uv, texture=drawn.texture)
    own = drawing.albedo_texture(model, drawn)
    name = "model_colors"
    meshes.write_obj(folder / f"{name}.obj", vertices, triangles, uv=uv, texture=own, texture_name=f"{name}.png")
    meshes.write_ply(folder / "mesh.ply", vertices, triangles, colors=drawing.vertex_colors(model, drawn))
    meshes.write_glb(folder / "mesh.glb", vertices, triangles, normals=normals, uv=uv, texture=drawn.texture)
    (folder / "coefficients.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


def _write_segmentation(folder: Path, model: FaceModel, drawn: DrawnFace) -> None:
    labels = Image.fromarray(drawing.labels_in_photo(drawn))
    labels.putpalette(visualize.PART_COLORS.tobytes())
    labels.save(folder / "visible_parts.png")
    (folder / "whole_parts").mkdir()
    for part, mask in drawing.whole_parts(model, drawn).items():
        Image.fromarray(drawing.mask_in_photo(drawn, mask) >= 128).save(folder / "whole_parts" / f"{part}.png")


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

    iou, error = measures["part_iou"], measures["landmark_error_interocular"]
    return {
        "Part IoU, mean of 7 parts": known(iou, f"{iou:.3f}"),
        "Landmark error, of the eye distance": known(error, f"{100 * error:.2f} %"),
        "Pitch, yaw, roll": f"{pitch:.0f}°, {yaw:.0f}°, {roll:.0f}°",
        "Face in the photo": f"{drawn.alignment.size / drawn.alignment.scale:.0f} px crop",
    }
