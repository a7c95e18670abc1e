"""One eyebrow, its displaced targets, and the gradients of every loss between the two."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import jaxface
from jaxface.core.parts import LABELS
from jaxface.losses import pixel_prdl, pixel_prdl_loss, pixel_targets, prdl
from jaxface.render import rasterize, soft_silhouette

SIZE = 224
SCENES = {"overlapping": 3.0, "apart": 32.0}  # displacements of the target in px, as the figure shows them
DIRECTION = np.array([0.6, -0.8], np.float32)  # outwards and up, y down
SIGMAS = (1e-5, 1e-4, 1e-3)  # SoftRas's usual range, and ten times softer than that
NAMES = {"min": "f_min", "max": "f_max", "mean": "f_ave"}
PIXEL_FORMS: Mapping[str, tuple[Mapping[str, float], float | None]] = {
    "pixels: signed, all alike": ({"signed": 1.0}, None),
    "pixels: signed, near": ({"signed": 1.0}, pixel_prdl.NEAR),
    "pixels: mean": ({"mean": 1.0}, pixel_prdl.NEAR),
    "pixels: PRDL (default)": (pixel_prdl.STATISTICS, pixel_prdl.NEAR),
}
"""Title -> statistics and `near` of PRDL on pixels."""


def brow() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image points [N, 2] in px, depth [N] and triangles [T, 3] of the mean face's left brow."""
    model = jaxface.load_face_model("anny")
    face = jaxface.decode_face(model, jaxface.Coefficients.zeros(model, 1), jaxface.Camera())
    vertices = np.asarray(model.parts["left_brow"])
    new_index = np.full(face.points.shape[1], -1)
    new_index[vertices] = np.arange(len(vertices))
    triangles = new_index[np.asarray(model.triangles)]
    triangles = triangles[(triangles >= 0).all(1)].astype(np.int32)
    return np.asarray(face.points[0])[vertices], np.asarray(face.depth[0])[vertices], triangles


class Brow:
    """A predicted brow that stays where it is, targets displaced from it, and the gradients between the two.

    Attributes:
        points: [N, 2] vertices of the predicted brow, px.
        triangles: [T, 3] of the brow.
        anchors: [A, 2] px.
    """

    def __init__(self, stride: int):
        self.points, self._depth, self.triangles = brow()
        self.anchors = prdl.grid_anchors(SIZE, SIZE, stride)
        self._gradient = jax.jit(jax.grad(self._energy))
        self._loss_gradient = jax.jit(jax.grad(self._prdl_loss))
        self._residuals = jax.jit(lambda target: prdl.point_descriptor(self.points, self.anchors) - target)
        self._describe = jax.jit(lambda mask: prdl.mask_descriptor(mask, self.anchors))
        self._iou_gradients = {
            sigma: jax.jit(jax.grad(lambda points, mask, sigma=sigma: self._iou_loss(points, mask, sigma)))
            for sigma in SIGMAS
        }
        self._pixel_gradients = {
            title: jax.jit(jax.grad(lambda points, mask, title=title: self._pixel_loss(points, mask, title)))
            for title in PIXEL_FORMS
        }

    def mask(self, displacement: float) -> np.ndarray:
        """[SIZE, SIZE] pixels of the same brow, `displacement` px away."""
        points = jnp.asarray(self.points + displacement * DIRECTION)
        return np.asarray(rasterize(points, self._depth, self.triangles, image_size=SIZE).triangle >= 0)

    def anchors_inside(self, mask: np.ndarray) -> np.ndarray:
        """[A] which anchors are pixels of the mask."""
        columns, rows = np.floor(self.anchors).astype(int).T
        return mask[rows, columns]

    def target(self, mask: np.ndarray) -> jax.Array:
        """[A, 3] the mask's descriptor."""
        return self._describe(jnp.asarray(mask))

    def gradient(self, target: jax.Array, anchor_weights: np.ndarray, statistics: Sequence[str]) -> np.ndarray:
        """[N, 2] dE/dv of PRDL with a weight per anchor [A] (1: the mean over all anchors), in px."""
        chosen = np.isin(prdl.STATISTICS, statistics)
        weights = (anchor_weights[:, None] * chosen[None]).astype(np.float32)
        return np.asarray(self._gradient(self.points, target, weights))

    def loss_gradient(self, target: jax.Array) -> np.ndarray:
        """[N, 2] the same for all anchors and statistics, by the public loss."""
        return np.asarray(self._loss_gradient(self.points, target))

    def pull_per_anchor(self, target: jax.Array) -> np.ndarray:
        """[A, 3] norm of each anchor's own gradient, before anything cancels (eq. 11), px / A.

        2 |d_pred - d_target| on one vertex for f_min and f_max; for f_ave shared by all N vertices, a unit vector / N
        each.
        """
        share = np.array([1.0, 1.0, 1.0 / np.sqrt(len(self.points))])
        return 2 * np.abs(np.asarray(self._residuals(target))) * share / len(self.anchors)

    def iou_gradient(self, mask: np.ndarray, sigma: float) -> np.ndarray:
        """[N, 2] dE/dv of SoftRas's IoU loss, 1 / px."""
        return np.asarray(self._iou_gradients[sigma](self.points, jnp.asarray(mask, jnp.float32)))

    def pixel_gradient(self, mask: np.ndarray, title: str) -> np.ndarray:
        """[N, 2] dE/dv of PRDL on pixels in one of PIXEL_FORMS, the brow drawn of all its triangles and of no others.

        Its anchors are those of training and fit, every third pixel.
        """
        return np.asarray(self._pixel_gradients[title](self.points, jnp.asarray(mask)))

    def _energy(self, points, target, weights):
        descriptor = prdl.point_descriptor(points, self.anchors)
        return jnp.sum(weights * jnp.square(descriptor - target)) / len(self.anchors)

    def _prdl_loss(self, points, target):
        return prdl.prdl_loss({"brow": points[None]}, {"brow": target[None]}, anchors=self.anchors)[0]

    def _pixel_loss(self, points, mask, title):
        statistics, near = PIXEL_FORMS[title]
        labels = np.full(len(self.triangles), LABELS["left_brow"], np.uint8)
        targets = pixel_targets({"left_brow": mask[None]})
        form = {"statistics": statistics, "near": near}
        return pixel_prdl_loss(points[None], self._depth[None], self.triangles, labels, targets, **form)[0]

    def _iou_loss(self, points, mask, sigma):
        drawn = soft_silhouette(points, self.triangles, image_size=SIZE, sigma=sigma)
        return 1 - jnp.sum(drawn * mask) / jnp.sum(drawn + mask - drawn * mask)


def fields(scene: Brow, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients [N, 2] of everything that is compared, by title."""
    target, everywhere = scene.target(mask), np.ones(len(scene.anchors), np.float32)
    found = {NAMES[name]: scene.gradient(target, everywhere, [name]) for name in prdl.STATISTICS}
    found["PRDL: all three"] = scene.gradient(target, everywhere, prdl.STATISTICS)
    found |= {title: scene.pixel_gradient(mask, title) for title in PIXEL_FORMS}
    return found | {f"SoftRas IoU, sigma {sigma:g}": scene.iou_gradient(mask, sigma) for sigma in SIGMAS}


def direction_found(gradient: np.ndarray) -> float:
    """Cosine between the mean of -dE/dv over the vertices and the true displacement; 0 for no gradient."""
    mean = -gradient.mean(0)
    length = np.linalg.norm(mean)
    return float(mean @ DIRECTION / length) if length > 0 else 0.0
