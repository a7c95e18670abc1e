"""MediaPipe's networks on pictures in bytes, as many as there are, compiled for a few numbers of them only."""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxface.networks.mediapipe_faces import MESH_SIDE, face_mesh_network, full_range, load_face_networks, short_range
from jaxface.networks.mediapipe_layers import Layer
from jaxface.photos.face_boxes import FULL_RANGE, SHORT_RANGE, WIDE_RANGE, Detector, FaceBox, face_boxes
from jaxface.photos.samples import pad_rows

BATCHES = {"cpu": (1,)}
"""Numbers of pictures that the networks are compiled for, falling. More than a few no longer fit into a CPU's caches,
and its cores take a picture each."""

ACCELERATOR_BATCHES = (64, 8, 1)
"""The same for devices that want many at a time."""


def find_boxes(pictures: Sequence[UInt8[np.ndarray, "S S 3"]], detector: Detector) -> list[list[FaceBox]]:
    """The faces in each picture, of the detector's size, by a detector."""
    run = {"full_range": _full_range, "short_range": _short_range}[detector.network]
    return [face_boxes(boxes, scores, detector) for boxes, scores in _run(detector.network, run, pictures)]


def find_mesh(
    pictures: Sequence[UInt8[np.ndarray, "192 192 3"]],
) -> list[tuple[Float[np.ndarray, "478 3"], float]]:
    """Per picture of an upright face the mesh points in its pixels, and the presence before the sigmoid."""
    return [(points, float(flag)) for points, flag in _run("mesh", _mesh, pictures)]


def _run(
    name: str, network: Callable[..., tuple[Array, Array]], pictures: Sequence[UInt8[np.ndarray, "S S 3"]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What a network says of each picture."""
    _compile()
    layers, outputs = _layers(name), []
    for size in batch_sizes(len(pictures), BATCHES.get(jax.default_backend(), ACCELERATOR_BATCHES)):
        batch, pictures = list(pictures[:size]), pictures[size:]
        outputs.append((len(batch), network(layers, pad_rows(np.stack(batch), size))))
    for count, (first, second) in outputs:  # collected when all have begun: they run side by side
        yield from zip(np.asarray(first)[:count], np.asarray(second)[:count], strict=True)


def batch_sizes(count: int, sizes: Sequence[int]) -> list[int]:
    """The sizes of batches for so many pictures: the largest that can be filled to at least three quarters."""
    found = []
    while count > 0:
        found.append(next(size for size in sizes if count >= 0.75 * size))
        count -= found[-1]
    return found


@functools.cache
def _layers(name: str) -> list[Layer]:
    """A network's layers, on the device."""
    return jax.device_put(getattr(load_face_networks(), name))


@functools.cache
def _compile() -> None:
    """Compiles all for one picture, side by side: one after another they take twice as long."""
    runs = [("mesh", _mesh, MESH_SIDE), ("short_range", _short_range, SHORT_RANGE.side)]
    runs += [("full_range", _full_range, detector.side) for detector in (FULL_RANGE, WIDE_RANGE)]
    with futures.ThreadPoolExecutor() as pool:
        for run in [pool.submit(f, _layers(name), np.zeros((1, side, side, 3), np.uint8)) for name, f, side in runs]:
            run.result()


@jax.jit
def _full_range(layers: list[Layer], pictures: UInt8[Array, "B S S 3"]) -> tuple[Array, Array]:
    return full_range(layers, pictures * np.float32(2 / 255) - 1)


@jax.jit
def _short_range(layers: list[Layer], pictures: UInt8[Array, "B 128 128 3"]) -> tuple[Array, Array]:
    return short_range(layers, pictures * np.float32(2 / 255) - 1)


@jax.jit
def _mesh(layers: list[Layer], pictures: UInt8[Array, "B 192 192 3"]) -> tuple[Array, Array]:
    return face_mesh_network(layers, load_face_networks().points, pictures * np.float32(1 / 255))
