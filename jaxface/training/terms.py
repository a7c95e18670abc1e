"""The terms of the training objective: each a function from a batch of predictions to a loss per sample.

A new one is a function like these and a line in TERMS; its weight is then `config.loss.<name>` (docs/extending.md).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxface.core import cameras, face_models, lighting, parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, standard_expression
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import Face, decode_face
from jaxface.core.units import CROP_SIZE, MM_PER_UNIT, to_float
from jaxface.fitting.occlusion import hidden_pixels
from jaxface.losses import (
    ChipTemplate,
    coefficient_regularization,
    light_regularization,
    perceptual_loss,
    photometric_loss,
    reflectance_loss,
)
from jaxface.losses.faces import marched_landmark_loss, part_loss, part_targets, vertex_part_loss
from jaxface.render import View, render_face


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a term may look at; what several terms need is computed once, and only if one of them asks.

    Attributes:
        model: the face model.
        coefficients: predicted, of a batch of B faces.
        batch: samples stacked as in photos/samples.py.
        camera: of the S x S crops.
        anchor_stride: PRDL's anchors lie on every n-th pixel in x and y.
        prdl_every: PRDL looks at every n-th sample.
        features: face-recognition network; None without one.
        chip: how its input is cut out.
    """

    model: FaceModel
    coefficients: Coefficients
    batch: Mapping[str, Array | np.ndarray]
    camera: Camera
    anchor_stride: int
    prdl_every: int
    features: Callable[[Float[Array, "B C C 3"]], Float[Array, "B F"]] | None
    chip: ChipTemplate

    @functools.cached_property
    def face(self) -> Face:
        """The predicted faces."""
        return decode_face(self.model, self.coefficients, self.camera)

    @functools.cached_property
    def image(self) -> Float[Array, "B S S 3"]:
        """The photos, in [0, 1]."""
        return to_float(self.batch["image"])

    @functools.cached_property
    def view(self) -> View:
        """The predicted faces, rasterized."""
        return render_face(self.face, self.model.triangles, image_size=self.camera.image_size)

    @functools.cached_property
    def drawn(self) -> tuple[Float[Array, "B S S 3"], Bool[Array, "B S S"]]:
        """The predicted faces as pictures, and the pixels where both they and the photos show a face."""
        return self.view.draw(self.face.colors), parts.face_mask(self.batch["labels"]) & self.view.seen

    @functools.cached_property
    def true_coefficients(self) -> Coefficients:
        """Those of synthetic samples; of others, where `known` is 0, they mean nothing."""
        return Coefficients.from_vector(jnp.asarray(self.batch["coefficients"]), self.model)

    @functools.cached_property
    def truth(self) -> Face:
        """The faces of `true_coefficients`."""
        return decode_face(self.model, self.true_coefficients, self.camera)

    @property
    def known(self) -> Float[Array, "B"]:
        """1 for a sample whose true coefficients are known, else 0."""
        return jnp.asarray(self.batch["has_coefficients"])


@dataclasses.dataclass(frozen=True)
class Term:
    """One term of the objective.

    Attributes:
        function: loss per sample [B] of a batch of predictions.
        weight: by default; 0 leaves the term out.
    """

    function: Callable[[Prediction], Float[Array, "B"]]
    weight: float = 0.0


def prdl(prediction: Prediction) -> Float[Array, "B"]:
    """Part re-projection distance loss on pixels, px at 224 x 224, of every n-th sample (`prdl_every`)."""
    every = slice(None, None, prediction.prdl_every)
    batch = {name: prediction.batch[name][every] for name in ("labels", "landmarks", "landmark_weights")}
    face = jax.tree.map(lambda array: array[every], prediction.face)
    hidden = hidden_pixels(batch["labels"], batch["landmarks"], batch["landmark_weights"])
    targets = part_targets(batch["labels"], anchor_stride=prediction.anchor_stride)
    # Of the whole batch the colours' terms draw the same; of a part of it, that part alone is drawn.
    fragments = prediction.view.fragments if prediction.prdl_every == 1 else None
    return part_loss(prediction.model, face, targets, hidden=hidden, fragments=fragments)


def prdl_vertices(prediction: Prediction) -> Float[Array, "B"]:
    """The same on vertices, each weighed by the area that is seen of it; px^2 at 224 x 224."""
    labels, stride = prediction.batch["labels"], prediction.anchor_stride
    return vertex_part_loss(prediction.model, prediction.face, labels, prediction.camera, anchor_stride=stride)


def prdl_paper(prediction: Prediction) -> Float[Array, "B"]:
    """The same on vertices, all alike: 3DDFA-V3, eq. 5 to 7; px^2 at 224 x 224."""
    labels, stride = prediction.batch["labels"], prediction.anchor_stride
    return vertex_part_loss(
        prediction.model, prediction.face, labels, prediction.camera, anchor_stride=stride, by_area=False
    )


def landmark(prediction: Prediction) -> Float[Array, "B"]:
    """The 68 landmarks' loss, px^2 at 224 x 224, with marching along the cheeks."""
    batch, roll = prediction.batch, prediction.coefficients.angles[:, 2]
    return marched_landmark_loss(
        prediction.model, prediction.face, roll, batch["landmarks"], batch["landmark_weights"], prediction.camera
    )


def photometric(prediction: Prediction) -> Float[Array, "B"]:
    """Colour difference inside the face."""
    picture, seen = prediction.drawn
    return photometric_loss(picture, prediction.image, seen)


def perceptual(prediction: Prediction) -> Float[Array, "B"]:
    """1 - cosine of face-recognition features, for samples with landmarks."""
    if prediction.features is None:
        raise ValueError("the perceptual loss needs features=: give a network, or perceptual=0")
    picture, seen = prediction.drawn
    # The render alone has no hair or background; the photo's own around it leave only the face to compare.
    picture = jnp.where(seen[..., None], picture, prediction.image)
    return perceptual_loss(
        picture,
        prediction.image,
        prediction.batch["landmarks"],
        features=prediction.features,
        chip=prediction.chip,
        weights=prediction.batch["landmark_weights"],
    )


def regularization(prediction: Prediction) -> Float[Array, "B"]:
    """Squared coefficients in standard deviations (identity 1, expression 0.8, albedo 0.017)."""
    coefficients = prediction.coefficients
    expression = standard_expression(prediction.model, coefficients.expression)
    return coefficient_regularization(coefficients.identity, expression, coefficients.albedo)


def light(prediction: Prediction) -> Float[Array, "B"]:
    """The light's departure from white, as in Deep3D."""
    return light_regularization(prediction.coefficients.light)


def reflectance(prediction: Prediction) -> Float[Array, "B"]:
    """Variance of the skin's albedo, as in Deep3D."""
    return reflectance_loss(prediction.face.albedo[:, prediction.model.parts["skin"]])


def reprojection(prediction: Prediction) -> Float[Array, "B"]:
    """Mean distance of image points to the true ones, px at 224 x 224, per part and then over the parts.

    Image points and the shape before the pose, rather than posed vertices: in an aligned crop the distance from the
    camera hardly shows, and its errors (tens of mm) would drown all others.
    """
    offsets = prediction.face.points - prediction.truth.points
    offsets = offsets * (CROP_SIZE / prediction.camera.image_size[1])
    # Part by part, since a brow has a fiftieth of the skin's vertices.
    means = [_mean_distance(offsets[:, prediction.model.parts[part]]) for part in parts.PARTS]
    return prediction.known * jnp.stack(means).mean(0)


def shape(prediction: Prediction) -> Float[Array, "B"]:
    """Mean distance of vertices before the pose to the true ones in mm."""
    return prediction.known * _mean_distance(MM_PER_UNIT * (prediction.face.shape - prediction.truth.shape))


def color(prediction: Prediction) -> Float[Array, "B"]:
    """Mean distance of every fourth vertex's shaded colour to the true one.

    Both on the mean face in the true pose: its normals are the same for all, and no gradient goes through them. Colours
    change slowly over the face: every fourth vertex tells them.
    """
    model, true_coefficients = prediction.model, prediction.true_coefficients
    normals = face_models.vertex_normals(model.mean_shape, model.triangles)[::4]
    turned = jnp.einsum("bij,vj->bvi", cameras.rotation_matrix(true_coefficients.angles), normals)
    predicted = lighting.shade(prediction.face.albedo[:, ::4], turned, prediction.coefficients.light)
    target = lighting.shade(prediction.truth.albedo[:, ::4], turned, true_coefficients.light)
    return prediction.known * _mean_distance(predicted - target)


def _mean_distance(offsets: Float[Array, "B V D"]) -> Float[Array, "B"]:
    # Axis by axis: a sum over the short last axis is slow on CPU.
    squared = sum((jnp.square(offsets[..., axis]) for axis in range(offsets.shape[-1])), start=jnp.zeros(()))
    return jnp.sqrt(squared + 1e-6).mean(-1)  # smooth at zero, where the distance itself has no gradient


TERMS: dict[str, Term] = {
    "prdl": Term(prdl, weight=4e-3),
    "prdl_vertices": Term(prdl_vertices),
    "prdl_paper": Term(prdl_paper),
    "landmark": Term(landmark, weight=1.6e-3),
    "photometric": Term(photometric, weight=1.9),
    "perceptual": Term(perceptual, weight=0.2),
    "regularization": Term(regularization, weight=3e-4),
    "light": Term(light, weight=10.0),
    "reflectance": Term(reflectance, weight=5.0),
    "reprojection": Term(reprojection),
    "shape": Term(shape),
    "color": Term(color),
}
"""The terms by their names, with the paper's weights; `light` and `reflectance` are Deep3D's.

PRDL on pixels is another quantity than the paper's: its weight makes it pull about as hard on a face some pixels off.
"""
