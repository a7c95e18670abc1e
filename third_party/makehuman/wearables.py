"""What people wear, out of MakeHuman's proxies: cut off below the armpits, triangulated, with fewer triangles."""

import dataclasses

import numpy as np
from people_files import MakeHuman, Proxy
from reduce import reduce_mesh

ARMPITS = 4.25
"""Height in the base mesh's units below which nothing is drawn."""
HAIR_TRIANGLES, CLOTHES_TRIANGLES = 3000, 1600

HAIR = ("short01", "short02", "short03", "short04", "bob01", "bob02", "long01", "ponytail01", "Braid01", "afro01")
BROWS = tuple(f"eyebrow{i:03}" for i in range(1, 13))
LASHES = ("Eyelashes01", "eyelashes02", "eyelashes03", "eyelashes04")
HATS = {
    f"{hat}{color}": (hat, f"fedora_texture{color}")
    for hat in ("fedora", "fedora_cocked")
    for color in ("", "_black", "_grey")
}
CLOTHES = (
    *(f"male_casualsuit{i:02}" for i in range(1, 7)),
    "male_elegantsuit01",
    "male_worksuit01",
    "female_casualsuit01",
    "female_casualsuit02",
    "female_elegantsuit01",
    "female_sportsuit01",
)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A thing that is worn; vertex i lies at sum_k weights[i, k] * base[references[i, k]] + offsets[i].

    Attributes:
        slot: "hair", "brows", "lashes", "hat", "clothes", "glasses" or "lenses".
        name: of the style.
        references: [N, 3] vertices of the base mesh.
        weights: [N, 3].
        offsets: [N, 3] in the base mesh's unit.
        triangles: [T, 3], counter-clockwise from outside.
        uv: [N, 2] texture coordinates in its picture, v up.
        picture: [H, W, 4] uint8.
    """

    slot: str
    name: str
    references: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    picture: np.ndarray


def all_pieces(files: MakeHuman, base: np.ndarray) -> list[Piece]:
    """Everything that is worn, but the glasses. `base` [19158, 3] is the neutral base mesh."""
    pieces = [make_piece(files, base, "hair", "hair/" + name, HAIR_TRIANGLES) for name in HAIR]
    pieces += [make_piece(files, base, "brows", "eyebrows/" + name) for name in BROWS]
    pieces += [make_piece(files, base, "lashes", "eyelashes/" + name) for name in LASHES]
    for name, (shape, picture) in HATS.items():
        hat = make_piece(files, base, "hat", "clothes/" + shape)
        picture = files.image(f"proxies/clothes/{shape}/textures/{picture}.png")
        pieces.append(dataclasses.replace(hat, name=name, picture=picture))
    return pieces + [make_piece(files, base, "clothes", "clothes/" + name, CLOTHES_TRIANGLES) for name in CLOTHES]


def make_piece(files: MakeHuman, base: np.ndarray, slot: str, path: str, most: int = 10**6) -> Piece:
    """One proxy as a piece of at most about `most` triangles."""
    proxy = files.proxy(path)
    vertices, uv, triangles = _wedges(proxy)
    points = proxy.place(base)[vertices]
    triangles = triangles[(points[triangles, 1] > ARMPITS).any(1)]
    triangles = reduce_mesh(points, uv, triangles, most)
    used, triangles = np.unique(triangles, return_inverse=True)
    chosen = vertices[used]
    return Piece(
        slot=slot,
        name=path.split("/")[1].lower(),
        references=proxy.references[chosen],
        weights=proxy.weights[chosen],
        offsets=proxy.offsets[chosen],
        triangles=triangles.reshape(-1, 3),
        uv=np.clip(uv[used], 0, 1),
        picture=files.image(proxy.image),
    )


def _wedges(proxy: Proxy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices of the proxy [N], texture coordinates [N, 2] and triangles [T, 3]: one vertex per texture coordinate."""
    pairs = np.stack([proxy.polygons, proxy.corners], -1).reshape(-1, 2)
    pairs, index = np.unique(pairs, axis=0, return_inverse=True)
    quads = index.reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    triangles = triangles[(triangles != np.roll(triangles, 1, 1)).all(1)]
    return pairs[:, 0], proxy.uv[pairs[:, 1]], triangles
