"""dlib's .dat files of neural networks, as its face recogniser comes: a reader in numpy.

The format has no index: whole numbers of a byte of length and sign and as many bytes of magnitude, texts after their
length, doubles as mantissa and exponent, weights as raw float32. First come the versions of the nested C++ layers from
the outside in, 3 for the one that holds the picture; then the layers themselves from the picture on, each with dlib's
buffers, which are empty in a published file.
"""

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxface.core.errors import InputError
from jaxface.files.impostors import refuse_impostor

INPUT = "input_rgb_image_sized"
"""What dlib calls the layer that takes the picture."""

_LOSS = "loss_metric_2"

_LAYER, _INNERMOST_LAYER, _TAG = 2, 3, 1

_MOST_BYTES = 1 << 28

_MOST_LAYERS = 10_000


class DlibLayer(NamedTuple):
    """One layer of a dlib network.

    Attributes:
        kind: dlib's name: "con_4", "affine_", "relu_", "max_pool_2", "avg_pool_2", "add_prev_", "fc_2", or INPUT.
        parameters: [N] weights, then biases ("con_4", "fc_2"); gains, then offsets ("affine_"); mean colour (INPUT).
        settings: filters, height, width, strides and paddings in y and x ("con_4"; pools have no filters); outputs,
            inputs ("fc_2"); height and width of the picture (INPUT).
    """

    kind: str
    parameters: Float[np.ndarray, "N"]
    settings: tuple[int, ...]


def read_dlib_network(path: str | os.PathLike) -> list[DlibLayer]:
    """Reads the layers of a network for metric learning, such as dlib_face_recognition_resnet_model_v1.dat.

    Returns:
        The layers from the picture to the result.

    Raises:
        InputError: when the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a dlib network (.dat)")
    refuse_impostor(path)
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path}: is larger than {_MOST_BYTES >> 20} MiB, no face recognition network of dlib's")
    reader = _Reader(path, path.read_bytes())
    reader.expect(reader.integer(), 1, "version")
    reader.expect(reader.text(), _LOSS, "loss layer")
    reader.real(), reader.real()  # margin and threshold of the loss
    layers = _layers(reader, _versions(reader))
    if reader.position != len(reader.data):
        raise reader.error("there are bytes behind the last layer")
    return layers


def _versions(reader: "_Reader") -> list[int]:
    """The versions of the nested layers, outermost first."""
    versions: list[int] = []
    while not versions or versions[-1] != _INNERMOST_LAYER:
        versions.append(reader.integer())
        if versions[-1] not in (_TAG, _LAYER, _INNERMOST_LAYER) or len(versions) > _MOST_LAYERS:
            raise reader.error(f"a layer of version {versions[-1]} is not known")
    return versions


def _layers(reader: "_Reader", versions: list[int]) -> list[DlibLayer]:
    reader.expect(reader.text(), INPUT, "input layer")
    colour = np.array([reader.real() for _ in range(3)], np.float32)
    layers = [DlibLayer(INPUT, colour, reader.integers(2))]
    for version in reversed(versions):
        if version == _TAG:
            continue
        layers.append(_details(reader))
        reader.flags(3)
        for _ in range(3):
            reader.expect(len(reader.tensor()), 0, "length of a buffer")
        if version == _INNERMOST_LAYER:
            reader.integer()  # pictures per sample
    return layers


def _details(reader: "_Reader") -> DlibLayer:
    kind = reader.text()
    parameters = np.zeros(0, np.float32)
    settings: tuple[int, ...] = ()
    if kind == "con_4":
        parameters, settings = reader.tensor(), reader.integers(7)
        reader.views(2)
        reader.reals(4)  # rates of learning and decay
    elif kind == "affine_":
        parameters = reader.tensor()
        reader.views(2)
        reader.integer()  # mode: after a convolution or after a linear layer
    elif kind == "fc_2":
        settings, parameters = reader.integers(2), reader.tensor()
        reader.views(2)
        reader.integer()  # mode: with or without biases
        reader.reals(4)
    elif kind in ("max_pool_2", "avg_pool_2"):
        settings = reader.integers(6)
    elif kind not in ("relu_", "add_prev_"):
        raise reader.error(f"a layer of kind {kind[:40]!r} is not known")
    return DlibLayer(kind, parameters, settings)


class _Reader:
    """Takes dlib's values from the bytes one after another."""

    def __init__(self, path: Path, data: bytes):
        self.path, self.data, self.position = path, data, 0

    def error(self, reason: str) -> InputError:
        return InputError(
            f"{self.path}: {reason} (near byte {self.position}); the file is damaged or no face recognition network "
            "of dlib's"
        )

    def expect(self, value: int | str, wanted: int | str, name: str) -> None:
        if value != wanted:
            raise self.error(f"the {name} is {str(value)[:40]!r}, not {str(wanted)!r}")

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise self.error("the file ends too early")
        self.position += count
        return self.data[self.position - count : self.position]

    def integer(self) -> int:
        (head,) = self.take(1)
        negative, size = head & 0x80, head & 0x0F
        if head & 0x70 or not 1 <= size <= 8:
            raise self.error("a whole number is expected")
        value = int.from_bytes(self.take(size), "little")
        return -value if negative else value

    def integers(self, count: int) -> tuple[int, ...]:
        return tuple(self.integer() for _ in range(count))

    def text(self) -> str:
        length = self.integer()
        if not 0 <= length <= 100:
            raise self.error("a name is expected")
        return self.take(length).decode("latin-1")

    def real(self) -> float:
        mantissa, exponent = self.integers(2)
        if abs(exponent) > 900:  # dlib's infinities have exponents of 32,000
            raise self.error("a finite number is expected")
        return math.ldexp(mantissa, exponent)

    def reals(self, count: int) -> tuple[float, ...]:
        return tuple(self.real() for _ in range(count))

    def flags(self, count: int) -> None:
        if not set(self.take(count)) <= set(b"01"):
            raise self.error("a flag is expected")

    def views(self, count: int) -> None:
        """Shapes of the parts of a layer's parameters; they follow from its settings."""
        for _ in range(count):
            self.expect(self.integer(), 1, "version of a view")
            self.integers(4)

    def tensor(self) -> Float[np.ndarray, "N"]:
        self.expect(self.integer(), 2, "version of a tensor")
        sizes = self.integers(4)
        if min(sizes) < 0 or max(sizes) > len(self.data):
            raise self.error(f"a tensor of shape {sizes} cannot be")
        values = np.frombuffer(self.take(4 * math.prod(sizes)), "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise self.error("a tensor holds numbers that are not finite")
        return values
