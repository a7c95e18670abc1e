"""What a drawn person has besides the face model: the head around the face, hair, clothes, glasses.

All of it follows the face model's identity and expression. third_party/makehuman/build.py makes the file. Positions
are in the face model's frame and units (10 cm); texture coordinates are in one picture, the atlas, u right, v up.
"""

import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, UInt8
from PIL import Image

from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel, linear, vertex_normals
from jaxface.files.containers import read_arrays
from jaxface.render.cutouts import halve_texture

FORMAT = "jaxface people 1"
"""What the file says of itself in its entry `format`."""

PATH = Path(__file__).parent / "assets" / "people.npz"
"""The file for the built-in face model "anny"."""

SLOTS = ("hair", "brows", "lashes", "hat", "clothes", "glasses", "lenses")
"""Where something can be worn. The same style of "glasses" and "lenses" belongs together."""

STILL = ("glasses", "lenses")
"""What does not move with the expression."""

SKIN_TONES = np.array(
    [
        [1.07, -1.29, 1.67],
        [0.94, -1.00, 1.16],
        [0.81, -0.63, 0.34],
        [0.67, -0.32, 0.27],
        [0.46, 0.28, 0.18],
        [-0.06, 0.89, 0.19],
        [-0.60, 0.29, 0.38],
        [-1.01, -0.73, -0.08],
        [-1.31, -1.65, -1.12],
        [-1.49, -1.79, -0.75],
    ],
    np.float32,
)
"""Lightness, warmth and redness, the first three albedo coefficients of the built-in face model, of ten skins from the
lightest to the darkest (third_party/anny/skin_tones.py): the Monk scale's steps, as skin rather than as lit paper."""

BRIM, BELOW_BRIM = 0.8, 0.03
"""A hat's brim is what lies further out than this share of its largest radius; hair stays that far below (10 cm)."""

FINGERPRINT_VERTICES, FINGERPRINT_TOLERANCE = 16, 5e-4
"""Vertices whose mean and directions tell the face model, and how far those may be off, in model units."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slot:
    """All styles of one slot, padded to the largest. Style 0 is "none": its triangles have no area.

    Vertex i of style k lies at sum_j weights[k, i, j] * rows[references[k, i, j]] + offsets[k, i], where rows are the
    positions of `People.mean` for a person.

    Attributes:
        names: K names of the styles; static.
        references: [K, N, 3] rows.
        weights: [K, N, 3].
        offsets: [K, N, 3] in model units.
        triangles: [K, T, 3], counter-clockwise from outside; the rest repeats vertex 0.
        uv: [K, N, 2] texture coordinates in the atlas.
    """

    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    references: Integer[Array | np.ndarray, "K N 3"]
    weights: Float[Array | np.ndarray, "K N 3"]
    offsets: Float[Array | np.ndarray, "K N 3"]
    triangles: Integer[Array | np.ndarray, "K T 3"]
    uv: Float[Array | np.ndarray, "K N 2"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class People:
    """What persons are dressed with. Its arrays form a JAX tree; pass it to jitted functions as an argument.

    Attributes:
        mean: [N, 3] rows that everything is bound to; the first H are the head around the face.
        identity_basis: [N, 3, Ki].
        expression_basis: [N, 3, Ke].
        head_triangles: [T, 3] of the head's H vertices, counter-clockwise from outside.
        head_covered: [H] whether a vertex lies under the face, a millimetre below its surface.
        head_inset: [H, 3] from there to the surface, in model units; zero elsewhere.
        head_mean_albedo: [H, 3]; at the face's rim it is the face model's, as is the next.
        head_albedo_basis: [H, 3, Ka].
        atlas: [S, S, 4] uint8. Hair, brows, lashes and glasses are grey, 0.5 on average: their colour is drawn.
        rim_face: [M] vertices of the face model near its rim.
        rim_head: [M, 3] vertices of the head beside them.
        rim_weights: [M, 3] how much of the heads' normals go into theirs; they add up to 1 on the rim.
        brims: [hats, 3] planes y = a x + b z + c of the hats' brims on the mean head; far above for "none".
        traits_mean: [5] traits of the mean face, see `traits.TRAITS`.
        traits_slopes: [Ki, 5] what each identity coefficient adds to them.
        half_atlas: [S/2, S/2, 4], the same for small pictures.
        skin_tones: [N, 3] the first three albedo coefficients of the skins that people are drawn with, see SKIN_TONES.
        slots: by name, see SLOTS.
    """

    mean: Float[Array | np.ndarray, "N 3"]
    identity_basis: Float[Array | np.ndarray, "N 3 Ki"]
    expression_basis: Float[Array | np.ndarray, "N 3 Ke"]
    head_triangles: Integer[Array | np.ndarray, "T 3"]
    head_covered: Bool[Array | np.ndarray, "H"]
    head_inset: Float[Array | np.ndarray, "H 3"]
    head_mean_albedo: Float[Array | np.ndarray, "H 3"]
    head_albedo_basis: Float[Array | np.ndarray, "H 3 Ka"]
    atlas: UInt8[Array | np.ndarray, "S S 4"]
    half_atlas: UInt8[Array | np.ndarray, "S/2 S/2 4"]
    rim_face: Integer[Array | np.ndarray, "M"]
    rim_head: Integer[Array | np.ndarray, "M 3"]
    rim_weights: Float[Array | np.ndarray, "M 3"]
    brims: Float[Array | np.ndarray, "K 3"]
    traits_mean: Float[Array | np.ndarray, "5"]
    traits_slopes: Float[Array | np.ndarray, "Ki 5"]
    slots: Mapping[str, Slot]
    skin_tones: Float[Array | np.ndarray, "N 3"] = dataclasses.field(default_factory=SKIN_TONES.copy)


FACE_FRONT, FACE_HALF_WIDTH, FALL = -0.3, 0.5, 6.0
"""Hair hangs into the face before this z and within this |x|, in model units; how steeply it may fall beside that."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Soup:
    """Loose triangles with a picture.

    Attributes:
        corners: [B, T, 3, 3] positions in the face model's frame, before the pose, in model units.
        uv: [B, T, 3, 2] texture coordinates in the atlas.
        slot: [T] index into SLOTS.
    """

    corners: Float[Array, "B T 3 3"]
    uv: Float[Array, "B T 3 2"]
    slot: Integer[np.ndarray | Array, "T"]


def place_head(
    people: People, identity: Float[Array, "B Ki"], expression: Float[Array, "B Ke"]
) -> Float[Array, "B H 3"]:
    """Positions of the head around the face, in the face model's frame before the pose, in model units."""
    count = people.head_covered.shape[0]
    neutral = linear(people.mean[:count], people.identity_basis[:count], identity)
    return linear(neutral, people.expression_basis[:count], expression)


def joined_normals(
    people: People, face_normals: Float[Array, "B V 3"], head: Float[Array, "B H 3"]
) -> tuple[Float[Array, "B V 3"], Float[Array, "B H 3"]]:
    """Unit normals of the face and of the head around it that agree at the face's rim, so that no seam is seen there.

    Args:
        people: from `load_people`.
        face_normals: normals of the face model's vertices.
        head: positions from `place_head`; its normals are computed as if it did not dip under the face.

    Returns:
        Normals [B, V, 3] of the face, changed near its rim alone, and normals [B, H, 3] of the head.
    """
    head_normals = vertex_normals(head + jnp.asarray(people.head_inset)[None], people.head_triangles)
    weights = jnp.asarray(people.rim_weights)
    beside = jnp.sum(weights[None, :, :, None] * head_normals[:, people.rim_head], axis=2)
    own = face_normals[:, people.rim_face] * (1 - weights.sum(1))[None, :, None]
    mixed = (own + beside) / jnp.linalg.norm(own + beside, axis=-1, keepdims=True)
    return face_normals.at[:, people.rim_face].set(mixed), head_normals


def head_albedo(people: People, albedo: Float[Array, "B Ka"]) -> Float[Array, "B H 3"]:
    """Colours of the head around the face without light, about [0, 1], not clipped."""
    return linear(people.head_mean_albedo, people.head_albedo_basis, albedo)


def wear(
    people: People,
    styles: Mapping[str, Integer[Array, "B"]],
    identity: Float[Array, "B Ki"],
    expression: Float[Array, "B Ke"],
    *,
    fringe: Float[Array, "B 2"] | None = None,
) -> Soup:
    """What persons wear, as loose triangles; as many for each as the largest style of each slot has.

    Args:
        people: from `load_people`.
        styles: index of the style per slot, 0 for none; a slot that is not named has no triangles at all.
        identity: coefficients of the face model.
        expression: likewise.
        fringe: height and slope of the line over the eyes down to which hair hangs into the face, in model units; by
            default it hangs as its style has it.

    Returns:
        The triangles of the slots in the order of SLOTS; those that a style lacks have no area, nor has hair in a hat:
        what would stick out of it is pressed down to its brim.
    """
    rows = linear(linear(people.mean, people.identity_basis, identity), people.expression_basis, expression)
    worn = [(index, people.slots[slot], styles[slot]) for index, slot in enumerate(SLOTS) if slot in styles]
    corners = [jax.vmap(_corners, in_axes=(None, 0, 0))(slot, style, rows) for _, slot, style in worn]
    if "hair" in styles and fringe is not None:
        corners[0] = _out_of_the_face(corners[0], fringe)  # hair comes first
    if "hair" in styles and "hat" in styles:
        corners[0] = _under_the_brim(corners[0], jnp.asarray(people.brims)[styles["hat"]])
    uv = [jax.vmap(_corner_uv, in_axes=(None, 0))(slot, style) for _, slot, style in worn]
    index = np.concatenate([np.full(slot.triangles.shape[1], i, np.int32) for i, slot, _ in worn])
    return Soup(jnp.concatenate(corners, 1), jnp.concatenate(uv, 1), index)


def _corners(slot: Slot, style: Integer[Array, ""], rows: Float[Array, "N 3"]) -> Float[Array, "T 3 3"]:
    references, weights = (jnp.asarray(array)[style] for array in (slot.references, slot.weights))
    points = jnp.sum(weights[..., None] * rows[references], axis=1) + jnp.asarray(slot.offsets)[style]
    return points[jnp.asarray(slot.triangles)[style]]


def _under_the_brim(corners: Float[Array, "B T 3 3"], plane: Float[Array, "B 3"]) -> Float[Array, "B T 3 3"]:
    """Triangles pressed down to a plane y = a x + b z + c; those wholly above it lose their area."""
    a, b, c = (plane[:, i, None, None] for i in range(3))
    height = a * corners[..., 0] + b * corners[..., 2] + c
    return _moved_to(corners, height, corners[..., 1] > height)


def _out_of_the_face(corners: Float[Array, "B T 3 3"], fringe: Float[Array, "B 2"]) -> Float[Array, "B T 3 3"]:
    """Hair before the face, lifted to an arch over the eyes; triangles that are wholly below it lose their area."""
    x, y, z = (corners[..., axis] for axis in range(3))
    height, slope = (fringe[:, i, None, None] for i in range(2))
    arch = height + slope * x - FALL * jnp.maximum(jnp.abs(x) - FACE_HALF_WIDTH, 0.0)
    return _moved_to(corners, arch, (y < arch) & (z > FACE_FRONT))


def _moved_to(
    corners: Float[Array, "B T 3 3"], height: Float[Array, "B T 3"], beyond: Bool[Array, "B T 3"]
) -> Float[Array, "B T 3 3"]:
    """Corners that are beyond a height moved up or down to it; triangles all of whose corners are lose their area."""
    moved = corners.at[..., 1].set(jnp.where(beyond, height, corners[..., 1]))
    return jnp.where(jnp.all(beyond, axis=-1)[..., None, None], moved[:, :, :1], moved)


def _corner_uv(slot: Slot, style: Integer[Array, ""]) -> Float[Array, "T 3 2"]:
    return jnp.asarray(slot.uv)[style][jnp.asarray(slot.triangles)[style]]


def fingerprint(model: FaceModel) -> dict[str, np.ndarray]:
    """By which the file knows the face model that it was built for: some rows of its mean shape and bases."""
    chosen = np.linspace(0, len(model.mean_shape) - 1, FINGERPRINT_VERTICES).astype(int)
    return {
        "fingerprint/sizes": np.array([*model.identity_basis.shape, *model.expression_basis.shape], np.int32),
        **{
            f"fingerprint/{name}": np.asarray(getattr(model, name))[chosen].astype(np.float32)
            for name in ("mean_shape", "identity_basis", "expression_basis")
        },
    }


def load_people(model: FaceModel, path: str | os.PathLike[str] = PATH) -> People:
    """Reads the people of a face model into NumPy arrays.

    Raises:
        InputError: when the file is missing or damaged, or was built for another face model.
    """
    arrays = _arrays(path)
    if difference := _difference(arrays, model):
        raise InputError(
            f"{path} was built for another face model than {model.name!r}: their {difference}; "
            "build it anew (third_party/makehuman/README.md)"
        )
    return _checked(arrays, path)


def find_people(model: FaceModel) -> People | None:
    """The people of the built-in face model; None for another one, which has none."""
    arrays = _arrays(PATH)
    return None if _difference(arrays, model) else _checked(arrays, PATH)


def _checked(arrays: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> People:
    try:
        return _people(arrays)
    except (KeyError, ValueError, IndexError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); copy or build it again") from error


def _arrays(path: str | os.PathLike[str]) -> Mapping[str, np.ndarray]:
    arrays = read_arrays(path)
    if str(arrays.get("format", "")) != FORMAT:
        raise InputError(f"{path} is not a file of people of jaxface: it has no entry 'format' that says {FORMAT!r}")
    return arrays


def _difference(arrays: Mapping[str, np.ndarray], model: FaceModel) -> str:
    """What tells a face model from that which the file was built for; empty if nothing does."""
    for key, own in fingerprint(model).items():
        name, other = key.removeprefix("fingerprint/").replace("_", " "), arrays.get(key)
        if other is None or other.shape != own.shape:
            return f"{name} have other shapes"
        if not np.allclose(other, own, rtol=0, atol=FINGERPRINT_TOLERANCE):
            return f"{name} differ"
    return ""


def _people(arrays: Mapping[str, np.ndarray]) -> People:
    def values(name: str) -> Float[np.ndarray, "..."]:
        return arrays[name].astype(np.float32) * arrays[f"step/{name}"]

    mean, slots = values("mean"), {name: _slot(arrays, name) for name in SLOTS}
    atlas = _picture(arrays["atlas/webp"])
    return People(
        mean=mean,
        identity_basis=values("identity"),
        expression_basis=values("expression"),
        head_triangles=arrays["head/triangles"].astype(np.int32),
        head_covered=arrays["head/covered"].astype(bool),
        head_inset=arrays["head/inset"].astype(np.float32),
        head_mean_albedo=values("mean_albedo"),
        head_albedo_basis=values("albedo_basis"),
        atlas=atlas,
        half_atlas=np.asarray(halve_texture(atlas)),
        rim_face=arrays["rim/face"].astype(np.int32),
        rim_head=arrays["rim/head"].astype(np.int32),
        rim_weights=arrays["rim/weights"].astype(np.float32),
        brims=_brims(slots["hat"], mean),
        traits_mean=arrays["traits/mean"].astype(np.float32),
        traits_slopes=arrays["traits/slopes"].astype(np.float32),
        slots=slots,
    )


def _picture(data: np.ndarray) -> UInt8[np.ndarray, "H W 4"]:
    return np.asarray(Image.open(io.BytesIO(data.tobytes())).convert("RGBA"))


def _slot(arrays: Mapping[str, np.ndarray], name: str) -> Slot:
    vertices, sizes = arrays[f"{name}/vertices"], arrays[f"{name}/sizes"]

    def padded(key: str, counts: np.ndarray) -> np.ndarray:
        """[1 + styles, most, ...], where style 0 is empty."""
        array = arrays[f"{name}/{key}"]
        result = np.zeros((len(counts) + 1, counts.max(), *array.shape[1:]), array.dtype)
        for style, part in enumerate(np.split(array, np.cumsum(counts)[:-1])):
            result[style + 1, : len(part)] = part
        return result

    return Slot(
        names=("none", *map(str, arrays[f"{name}/names"])),
        references=padded("references", vertices).astype(np.int32),
        weights=padded("weights", vertices).astype(np.float32) * arrays["step/weights"],
        offsets=padded("offsets", vertices).astype(np.float32) * arrays["step/offsets"],
        triangles=padded("triangles", sizes).astype(np.int32),
        uv=padded("uv", vertices).astype(np.float32) / np.float32(65535),
    )


def _brims(hats: Slot, mean: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "K 3"]:
    """Planes through the brims of the hats, a little lower."""
    crowns = np.sum(hats.weights[..., None] * mean[hats.references], axis=2) + hats.offsets
    planes = np.tile(np.array([0, 0, 100], np.float32), (len(crowns), 1))
    for hat in range(1, len(crowns)):
        points = crowns[hat][np.unique(hats.triangles[hat])]
        radius = np.linalg.norm((points - points.mean(0))[:, [0, 2]], axis=1)
        brim = points[radius > BRIM * radius.max()]
        sides = np.stack([brim[:, 0], brim[:, 2], np.ones(len(brim))], 1)
        planes[hat] = np.linalg.lstsq(sides, brim[:, 1], rcond=None)[0] - [0, 0, BELOW_BRIM]
    return planes
