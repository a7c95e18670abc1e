"""The terms of the training objective: each a function from a batch of predictions to a loss per sample.

A new one is a function like these and a line in TERMS; its weight is then `config.loss.<name>` (docs/extending.md).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from jaxface.core import cameras, face_models, lighting, parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, standard_expression, vector_sizes
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
from jaxface.losses.dense_points import class_loss, point_likelihood_loss, spread_loss, visibility_loss
from jaxface.losses.faces import marched_landmark_loss, part_loss, part_targets, vertex_part_loss
from jaxface.networks.people_answer import PeopleAnswer
from jaxface.render import View, render_face

# A pixel's weight by its class: about the root of how rare it is.
_RARE = {"left_eye": 4, "right_eye": 4, "left_brow": 3, "right_brow": 3, "nose": 1.5, "upper_lip": 3, "lower_lip": 3}
_RARE |= {"inner_mouth": 3, "glasses": 2.5, "beard": 1.5}
CLASS_WEIGHTS = np.array([_RARE.get(name, 1.0) for name in parts.CLASSES], np.float32)
"""Of the classes of `parts.CLASSES` in the term `labels`."""


SAMPLED_OF_PART, SAMPLED = 64, 1024
"""How many vertices of a part, and of all, tell a mean distance well enough: with all of them, decoding the faces would
be a third of a small network's step."""


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
        answer: what a `PeopleNetwork` says besides; None for other encoders.
    """

    model: FaceModel
    coefficients: Coefficients
    batch: Mapping[str, Array | np.ndarray]
    camera: Camera
    anchor_stride: int
    prdl_every: int
    features: Callable[[Float[Array, "B C C 3"]], Float[Array, "B F"]] | None
    chip: ChipTemplate
    answer: PeopleAnswer | None = None

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

    @property
    def more(self) -> PeopleAnswer:
        """What a `PeopleNetwork` says besides."""
        if self.answer is None or "classes" not in self.batch:
            raise ValueError(
                "labels, points, visibility and spread are for a network that tells parts and points, such as "
                "config.encoder.name = 'people18', and for drawn people, config.data.people = 'learned' or 'all'"
            )
        return self.answer

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
    hidden = hidden_pixels(batch["labels"], batch["landmarks"], batch["landmark_weights"])
    targets = part_targets(batch["labels"], anchor_stride=prediction.anchor_stride)
    if prediction.prdl_every == 1:  # the colours' terms draw the same
        return part_loss(prediction.model, prediction.face, targets, hidden=hidden, fragments=prediction.view.fragments)
    some = jax.tree.map(lambda array: array[every], prediction.coefficients)
    return part_loss(prediction.model, decode_face(prediction.model, some, prediction.camera), targets, hidden=hidden)


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
    # Part by part, since a brow has a fiftieth of the skin's vertices.
    samples = [_some(prediction.model.parts[part], SAMPLED_OF_PART) for part in parts.PARTS]
    model = face_models.shape_of_vertices(prediction.model, jnp.concatenate(samples))

    def points(coefficients: Coefficients) -> Float[Array, "B N 2"]:
        shape = face_models.shape(model, coefficients.identity, coefficients.expression)
        posed = cameras.pose(shape, coefficients.angles, coefficients.translation)
        return cameras.project(cameras.to_camera_space(posed, prediction.camera), prediction.camera)

    offsets = points(prediction.coefficients) - points(prediction.true_coefficients)
    offsets = offsets * (CROP_SIZE / prediction.camera.image_size[1])
    ends = np.cumsum([len(sample) for sample in samples])[:-1]
    return prediction.known * jnp.stack([_mean_distance(part) for part in jnp.split(offsets, ends, axis=1)]).mean(0)


def shape(prediction: Prediction) -> Float[Array, "B"]:
    """Mean distance of vertices before the pose to the true ones in mm."""
    count = len(prediction.model.mean_shape)
    model = face_models.shape_of_vertices(prediction.model, _some(np.arange(count), SAMPLED))
    both = (prediction.coefficients, prediction.true_coefficients)
    found, true = (face_models.shape(model, some.identity, some.expression) for some in both)
    return prediction.known * _mean_distance(MM_PER_UNIT * (found - true))


def color(prediction: Prediction) -> Float[Array, "B"]:
    """Mean distance of some vertices' shaded colours to the true ones.

    Both on the mean face in the true pose: its normals are the same for all, and no gradient goes through them. Colours
    change slowly over the face: some vertices tell them.
    """
    model, truth = prediction.model, prediction.true_coefficients
    chosen = _some(np.arange(len(model.mean_shape)), SAMPLED)
    normals = face_models.vertex_normals(model.mean_shape, model.triangles)[chosen]
    turned = jnp.einsum("bij,vj->bvi", cameras.rotation_matrix(truth.angles), normals)
    mean, basis = jnp.asarray(model.mean_albedo)[chosen], jnp.asarray(model.albedo_basis)[chosen]
    predicted, target = (
        lighting.shade(face_models.linear(mean, basis, some.albedo), turned, some.light)
        for some in (prediction.coefficients, truth)
    )
    return prediction.known * _mean_distance(predicted - target)


def labels(prediction: Prediction) -> Float[Array, "B"]:
    """Cross-entropy of the pixels' classes, in blocks of 2 x 2."""
    return class_loss(prediction.more.logits, prediction.batch["classes"], CLASS_WEIGHTS)


def points(prediction: Prediction) -> Float[Array, "B"]:
    """Negative log-likelihood of landmarks and surface points, and their mean distance in hundredths of the side."""
    found = prediction.more.points
    batch = (prediction.batch[name] for name in ("landmarks", "surface_points"))
    truth = jnp.concatenate([jnp.asarray(some) for some in batch], axis=1) / prediction.camera.image_size[1]
    likelihood = point_likelihood_loss(found.position, found.whitening, truth)
    return likelihood + 100 * _mean_distance(found.position - truth, smooth=1e-8)


def visibility(prediction: Prediction) -> Float[Array, "B"]:
    """Cross-entropy of what is seen of landmarks and surface points."""
    batch = (prediction.batch[name] for name in ("landmark_visible", "surface_visible"))
    return visibility_loss(prediction.more.points.visibility, jnp.concatenate([jnp.asarray(some) for some in batch], 1))


def spread(prediction: Prediction) -> Float[Array, "B"]:
    """Negative log-likelihood of the coefficients' errors under the spreads that the network tells, mean over groups.

    The errors are held fixed: other terms make them small, this one learns how large they are.
    """
    answer, model = prediction.more, prediction.model
    sizes = (*vector_sizes(model)[:5], 2, 1)
    error = jax.lax.stop_gradient(answer.vector - jnp.asarray(prediction.batch["coefficients"]))
    weights = 1 / (len(sizes) * np.repeat(sizes, sizes))
    return prediction.known * spread_loss(error, answer.log_spread, weights)


def coefficients(prediction: Prediction) -> Float[Array, "B"]:
    """Mean squared error of identity, expression, albedo and light (in fifths), of samples that know them."""
    found, truth = prediction.coefficients, prediction.true_coefficients
    expression = [standard_expression(prediction.model, some.expression) for some in (found, truth)]
    pairs = [(found.identity, truth.identity), (found.albedo, truth.albedo), (5 * found.light, 5 * truth.light)]
    errors = [jnp.square(one - other).reshape(len(one), -1).mean(-1) for one, other in [*pairs, tuple(expression)]]
    return prediction.known * jnp.stack(errors).mean(0)


def _some(vertices: Integer[Array | np.ndarray, "N"], enough: int) -> Integer[Array | np.ndarray, "M"]:
    """Every n-th of the vertices, at least `enough` of them if there are."""
    return vertices[:: max(1, len(vertices) // enough)]


def _mean_distance(offsets: Float[Array, "B V D"], smooth: float = 1e-6) -> Float[Array, "B"]:
    # Axis by axis: a sum over the short last axis is slow on CPU.
    squared = sum((jnp.square(offsets[..., axis]) for axis in range(offsets.shape[-1])), start=jnp.zeros(()))
    return jnp.sqrt(squared + smooth).mean(-1)  # smooth at zero, where the distance itself has no gradient


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
    "coefficients": Term(coefficients),
    "labels": Term(labels),
    "points": Term(points),
    "visibility": Term(visibility),
    "spread": Term(spread),
}
"""The terms by their names, with the paper's weights; `light` and `reflectance` are Deep3D's.

PRDL on pixels is another quantity than the paper's: its weight makes it pull about as hard on a face some pixels off.
"""
