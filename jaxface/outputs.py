"""What a reconstruction leaves on disk: pictures, meshes, coefficients and an HTML page.

OUT/<photo>/index.html           offline page: the mesh turns under the mouse, slider between photo and overlay
OUT/<photo>/photo_overlay.png    all faces drawn into the original photo
OUT/<photo>/face_<i>/
    crop.png                     what was reconstructed: the aligned crop
    overlay.png, shape.png, parts.png    the face in its colours, as clay, and its parts, over the crop
    mesh.obj, mesh.mtl, texture.png      millimetres, y up, before the pose, expression kept
    mesh.glb                     the same in metres, texture inside
    coefficients.json            see `face_record`
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from jaxtyping import Array, Bool, Float, UInt8
from PIL import Image, ImageFilter

import jaxface
from jaxface import camera as cameras
from jaxface import metrics, visualize
from jaxface.camera import Camera
from jaxface.coefficients import Coefficients
from jaxface.data.alignment import Alignment
from jaxface.data.sample import Sample
from jaxface.face import Face, decode_face, landmark_points
from jaxface.face_model import FaceModel, vertex_normals
from jaxface.formats import meshes, viewer
from jaxface.parts import BACKGROUND, PARTS
from jaxface.render import interpolate, label_map, label_triangles, rasterize
from jaxface.render.textures import sample_texture, uv_texture, view_weights

SCHEMA = "jaxface face 1"
PICTURE_SIZE = 512
"""Side in pixels of the crops that the pictures show, whatever the photo's size: one compilation serves all."""
TEXTURE_SIZE = 1024


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """One face of a photo, solved.

    Attributes:
        vector: [K] coefficients.
        sample: the aligned crop that they belong to, with its label map and landmarks.
        alignment: where the crop lies in the photo.
        label: what the page calls it, such as "Face 1".
    """

    vector: Float[np.ndarray, "K"]
    sample: Sample
    alignment: Alignment
    label: str


@dataclasses.dataclass(frozen=True)
class DrawnFace:
    """A reconstruction, decoded, drawn at PICTURE_SIZE and textured from the photo.

    Attributes:
        coefficients: a batch of one.
        face: decoded with the camera of the picture, a batch of one, as NumPy arrays.
        alignment: where the picture lies in the photo.
        picture: [S, S, 3] the photo's crop.
        colors: [S, S, 3] the model's colours under the light.
        normals: [S, S, 3] in posed model space.
        labels: [S, S] parts.
        landmarks: [68, 2] in picture pixels.
        texture: [TEXTURE_SIZE, TEXTURE_SIZE, 3].
    """

    coefficients: Coefficients
    face: Face
    alignment: Alignment
    picture: UInt8[np.ndarray, "S S 3"]
    colors: Float[np.ndarray, "S S 3"]
    normals: Float[np.ndarray, "S S 3"]
    labels: UInt8[np.ndarray, "S S"]
    landmarks: Float[np.ndarray, "68 2"]
    texture: UInt8[np.ndarray, "T T 3"]


def draw_face(
    model: FaceModel,
    reconstruction: Reconstruction,
    photo: UInt8[np.ndarray, "H W 3"],
) -> DrawnFace:
    """Decodes a reconstruction, draws it and takes its texture from the photo.

    Args:
        model: the face model; needs texture coordinates.
        reconstruction: the face.
        photo: the original photo.
    """
    larger = scaled_alignment(reconstruction.alignment, PICTURE_SIZE)
    camera = Camera().resized(PICTURE_SIZE)
    triangle_labels = label_triangles(model.parts, model.triangles)
    drawn = jax.tree.map(np.asarray, _draw(model, reconstruction.vector[None], camera, triangle_labels))
    face = drawn["face"]
    picture = larger.crop_image(photo)
    posed = np.asarray(cameras.to_camera_space(face.vertices, camera))[0]
    weights = view_weights(face.normals[0], np.array([0, 0, camera.distance]) - posed)
    weights[_inner_mouth(model)] = 1  # rugged, and worth having at any angle
    texture = uv_texture(
        picture.astype(np.float32) / 255,
        face.points[0],
        face.depth[0],
        weights,
        np.clip(face.colors[0], 0, 1),
        np.asarray(model.uv),
        np.asarray(model.triangles),
        surface_depth=drawn["depth"][0],
        mask=_soft_mask(reconstruction.sample["labels"] != BACKGROUND),
        mirror=None if model.mirror is None else np.asarray(model.mirror),
        texture_size=TEXTURE_SIZE,
    )
    return DrawnFace(
        coefficients=drawn["coefficients"],
        face=face,
        alignment=larger,
        picture=picture,
        colors=drawn["colors"][0],
        normals=drawn["normals"][0],
        labels=drawn["labels"][0],
        landmarks=drawn["landmarks"][0],
        texture=meshes.to_bytes(texture),
    )


def _inner_mouth(model: FaceModel) -> Bool[np.ndarray, "V"]:
    """Cavity and teeth: pieces of surface in no part that touch the lips, or nothing (the neck touches the skin)."""
    triangles, count = np.asarray(model.triangles), len(model.mean_shape)
    lips, outside = np.zeros(count, bool), np.zeros(count, bool)
    for part, vertices in model.parts.items():
        outside[np.asarray(vertices)] = True
        lips[np.asarray(vertices)] |= part in ("upper_lip", "lower_lip")
    edges = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    inner_edges = edges[~outside[edges].any(1)]
    graph = scipy.sparse.coo_array((np.ones(len(inner_edges)), tuple(inner_edges.T)), shape=(count, count))
    _, piece = scipy.sparse.csgraph.connected_components(graph, directed=False)
    beside_parts, beside_lips = (piece[triangles[of_part[triangles].any(1)]] for of_part in (outside, lips))
    return ~outside & (np.isin(piece, beside_lips) | ~np.isin(piece, beside_parts))


def _soft_mask(mask: Bool[np.ndarray, "S S"]) -> Float[np.ndarray, "P P"]:
    """The face's mask at PICTURE_SIZE, a little smaller and with a soft edge: hair and background show at the outline.

    What lies above the face counts as well: a fringe or a hat looks better whole than cut at the detector's outline.
    """
    above = np.maximum.accumulate(mask[::-1], axis=0)[::-1]
    picture = Image.fromarray(255 * above.astype(np.uint8)).resize((PICTURE_SIZE, PICTURE_SIZE))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(PICTURE_SIZE / 64)), np.float32) / 255
    return np.clip(2 * blurred - 1, 0, 1)


@jax.jit
def _draw(model: FaceModel, vector: Float[Array, "1 K"], camera: Camera, triangle_labels) -> dict:
    coefficients = Coefficients.from_vector(vector, model)
    face = decode_face(model, coefficients, camera)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=camera.image_size)
    return {
        "coefficients": coefficients,
        "face": face,
        "depth": fragments.depth,
        "colors": interpolate(fragments, model.triangles, face.colors),
        "normals": interpolate(fragments, model.triangles, face.normals),
        "labels": label_map(fragments, triangle_labels),
        "landmarks": landmark_points(model, face.points, coefficients.angles[:, 2]),
    }


def scaled_alignment(alignment: Alignment, size: int) -> Alignment:
    """The same crop with `size` pixels a side."""
    factor = size / alignment.size
    return dataclasses.replace(
        alignment,
        scale=alignment.scale * factor,
        offset_x=alignment.offset_x * factor,
        offset_y=alignment.offset_y * factor,
        size=size,
    )


def face_pictures(drawn: DrawnFace) -> dict[str, UInt8[np.ndarray, "S S 3"]]:
    """The crop, and over it the face in its colours, as clay, and its parts: name -> picture."""
    seen = drawn.labels != BACKGROUND
    return {
        "Photo": drawn.picture,
        "Overlay": visualize.overlay(drawn.picture, drawn.colors, seen),
        "Shape": visualize.clay(drawn.normals, seen, background=drawn.picture),
        "Parts": visualize.draw_labels(drawn.picture, drawn.labels),
        "Landmarks": visualize.draw_landmarks(drawn.picture, drawn.landmarks, radius=PICTURE_SIZE / 224),
    }


def turned_views(
    model: FaceModel, drawn: DrawnFace, *, yaw: float, pitch: float = 0.0, size: int = PICTURE_SIZE
) -> tuple[UInt8[np.ndarray, "S S 3"], UInt8[np.ndarray, "S S 3"]]:
    """The face from another side, textured and as clay, on white.

    Args:
        model: the face model.
        drawn: the face.
        yaw: in radians, positive towards the image's right; 0 is straight ahead, whatever the photo's pose.
        pitch: in radians, positive is down.
        size: side of the pictures in pixels.
    """
    angles = np.array([[pitch, yaw, 0.0]], np.float32)
    fragments_uv = _turn(drawn.face.shape, angles, model.triangles, model.uv, Camera().resized(size))
    uv, normals, seen = (np.asarray(array)[0] for array in fragments_uv)
    colors = sample_texture(drawn.texture.astype(np.float32) / 255, uv)
    paper = np.full((size, size, 3), 255, np.uint8)
    return visualize.overlay(paper, colors, seen), visualize.clay(normals, seen)


@jax.jit
def _turn(shape: Float[Array, "1 V 3"], angles: Float[Array, "1 3"], triangles, uv, camera: Camera):
    posed = cameras.pose(shape, angles, jnp.zeros_like(angles))
    vertices = cameras.to_camera_space(posed, camera)
    points, depth = cameras.project(vertices, camera), vertices[..., 2]
    fragments = rasterize(points, depth, triangles, image_size=camera.image_size)
    normals = interpolate(fragments, triangles, vertex_normals(posed, triangles))
    return interpolate(fragments, triangles, jnp.asarray(uv)[None]), normals, fragments.triangle >= 0


def draw_into_photo(photo: UInt8[np.ndarray, "H W 3"], drawn: Sequence[DrawnFace]) -> UInt8[np.ndarray, "H W 3"]:
    """The original photo with every face drawn into it in its colours."""
    result = Image.fromarray(photo)
    for face in drawn:
        alignment, mask = face.alignment, (face.labels != BACKGROUND)
        left, top = np.floor(alignment.to_photo(np.zeros(2))).astype(int) - 1
        right, bottom = np.ceil(alignment.to_photo(np.full(2, alignment.size))).astype(int) + 1
        # Pillow maps the pixels of the box to those of the render: render = scale * photo + offset.
        offset = alignment.to_crop(np.array([left, top], float))
        matrix = (alignment.scale, 0, offset[0], 0, alignment.scale, offset[1])
        box = (int(right - left), int(bottom - top))
        rgba = np.dstack([meshes.to_bytes(face.colors), 255 * mask.astype(np.uint8)])
        layer = _antialiased(Image.fromarray(rgba), box, matrix)
        result.paste(layer.convert("RGB"), (int(left), int(top)), layer.getchannel("A"))
    return np.asarray(result)


def _antialiased(render: Image.Image, box: tuple[int, int], matrix: tuple[float, ...]) -> Image.Image:
    """Resamples a render into a box of the photo; a small face is averaged down, not thinned out."""
    premultiplied = render.convert("RGBa")
    shrink = max(1, round(matrix[0]))
    if shrink > 1:
        premultiplied = premultiplied.reduce(shrink)
        matrix = tuple(value / shrink for value in matrix)
    return premultiplied.transform(box, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR).convert("RGBA")


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
    landmarks68 {photo [68][2] pixels, model [68][3] model space before the pose};
    measures: as in `measure`, null where unknown.
    """
    coefficients, alignment = drawn.coefficients, reconstruction.alignment
    crop_camera = Camera().resized(alignment.size)
    cameras_of = {"crop": crop_camera, "photo": alignment.photo_camera(crop_camera)}
    height, width = alignment.photo_size
    landmark_vertices = np.asarray(model.landmarks["68"])
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
        "landmarks68": {
            "photo": drawn.alignment.to_photo(drawn.landmarks).round(3).tolist(),
            "model": drawn.face.shape[0][landmark_vertices].tolist(),
        },
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
        np.asarray(model.uv),
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
    triangles, uv, vertices = np.asarray(model.triangles), np.asarray(model.uv), np.asarray(drawn.face.shape[0])
    normals = np.asarray(vertex_normals(drawn.face.shape[0], triangles))
    meshes.write_obj(folder / "mesh.obj", vertices, triangles, uv=uv, texture=drawn.texture)
    meshes.write_glb(folder / "mesh.glb", vertices, triangles, normals=normals, uv=uv, texture=drawn.texture)
    (folder / "coefficients.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


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
        "Face in the photo": f"{PICTURE_SIZE / drawn.alignment.scale:.0f} px crop",
    }
