"""Random faces, their exact label maps as PRDL's targets, and the residuals under each form of the weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxface
from jaxface.core import parts
from jaxface.losses import prdl
from jaxface.render import (
    label_triangles,
    projected_areas,
    render_labels,
    visible_areas,
)
from jaxface.synthetic.random_faces import aligned_translation, random_coefficients

SIZE = 224
STRIDE = 16
FORMS = {
    "all": "all vertices alike, hidden ones included (3DDFA-V3)",
    "visible": "visible vertices alike (exact)",
    "area": "area of front-facing triangles",
    "area, exact": "area and exact visibility",
    "area, coarse": "area and coarse visibility",
    "area, coarse, cut": "the same, and the forehead cut at the weighted centroids of the brows",
    "pixels": "no vertices: the mesh is drawn, pixels are compared with pixels",
}
DEGREES = 180 / np.pi


def random_faces(model, yaw: float, count: int, *, seed: int = 0) -> jaxface.Coefficients:
    """Random people as in synthetic training data, turned by `yaw` degrees to either side in turn."""
    return _random_faces(model, jnp.float32(yaw), count, seed)


@functools.partial(jax.jit, static_argnames=("count", "seed"))
def _random_faces(model, yaw, count: int, seed: int):
    keys = jax.random.split(jax.random.key(seed), count)
    coefficients = random_coefficients(keys, model)
    sides = jnp.where(jnp.arange(count) % 2 == 0, 1.0, -1.0)
    coefficients = coefficients.replace(angles=coefficients.angles.at[:, 1].set(sides * yaw / DEGREES))
    scale = jnp.exp(0.05 * jax.random.normal(jax.random.key(seed + 1), (count,)))
    shift = 4 * jax.random.normal(jax.random.key(seed + 2), (count, 2))
    translation = aligned_translation(model, coefficients, scale=scale, shift=shift)
    return coefficients.replace(translation=translation)


@functools.partial(jax.jit, static_argnames="size")
def decode(model, coefficients, size: int = SIZE):
    """Image points [B, V, 2] in px, depth [B, V] and the shape before the pose [B, V, 3]."""
    face = jaxface.decode_face(model, coefficients, jaxface.Camera().resized(size))
    return face.points, face.depth, face.shape


def part_weights(model, points, depth, *, form: str, size: int = SIZE):
    """Weights of every part's vertices in a form that has some; the forehead is cut as in `vertex_part_loss`."""
    if form == "all":
        weights = jnp.ones(depth.shape)
    elif form == "visible":
        weights = visible_areas(points, depth, model.triangles, image_size=size, occlusion="exact") > 0
    elif form == "area":
        weights = projected_areas(points, model.triangles)
    else:
        occlusion = "exact" if form == "area, exact" else "coarse"
        weights = visible_areas(points, depth, model.triangles, image_size=size, occlusion=occlusion)
    return _cut_forehead(model, points, weights, weighted=form.endswith("cut"))


@functools.partial(jax.jit, static_argnames="weighted")
def _cut_forehead(model, points, weights, *, weighted: bool):
    split = {part: weights[:, model.parts[part]].astype(jnp.float32) for part in parts.PARTS}
    centroids = []
    for brow in ("left_brow", "right_brow"):
        counted = split[brow] if weighted else jnp.ones_like(split[brow])
        share = counted / jnp.maximum(counted.sum(-1, keepdims=True), 1e-6)
        centroids.append((share[..., None] * points[:, model.parts[brow]]).sum(1))
    # Every target shows both brows (`Faces` makes sure), so all are cut.
    split["skin"] *= parts.below_brows(points[:, model.parts["skin"]], *centroids)
    return split


@jax.jit
def describe(model, points, weights):
    """Descriptors [B, P, A, 3] of a face's parts."""
    anchors = prdl.grid_anchors(SIZE, SIZE, STRIDE)
    describe_part = jax.vmap(lambda points, weights: prdl.point_descriptor(points, anchors, weights))
    return jnp.stack([describe_part(points[:, model.parts[part]], weights[part]) for part in parts.PARTS], axis=1)


@jax.jit
def draw_targets(model, points, depth, triangle_labels):
    """Descriptors [B, P, A, 3] of the exact label maps with the forehead cut, and which parts they show [B, P]."""
    anchors = prdl.grid_anchors(SIZE, SIZE, STRIDE)
    masks = parts.part_masks(render_labels(points, depth, model.triangles, triangle_labels, image_size=SIZE))
    stacked = jnp.stack([masks[part] for part in parts.PARTS], axis=1)
    return jax.vmap(jax.vmap(lambda mask: prdl.mask_descriptor(mask, anchors)))(stacked), stacked.any((2, 3))


class Faces:
    """Random faces at one yaw, and their targets."""

    def __init__(self, model, yaw: float, count: int):
        self.model = model
        self.coefficients = random_faces(model, yaw, count)
        self.points, self.depth, self.shape = decode(model, self.coefficients)
        labels = label_triangles(model.parts, model.triangles)
        self.target, self.present = draw_targets(model, self.points, self.depth, jnp.asarray(labels))
        brows = [parts.PARTS.index(part) for part in ("left_brow", "right_brow")]
        if not np.all(self.present[:, np.array(brows)]):
            raise ValueError("a brow is hidden altogether")

    def place(self, kind: str, shift):
        """Points and depth after a shift [B, K] from the truth."""
        if kind == "translation":
            return self.points + shift[:, None], self.depth
        turned = self.coefficients.replace(angles=self.coefficients.angles + shift)
        return decode(self.model, turned)[:2]

    def weights(self, form: str, points, depth):
        """Weights of the parts' vertices."""
        return part_weights(self.model, points, depth, form=form)

    def residuals(self, points, weights):
        """[B, P, A, 3] what PRDL squares and averages over the anchors, px."""
        return _residuals(self.model, points, weights, self.target, self.present)


@jax.jit
def _residuals(model, points, weights, target, present):
    return jnp.where(present[:, :, None, None], describe(model, points, weights) - target, 0.0)
