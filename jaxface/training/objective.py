"""The training objective: every loss of 3DDFA-V3 on one batch of predicted coefficient vectors, and their sum."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.core import cameras, face_models, lighting, parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import Face, decode_face
from jaxface.core.units import MM_PER_UNIT, PUBLISHED_SIZE, to_float
from jaxface.losses import (
    DLIB_CHIP,
    ChipTemplate,
    coefficient_regularization,
    light_regularization,
    perceptual_loss,
    photometric_loss,
    reflectance_loss,
)
from jaxface.losses.faces import marched_landmark_loss, part_loss, part_targets
from jaxface.render import interpolate, rasterize

Batch = Mapping[str, Array | np.ndarray]


def total_loss(
    model: FaceModel,
    vector: Float[Array, "B K"],
    batch: Batch,
    camera: Camera,
    *,
    prdl: float = 0.8e-3,
    landmark: float = 1.6e-3,
    photometric: float = 1.9,
    perceptual: float = 0.2,
    regularization: float = 3e-4,
    light: float = 10.0,
    reflectance: float = 5.0,
    reprojection: float = 0.0,
    shape: float = 0.0,
    color: float = 0.0,
    anchor_stride: int = 1,
    features: Callable[[Float[Array, "B C C 3"]], Float[Array, "B F"]] | None = None,
    chip: ChipTemplate = DLIB_CHIP,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Weighted sum of the losses (3DDFA-V3, section 3.3), and each of them before weighting; means over the batch.

    The defaults are the paper's weights. A term of weight 0 is not computed, and the faces are only drawn for
    `photometric` or `perceptual`.

    Args:
        model: the face model.
        vector: [B, K] predicted coefficients.
        batch: samples stacked as in photos/samples.py; the side S of the crops is that of `camera`.
        camera: the camera of the S x S crops, `Camera().resized(S)`.
        prdl: weight of the part re-projection distance loss, px^2 at 224 x 224.
        landmark: weight of the 68 landmarks' loss, px^2 at 224 x 224, with marching along the cheeks.
        photometric: weight of the colour difference inside the face.
        perceptual: weight of 1 - cosine of face-recognition features, for samples with landmarks.
        regularization: weight of the squared coefficients (identity 1, expression 0.8, albedo 0.017).
        light: weight of the light's departure from white; Deep3D's, as the next.
        reflectance: weight of the variance of the skin's albedo.
        reprojection: weight of the mean distance of image points to the true ones, px at 224 x 224, averaged over each
            part and then over the parts; for synthetic samples, as the next two.
        shape: weight of the mean distance of vertices before the pose to the true ones in mm.
        color: weight of the mean distance of every fourth vertex's shaded colour to the true one.
        anchor_stride: PRDL's anchors lie on every n-th pixel in x and y.
        features: face-recognition network from chips in [0, 1] to feature vectors, such as a
            `networks.face_recognition.FaceRecognizer`; needed for `perceptual`.
        chip: how the network's input is cut out.

    Returns:
        The loss, and a dict of the unweighted terms under the names of their weights.

    Raises:
        ValueError: when `perceptual` is positive and `features` is not given.
    """
    weights = {
        "prdl": prdl, "landmark": landmark, "photometric": photometric, "perceptual": perceptual,
        "regularization": regularization, "light": light, "reflectance": reflectance, "reprojection": reprojection,
        "shape": shape, "color": color,
    }  # fmt: skip
    wanted = {name for name, weight in weights.items() if weight != 0}
    coefficients = Coefficients.from_vector(vector, model)
    face = decode_face(model, coefficients, camera)
    terms = {}
    if "prdl" in wanted:
        targets = part_targets(batch["labels"], anchor_stride=anchor_stride)
        terms["prdl"] = part_loss(model, face, targets, camera, anchor_stride=anchor_stride)
    if "landmark" in wanted:
        terms["landmark"] = marched_landmark_loss(
            model, face, coefficients.angles[:, 2], batch["landmarks"], batch["landmark_weights"], camera
        )
    if wanted & {"photometric", "perceptual"}:
        terms |= _appearance_terms(model, face, batch, camera, features, chip, wanted)
    if "regularization" in wanted:
        terms["regularization"] = coefficient_regularization(
            coefficients.identity, coefficients.expression, coefficients.albedo
        )
    if "light" in wanted:
        terms["light"] = light_regularization(coefficients.light)
    if "reflectance" in wanted:
        terms["reflectance"] = reflectance_loss(face.albedo[:, model.parts["skin"]])
    if wanted & {"reprojection", "shape", "color"}:
        terms |= _supervised_terms(model, coefficients, face, batch, camera, wanted)
    means = {name: term.mean() for name, term in terms.items()}
    loss = sum((weights[name] * mean for name, mean in means.items()), start=jnp.zeros(()))
    return loss, means


def _appearance_terms(
    model: FaceModel,
    face: Face,
    batch: Batch,
    camera: Camera,
    features: Callable | None,
    chip: ChipTemplate,
    wanted: set[str],
) -> dict[str, Float[Array, "B"]]:
    image = to_float(batch["image"])
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=camera.image_size)
    rendered = interpolate(fragments, model.triangles, face.colors)
    seen = parts.face_mask(batch["labels"]) & (fragments.triangle >= 0)
    terms = {}
    if "photometric" in wanted:
        terms["photometric"] = photometric_loss(rendered, image, seen)
    if "perceptual" in wanted:
        if features is None:
            raise ValueError("the perceptual loss needs features=: give a network, or perceptual=0")
        # The render alone has no hair or background; the photo's own around it leave only the face to compare.
        drawn = jnp.where(seen[..., None], rendered, image)
        terms["perceptual"] = perceptual_loss(
            drawn, image, batch["landmarks"], features=features, chip=chip, weights=batch["landmark_weights"]
        )
    return terms


def _supervised_terms(
    model: FaceModel, coefficients: Coefficients, face: Face, batch: Batch, camera: Camera, wanted: set[str]
) -> dict[str, Float[Array, "B"]]:
    # Image points and the shape before the pose, rather than posed vertices: in an aligned crop the distance from the
    # camera hardly shows, and its errors (tens of mm) would drown all others.
    true_coefficients = Coefficients.from_vector(jnp.asarray(batch["coefficients"]), model)
    truth = decode_face(model, true_coefficients, camera)
    known = jnp.asarray(batch["has_coefficients"])
    terms = {}
    if "reprojection" in wanted:
        offsets = (face.points - truth.points) * (PUBLISHED_SIZE / camera.image_size[1])
        # Part by part, since a brow has a fiftieth of the skin's vertices.
        means = [_mean_distance(offsets[:, model.parts[part]]) for part in parts.PARTS]
        terms["reprojection"] = known * jnp.stack(means).mean(0)
    if "shape" in wanted:
        terms["shape"] = known * _mean_distance(MM_PER_UNIT * (face.shape - truth.shape))
    if "color" in wanted:
        # Both on the mean face in the true pose: its normals are the same for all, and no gradient goes through them.
        # Colours change slowly over the face: every fourth vertex tells them.
        normals = face_models.vertex_normals(model.mean_shape, model.triangles)[::4]
        turned = jnp.einsum("bij,vj->bvi", cameras.rotation_matrix(true_coefficients.angles), normals)
        predicted = lighting.shade(face.albedo[:, ::4], turned, coefficients.light)
        target = lighting.shade(truth.albedo[:, ::4], turned, true_coefficients.light)
        terms["color"] = known * _mean_distance(predicted - target)
    return terms


def _mean_distance(offsets: Float[Array, "B V D"]) -> Float[Array, "B"]:
    # Axis by axis: a sum over the short last axis is slow on CPU.
    squared = sum((jnp.square(offsets[..., axis]) for axis in range(offsets.shape[-1])), start=jnp.zeros(()))
    return jnp.sqrt(squared + 1e-6).mean(-1)  # smooth at zero, where the distance itself has no gradient
