"""Times the renderer: python benchmarks/render.py

Prints one line per mesh: the z-buffer alone, with its gradient through interpolated attributes, the label map and the
soft silhouette. On a CPU the figures of the README are from 2 cores.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxface
from jaxface.render import interpolate, label_triangles, rasterize, render_labels, soft_silhouette


def sphere(triangle_count, image_size):
    """A sphere of about `triangle_count` triangles of even size in front of jaxface's camera, nearly image-filling."""
    rings = round((triangle_count / 4) ** 0.5)
    polar, azimuth = np.meshgrid(
        np.linspace(0.01, np.pi - 0.01, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings + 1), indexing="ij"
    )
    directions = [np.sin(polar) * np.cos(azimuth), np.cos(polar), np.sin(polar) * np.sin(azimuth)]
    vertices = 0.95 * np.stack(directions, axis=-1).reshape(-1, 3).astype(np.float32)
    first = (np.arange(rings)[:, None] * (2 * rings + 1) + np.arange(2 * rings)).ravel()
    below = first + 2 * rings + 1
    triangles = np.concatenate([np.stack([first, first + 1, below + 1], -1), np.stack([first, below + 1, below], -1)])
    camera = jaxface.Camera().resized(image_size)
    depth = camera.distance - vertices[:, 2]
    points = np.array(camera.center) + camera.focal * vertices[:, :2] * (1, -1) / depth[:, None]
    return points.astype(np.float32), depth.astype(np.float32), triangles.astype(np.int32)


def anny(image_size):
    """The built-in face model's mean face."""
    model = jaxface.load_face_model("anny")
    camera = jaxface.Camera().resized(image_size)
    face = jaxface.decode_face(model, jaxface.Coefficients.zeros(model, 1), camera)
    return np.asarray(face.points[0]), np.asarray(face.depth[0]), np.asarray(model.triangles)


def milliseconds(function, *arguments):
    """Median over repetitions, after one call that compiles."""
    jax.block_until_ready(function(*arguments))
    times = []
    while len(times) < 5 or (len(times) < 30 and sum(times) < 2):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def benchmark(name, mesh, image_size, batch):
    points, depth, triangles = mesh
    points, depth = (jnp.asarray(np.repeat(array[None], batch, 0)) for array in (points, depth))
    triangles, labels = jnp.asarray(triangles), label_triangles({"skin": triangles[:1000, 0]}, triangles)
    attributes = jnp.asarray(np.random.default_rng(0).normal(size=(points.shape[1], 3)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(image_size, image_size)), jnp.float32)

    def shaded(points, depth):
        fragments = rasterize(points, depth, triangles, image_size=image_size)
        image = interpolate(fragments, triangles, attributes)
        return jnp.sum(image**2) + jnp.sum(fragments.depth)

    def soft(points, sigma):
        return jnp.sum(soft_silhouette(points, triangles, image_size=image_size, sigma=sigma) * weights[None])

    columns = [
        milliseconds(lambda *a: rasterize(*a, triangles, image_size=image_size), points, depth),
        milliseconds(jax.jit(jax.grad(shaded, (0, 1))), points, depth),
        milliseconds(lambda *a: render_labels(*a, triangles, labels, image_size=image_size), points, depth),
        milliseconds(jax.jit(lambda points: soft(points, 1e-5)), points),
        milliseconds(jax.jit(jax.grad(lambda points: soft(points, 1e-5))), points),
    ]
    print(f"{name:8}{len(triangles):10}{image_size:6}{batch:6} |" + "".join(f"{value:11.1f}" for value in columns))


def main():
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; milliseconds per batch, median")
    print("mesh     triangles  size batch |  rasterize   gradient     labels soft, 1e-5   gradient")
    benchmark("sphere", sphere(70_000, 224), 224, 1)
    benchmark("sphere", sphere(20_000, 112), 112, 16)
    benchmark("sphere", sphere(500, 224), 224, 1)
    try:
        face, small = anny(224), anny(112)
    except jaxface.core.errors.InputError:
        return
    benchmark("anny", face, 224, 1)
    benchmark("anny", small, 112, 16)


if __name__ == "__main__":
    main()
