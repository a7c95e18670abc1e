"""Faces made visible: decoded, drawn over the crop and into the photo, textured from it, seen from other sides."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from jaxface.core import cameras
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel, vertex_normals
from jaxface.core.faces import Face, decode_face, landmark_points
from jaxface.core.parts import BACKGROUND
from jaxface.core.units import CROP_SIZE
from jaxface.files import meshes, visualize
from jaxface.photos.alignment import Alignment, scaled_alignment
from jaxface.photos.samples import Sample
from jaxface.render import interpolate, label_map, label_triangles, rasterize, render_face
from jaxface.texture.atlases import sample_texture
from jaxface.texture.from_photo import photo_texture, texture_layout
from jaxface.texture.skin import class_shares
from jaxface.texture.trusted_pixels import trusted_pixels

PICTURE_SIZE = 512
"""Side in pixels of the crops that the pictures show, whatever the photo's size: one compilation serves all."""


@dataclasses.dataclass(frozen=True)
class DrawingOptions:
    """How faces are drawn and textured, on the whole way from a command to the files.

    Attributes:
        delight: takes the photo's light off the texture, so that it can be lit anew.
        keep_glasses: leaves glasses in the texture; otherwise they are taken off the skin.
        picture_size: side in pixels of the crops that the pictures show.
        largest_texture: bound on a texture's side in pixels, a power of two up to 4096. Within it, a texel is about as
            large as the photo's pixels.
    """

    delight: bool = False
    keep_glasses: bool = False
    picture_size: int = PICTURE_SIZE
    largest_texture: int = 2048

    def told(self) -> dict[str, str]:
        """What a result's settings say of glasses: nothing unless they are kept."""
        return {"glasses": "kept"} if self.keep_glasses else {}


USUAL_DRAWING = DrawingOptions()
"""Pictures of 512 pixels and textures of up to 2048, the photo's light left in."""


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """One face of a photo, solved.

    Attributes:
        vector: [K] coefficients.
        sample: the aligned crop that they belong to, with its label map and landmarks.
        alignment: where the crop lies in the photo.
        label: what the page calls it, such as "Face 1".
        stretch: focal length and distance of the camera that sees the crop, in those of `Camera()`.
        covariance: [S, S] of identity and expression; None where nobody says how sure they are.
        rivals: how many other faces of the photo could be meant as well, see `doubts.rivals_of_first`.
    """

    vector: Float[np.ndarray, "K"]
    sample: Sample
    alignment: Alignment
    label: str
    stretch: float = 1.0
    covariance: Float[np.ndarray, "S S"] | None = None
    rivals: int = 0

    def camera(self, size: int) -> Camera:
        """The camera that sees the crop at `size` pixels a side."""
        return Camera().stretched(self.stretch).resized(size)


@dataclasses.dataclass(frozen=True)
class DrawnFace:
    """A reconstruction, decoded, drawn and textured from the photo.

    Attributes:
        coefficients: a batch of one.
        face: decoded with the camera of the picture, a batch of one, as NumPy arrays.
        alignment: where the picture lies in the photo.
        picture: [S, S, 3] the photo's crop.
        colors: [S, S, 3] the model's colours under the light.
        normals: [S, S, 3] in posed model space.
        labels: [S, S] parts.
        landmarks: per scheme of the model [L, 2], in picture pixels.
        trusted: [S, S] how far each pixel lends the texture its colour, 0..1.
        texture: [T, T, 3] for the coordinates of `texture_layout`; T is a power of two.
    """

    coefficients: Coefficients
    face: Face
    alignment: Alignment
    picture: UInt8[np.ndarray, "S S 3"]
    colors: Float[np.ndarray, "S S 3"]
    normals: Float[np.ndarray, "S S 3"]
    labels: UInt8[np.ndarray, "S S"]
    landmarks: dict[str, Float[np.ndarray, "L 2"]]
    trusted: Float[np.ndarray, "S S"]
    texture: UInt8[np.ndarray, "T T 3"]


def draw_face(
    model: FaceModel,
    reconstruction: Reconstruction,
    photo: UInt8[np.ndarray, "H W 3"],
    *,
    options: DrawingOptions = USUAL_DRAWING,
) -> DrawnFace:
    """Decodes a reconstruction, draws it and takes its texture from the photo.

    Args:
        model: the face model.
        reconstruction: the face.
        photo: the original photo.
        options: sizes, and whether the photo's light is taken off.
    """
    larger = scaled_alignment(reconstruction.alignment, options.picture_size)
    camera = reconstruction.camera(options.picture_size)
    triangle_labels = label_triangles(model.parts, model.triangles)
    drawn = jax.tree.map(np.asarray, _draw(model, reconstruction.vector[None], camera, triangle_labels))
    picture, sample = larger.crop_image(photo), reconstruction.sample
    trusted = trusted_pixels(
        picture,
        sample["labels"],
        drawn["colors"][0],
        larger,
        shares=class_shares(sample["image"], sample.get("landmarks")) if "image" in sample else None,
        drawn=drawn["labels"][0],
        keep_glasses=options.keep_glasses,
    )
    return DrawnFace(
        coefficients=drawn["coefficients"],
        face=drawn["face"],
        alignment=larger,
        picture=picture,
        colors=drawn["colors"][0],
        normals=drawn["normals"][0],
        labels=drawn["labels"][0],
        landmarks={scheme: points[0] for scheme, points in drawn["landmarks"].items()},
        trusted=trusted[0],
        texture=photo_texture(
            model,
            drawn["face"],
            drawn["coefficients"].light,
            drawn["fragments"],
            photo,
            trusted,
            larger,
            delight=options.delight,
            largest_size=options.largest_texture,
        ),
    )


@jax.jit
def _draw(model: FaceModel, vector: Float[Array, "1 K"], camera: Camera, triangle_labels) -> dict:
    coefficients = Coefficients.from_vector(vector, model)
    face = decode_face(model, coefficients, camera)
    view = render_face(face, model.triangles, image_size=camera.image_size)
    return {
        "coefficients": coefficients,
        "face": face,
        "colors": view.draw(face.colors),
        "normals": view.draw(face.normals),
        "fragments": view.fragments,
        "labels": label_map(view.fragments, triangle_labels),
        "landmarks": {
            scheme: landmark_points(model, face.points, coefficients.angles[:, 2], scheme=scheme)
            for scheme in model.landmarks
        },
    }


def face_pictures(drawn: DrawnFace) -> dict[str, UInt8[np.ndarray, "S S 3"]]:
    """The crop, and over it the face in its colours, as clay, and its parts: name -> picture."""
    seen = drawn.labels != BACKGROUND
    return {
        "Photo": drawn.picture,
        "Overlay": visualize.overlay(drawn.picture, drawn.colors, seen),
        "Shape": visualize.clay(drawn.normals, seen, background=drawn.picture),
        "Parts": visualize.draw_labels(drawn.picture, drawn.labels),
        "Landmarks": _with_landmarks(drawn, "68"),
    }


def landmark_picture(drawn: DrawnFace) -> UInt8[np.ndarray, "H W 3"]:
    """The crop with the landmarks on it, once for each of the model's schemes, side by side."""
    return np.concatenate([_with_landmarks(drawn, scheme) for scheme in drawn.landmarks], axis=1)


def _with_landmarks(drawn: DrawnFace, scheme: str) -> UInt8[np.ndarray, "S S 3"]:
    return visualize.draw_landmarks(drawn.picture, drawn.landmarks[scheme], radius=drawn.picture.shape[0] / CROP_SIZE)


def vertex_colors(model: FaceModel, drawn: DrawnFace) -> Float[np.ndarray, "V 3"]:
    """The photo's texture at the vertices, in [0, 1]."""
    return sample_texture(drawn.texture.astype(np.float32) / 255, texture_layout(model)[0])


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
    fragments_uv = _turn(drawn.face.shape, angles, model.triangles, texture_layout(model)[0], Camera().resized(size))
    uv, normals, seen = (np.asarray(array)[0] for array in fragments_uv)
    colors = sample_texture(drawn.texture.astype(np.float32) / 255, uv)
    paper = np.full((size, size, 3), 255, np.uint8)
    return visualize.overlay(paper, colors, seen), visualize.clay(normals, seen)


@jax.jit
def _turn(shape: Float[Array, "1 V 3"], angles: Float[Array, "1 3"], triangles, uv, camera: Camera):
    posed = cameras.rotate(shape, angles)
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
