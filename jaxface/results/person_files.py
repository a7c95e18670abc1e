"""What several photos of one person leave on disk, besides what each photo does.

OUT/person/mesh.obj, .mtl, texture.png   the person with a neutral face; millimetres, y up; the texture is merged over
                                         the photos, without their light
OUT/person/mesh.glb                      the same in metres, expressions as blendshapes
OUT/person/preview.png                   the same seen from five sides
OUT/person/person.json                   see `person_record`
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel, vertex_normals
from jaxface.core.face_models import shape as model_shape
from jaxface.core.units import METRES_PER_UNIT
from jaxface.core.version import __version__
from jaxface.files import meshes, visualize
from jaxface.files.atomic import atomic_folder
from jaxface.files.gltf import GlbAnimation, write_glb
from jaxface.files.own_results import RECORDS
from jaxface.results import drawing
from jaxface.results.blendshapes import blendshape_weights, expression_blendshapes
from jaxface.results.drawing import DrawnFace
from jaxface.results.gallery import DONE_FILE
from jaxface.texture.from_photo import texture_layout

SCHEMA = "jaxface person 1"
"""What person.json says of itself."""

PERSON_FILE = RECORDS["person"]
"""What a person's photos share and where they are; in OUT/person, or OUT/person_2 for a second person, ..."""

PREVIEW_YAWS = (-60, -30, 0, 30, 60)
"""Of the views of preview.png, in degrees."""


def earlier_person(
    folder: Path, photos: Sequence[tuple[Path, str | None]], settings: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """What person.json of a folder tells, if it was made from these photos with these settings and all is there.

    Args:
        folder: of the person, beside those of the photos.
        photos: all that were given, each with the SHA-256 of its file.
        settings: told in the results.
    """
    try:
        record = json.loads((folder / PERSON_FILE).read_text())
        if (record["settings"], record["jaxface"]) != (settings, __version__):
            return None
        made_from = [(one["file"], one["sha256"]) for one in record["photos"] + record["left_out"]]
        same = sorted(map(str, made_from)) == sorted(str((path.name, digest)) for path, digest in photos)
        there = all((folder.parent / one["folder"] / DONE_FILE).is_file() for one in record["photos"])
        return record if same and there else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_person(
    folder: Path,
    model: FaceModel,
    vector: Float[np.ndarray, "K"],
    drawn: DrawnFace,
    texture: UInt8[np.ndarray, "T T 3"],
    *,
    photos: Sequence[Mapping[str, Any]],
    left_out: Sequence[Mapping[str, Any]],
    settings: Mapping[str, str],
) -> None:
    """Writes a person; the folder appears whole or not at all.

    Args:
        folder: where to.
        model: the face model.
        vector: the person's identity and albedo; all else is not looked at.
        drawn: the person in one of the photos.
        texture: from `shared_texture`.
        photos: told in the record.
        left_out: likewise.
        settings: likewise.
    """
    neutral = _neutral(model, vector)
    uv, triangles = texture_layout(model)[0], np.asarray(model.triangles)
    with atomic_folder(folder) as partial:
        meshes.write_obj(partial / "mesh.obj", neutral, triangles, uv=uv, texture=texture)
        _write_glb(partial / "mesh.glb", model, neutral, texture)
        shown = dataclasses.replace(
            drawn, face=dataclasses.replace(drawn.face, shape=jnp.asarray(neutral[None])), texture=texture
        )
        views = [drawing.turned_views(model, shown, yaw=float(np.deg2rad(yaw))) for yaw in PREVIEW_YAWS]
        visualize.save_png(partial / "preview.png", visualize.grid([list(row) for row in zip(*views, strict=True)]))
        record = person_record(model, vector, photos=photos, left_out=left_out, settings=settings)
        (partial / PERSON_FILE).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


def person_record(
    model: FaceModel,
    vector: Float[np.ndarray, "K"],
    *,
    photos: Sequence[Mapping[str, Any]],
    left_out: Sequence[Mapping[str, Any]],
    settings: Mapping[str, str],
) -> dict[str, Any]:
    """What person.json holds; schema "jaxface person 1".

    schema, jaxface (version), face_model, settings; identity, albedo: coefficients that all photos share;
    photos [{file, sha256, folder (of its results, beside this one), role ("joint": identity and albedo come from it
    and others; "known": fitted with these held), faces (found in the photo), distance (of the face's recognition
    features to the mean of the others'; null without a recognition network)}];
    left_out [{file, sha256 (null if there is no such file), reason}]: photos that could not be used.
    """
    coefficients = Coefficients.from_vector(np.asarray(vector), model)
    return {
        "schema": SCHEMA,
        "jaxface": __version__,
        "face_model": model.name,
        "settings": dict(settings),
        "identity": np.asarray(coefficients.identity[0], np.float64).round(6).tolist(),
        "albedo": np.asarray(coefficients.albedo[0], np.float64).round(6).tolist(),
        "photos": [dict(photo) for photo in photos],
        "left_out": [dict(photo) for photo in left_out],
    }


def write_animated_person(
    path: Path,
    model: FaceModel,
    vectors: Float[np.ndarray, "F K"],
    texture: UInt8[np.ndarray, "T T 3"],
    *,
    times: Float[np.ndarray, "F"],
    rotation: Float[np.ndarray, "F 4"],
    translation: Float[np.ndarray, "F 3"],
) -> None:
    """Writes the person of a clip as GLB, with expressions as blendshapes and the head's motion.

    Args:
        path: where to.
        model: the face model.
        vectors: coefficients per frame; identity is the first one's.
        texture: from `shared_texture`.
        times: of the frames, in seconds.
        rotation: of the head, unit quaternions (x, y, z, w).
        translation: of the head in model units.
    """
    expressions = np.asarray(Coefficients.from_vector(np.asarray(vectors), model).expression)
    weights = np.stack([blendshape_weights(model, expression) for expression in expressions])
    animation = GlbAnimation(times=times, weights=weights, rotation=rotation, translation=METRES_PER_UNIT * translation)
    _write_glb(path, model, _neutral(model, vectors[0]), texture, animation)


def _neutral(model: FaceModel, vector: Float[np.ndarray, "K"]) -> Float[np.ndarray, "V 3"]:
    coefficients = Coefficients.from_vector(jnp.asarray(vector), model)
    return np.asarray(model_shape(model, coefficients.identity, jnp.zeros_like(coefficients.expression)))[0]


def _write_glb(
    path: Path,
    model: FaceModel,
    neutral: Float[np.ndarray, "V 3"],
    texture: UInt8[np.ndarray, "T T 3"],
    animation: GlbAnimation | None = None,
) -> None:
    blendshapes, triangles = expression_blendshapes(model), np.asarray(model.triangles)
    write_glb(
        path,
        neutral,
        triangles,
        normals=np.asarray(vertex_normals(neutral, triangles)),
        uv=texture_layout(model)[0],
        texture=texture,
        targets=blendshapes.deltas,
        target_names=blendshapes.names,
        animation=animation,
    )
