"""Draws the golden pictures: `PYTHONPATH=.:tests python tests/golden/make.py` writes them anew. Then look at each."""

from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jaxface import Camera, Coefficients, decode_face, load_face_model
from jaxface.core.coefficients import vector_columns, vector_size
from jaxface.files import visualize
from jaxface.photos.alignment import Alignment
from jaxface.render import label_map, label_triangles, render_face
from jaxface.results.drawing import DrawingOptions, Reconstruction, draw_face, turned_views

FOLDER, SIZE = Path(__file__).parent, 96


def vectors(model):
    """The mean face, and a person who turns away under a light from the side, jaw open and one eye shut."""
    vector, columns = np.zeros((2, vector_size(model)), np.float32), vector_columns(model)
    random, names = np.random.default_rng(5), model.expression_names
    for kind in ("identity", "albedo"):
        part = vector[1, columns[kind]]
        part[:] = random.normal(size=part.shape).clip(-1.5, 1.5)
    expression = vector[1, columns["expression"]]
    expression[[names.index("jawOpen"), names.index("eyeBlinkLeft")]] = 0.5, 1.0
    vector[1, columns["angles"]] = 0.1, 0.45, -0.15
    vector[1, columns["light"]].reshape(3, 9)[:, 3] = -0.3
    return vector


@jax.jit
def _draw(model, vector, camera, triangle_labels):
    face = decode_face(model, Coefficients.from_vector(vector, model), camera)
    view = render_face(face, model.triangles, image_size=camera.image_size)
    return view.draw(face.colors), view.draw(face.normals), label_map(view.fragments, triangle_labels)


def pictures(model):
    """Name -> picture: colours, clay and parts of two of the built-in model's faces; the texture of one."""
    drawn = _draw(model, vectors(model), Camera().resized(SIZE), label_triangles(model.parts, model.triangles))
    paper, result = np.full((SIZE, SIZE, 3), 255, np.uint8), {}
    for name, colors, normals, labels in zip(("mean", "other"), *map(np.asarray, drawn), strict=True):
        seen = labels > 0
        result[f"{name}_colors"] = visualize.overlay(paper, colors, seen)
        result[f"{name}_clay"] = visualize.clay(normals, seen)
        result[f"{name}_parts"] = visualize.draw_labels(paper, labels, opacity=1.0)
    return result | textures(model)


def textures(model):
    """The second face, textured from a picture of itself in stripes: the texture, and the face turned."""
    size, vector = 224, vectors(model)[1]
    labels = label_triangles(model.parts, model.triangles)
    colors, _, parts = (np.asarray(x)[0] for x in _draw(model, vector[None], Camera().resized(size), labels))
    stripes = 0.85 + 0.15 * np.sign(np.sin(np.arange(size) / 6))[:, None, None]
    photo = np.where(parts[..., None] > 0, 255 * np.clip(colors * stripes, 0, 1), 128).astype(np.uint8)
    alignment = Alignment(scale=1.0, offset_x=0.0, offset_y=0.0, size=size, photo_size=(size, size))
    one = Reconstruction(vector, {"labels": parts}, alignment, "Face 1")
    drawn = draw_face(model, one, photo, options=DrawingOptions(picture_size=size, largest_texture=128))
    return {"texture": drawn.texture, "turned": turned_views(model, drawn, yaw=-0.5, size=SIZE)[0]}


if __name__ == "__main__":
    for name, picture in pictures(load_face_model("anny")).items():
        Image.fromarray(picture).save(FOLDER / f"{name}.png", optimize=True)
