"""The fit with one of its pieces left out or exchanged for another."""

import contextlib
import dataclasses
from collections.abc import Iterator
from unittest import mock

import jax.numpy as jnp
import numpy as np

from jaxface.core import parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import column_mask, vector_columns
from jaxface.fitting import Fit, FitWeights, Prior, descent, evidence_for, fit_faces, people_prior
from jaxface.fitting.first_look import EXPRESSION_DOUBT, FirstLook, onlooker_for
from jaxface.losses import grid_anchors, prdl_loss
from jaxface.losses.faces import comparable_areas
from jaxface.losses.pixel_prdl import ANCHOR_STRIDE
from jaxface.photos.parsing import FIT_PARSER
from jaxface.render import visible_areas

NEXT_TO_NOTHING = 1e-6
"""Weight of points that are left out: with none at all, a picture counts as one without a face."""

WIDE = 30.0
"""Times the deviation of people, where they are left out: the bounds of three deviations are still there."""

VERTEX_WEIGHT = 0.8e-3
"""The paper's own, of PRDL on vertices, which counts squared pixels, beside colours that weigh 1.9 as in the fit."""

VERTEX_STRIDES = {"all": 16, "seen": 17}
"""Its anchors lie on every so many pixels, which is as good as all (experiments/prdl_ablation); programs go by them."""

USUAL = FitWeights()


@dataclasses.dataclass(frozen=True)
class Variant:
    """A line of the table.

    Attributes:
        title: of the line.
        weights: of the losses.
        labels: whose parts: a parser's, or "true".
        vertices: PRDL on vertices instead of pixels: "all", hidden or not, as in 3DDFA-V3, eq. 5 to 7, or "seen", each
            by the area that is seen around it; "" on pixels.
        look: of the network's first look "all", "points", "answer", or "none".
        points: whether the detector's points count.
        people: whether their prior does.
        recognition: whether the recognition network takes part.
        steps: of the descent on parts and colours.
    """

    title: str
    weights: FitWeights = USUAL
    labels: str = FIT_PARSER
    vertices: str = ""
    look: str = "all"
    points: bool = True
    people: bool = True
    recognition: bool = True
    steps: int = 80


EVIDENCE = {
    "the first look": {"look": "none"},
    "its answer": {"look": "points"},
    "its points": {"look": "answer"},
    "the detector's points": {"points": False},
    "the people's prior": {"people": False},
}
"""What an estimate is made of: what is left out, and how."""


def variants() -> list[Variant]:
    """The estimate from points and priors, without each of them; then the fit, without each of its pieces."""
    other = "jaxface" if FIT_PARSER == "mediapipe" else "mediapipe"
    names = {"jaxface": "parts by the network that ships", "mediapipe": "parts by MediaPipe's outlines"}
    without = dataclasses.replace
    still = without(USUAL, prdl=0.0, photometric=0.0, perceptual=0.0)
    estimate = Variant("estimate", still, recognition=False, steps=1)  # a step with nothing to go to
    return [
        estimate,
        *(without(estimate, title=f"estimate without {title}", **left) for title, left in EVIDENCE.items()),
        Variant("fit"),
        Variant("without PRDL", without(USUAL, prdl=0.0)),
        Variant(names[other], labels=other),
        Variant("true parts", labels="true"),
        Variant("PRDL on all vertices, as in the paper", without(USUAL, prdl=VERTEX_WEIGHT), vertices="all"),
        Variant("PRDL on seen vertices", without(USUAL, prdl=VERTEX_WEIGHT), vertices="seen"),
        Variant("without colours", without(USUAL, photometric=0.0)),
        Variant("without recognition", without(USUAL, perceptual=0.0)),
        *(Variant(f"without {title}", **left) for title, left in EVIDENCE.items()),
    ]


def fit_batch(model, batch: dict[str, np.ndarray], variant: Variant, recognizer) -> Fit:
    """A batch of samples, with the label maps of other parsers beside them, fitted by a variant."""
    batch = dict(batch)
    if variant.labels != FIT_PARSER:
        batch["labels"] = batch[f"{variant.labels}_labels"]
    if not variant.points:
        batch["point_weights"] = NEXT_TO_NOTHING * batch["point_weights"]
    prior, onlooker = people_prior(model), onlooker_for(model)
    if not variant.people:
        widened = np.where(column_mask(model, "identity"), WIDE, 1.0)
        prior = dataclasses.replace(prior, deviation=prior.deviation * widened.astype(np.float32))
    look = None
    if variant.look != "none" and onlooker is not None:
        look = part_of_look(onlooker(batch["image"], batch["landmarks"]), variant.look, model, prior)
    with _vertex_prdl(variant.vertices) if variant.vertices else contextlib.nullcontext():
        return fit_faces(
            model,
            batch,
            Camera(),
            prior,
            evidence=evidence_for(model, dense=True),
            recognizer=recognizer if variant.recognition else None,
            weights=variant.weights,
            steps=variant.steps,
            look=look,
            anchor_stride=VERTEX_STRIDES.get(variant.vertices, ANCHOR_STRIDE),
        )


def part_of_look(look: FirstLook, which: str, model, prior: Prior) -> FirstLook:
    """What of a look is left: its points without the answer, or the answer without the points."""
    if which == "answer":
        return dataclasses.replace(look, weight=jnp.zeros_like(look.weight))
    if which == "all":
        return look
    deviation = np.where(np.isfinite(prior.deviation), prior.deviation, 1.0)
    columns = vector_columns(model)["expression"]
    deviation[columns] /= EXPRESSION_DOUBT  # by which the fit multiplies it
    own = column_mask(model, "identity", "expression")
    vectors = jnp.where(own[None], 0.0, look.vectors)
    return dataclasses.replace(look, vectors=vectors, deviations=jnp.broadcast_to(deviation, look.deviations.shape))


@contextlib.contextmanager
def _vertex_prdl(which: str) -> Iterator[None]:
    """Lets the descent compare vertices in place of pixels; its anchors' stride, another one, makes it compile anew."""

    def targets(labels, *, anchor_stride):
        return labels

    def loss(model, face, labels, *, hidden=None, fragments=None, weights=None):
        points = {part: face.points[:, model.parts[part]] for part in parts.PARTS}
        masks, areas = parts.part_masks(labels), None
        if which == "seen":
            seen = visible_areas(face.points, face.depth, model.triangles, image_size=labels.shape[1:])
            cut = masks["left_brow"].any((1, 2)) & masks["right_brow"].any((1, 2))
            areas = comparable_areas(points, {part: seen[:, model.parts[part]] for part in parts.PARTS}, cut)
        anchors = grid_anchors(*labels.shape[1:], stride=VERTEX_STRIDES[which])
        return prdl_loss(points, masks, anchors=anchors, point_masks=areas, weights=weights)

    with mock.patch.object(descent, "part_targets", targets), mock.patch.object(descent, "part_loss", loss):
        yield
