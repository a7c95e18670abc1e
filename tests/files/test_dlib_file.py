"""dlib's files: every value comes back, and damaged ones end with one line."""

import importlib.util
import math
import time

import numpy as np
import pytest

from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.files.dlib_file import INPUT, read_dlib_network
from jaxface.networks.face_recognition import dlib_path


def integer(value):
    """dlib's whole number: length with the sign in bit 7, then the magnitude, lowest byte first."""
    magnitude = abs(value)
    size = max(1, math.ceil(magnitude.bit_length() / 8))
    return bytes([size | (0x80 if value < 0 else 0)]) + magnitude.to_bytes(size, "little")


def integers(*values):
    return b"".join(integer(value) for value in values)


def text(value):
    return integer(len(value)) + value.encode()


def real(value):
    mantissa, exponent = math.frexp(value)
    return integers(int(mantissa * 2**53), exponent - 53)


def tensor(values):
    return integers(2, len(values), 1, 1, 1) + np.asarray(values, "<f4").tobytes()


VIEW = integers(1, 4, 3, 2, 1)
STATE = b"110" + 3 * integers(2, 0, 0, 0, 0)
RATES = b"".join(real(value) for value in (1.0, 0.25, 1.0, 0.0))
RANDOM = np.random.default_rng(0)
FILTERS, AFFINE, LINEAR = (RANDOM.normal(size=n).astype(np.float32) for n in (2 * 3 * 9 + 2, 4, 6))


def small_network():
    """A file of six layers and a tag between them."""
    head = integer(1) + text("loss_metric_2") + real(0.04) + real(0.6) + integers(2, 2, 1, 2, 2, 2, 3)
    picture = text(INPUT) + real(122.782) + real(-1e-3) + real(104.298) + integers(150, 90)
    layers = [
        text("con_4") + tensor(FILTERS) + integers(2, 3, 3, 2, 2, 0, 1) + VIEW + VIEW + RATES + STATE + integer(1),
        text("affine_") + tensor(AFFINE) + VIEW + VIEW + integer(0) + STATE,
        text("relu_") + STATE,
        text("avg_pool_2") + integers(2, 2, 2, 2, 0, 0) + STATE,
        text("add_prev_") + STATE,
        text("fc_2") + integers(2, 3) + tensor(LINEAR) + VIEW + VIEW + integer(1) + RATES + STATE,
    ]
    return head + picture + b"".join(layers)


def write(tmp_path, content):
    path = tmp_path / "net.dat"
    path.write_bytes(content)
    return path


def test_every_value_comes_back(tmp_path):
    layers = read_dlib_network(write(tmp_path, small_network()))
    assert [layer.kind for layer in layers] == [INPUT, *"con_4 affine_ relu_ avg_pool_2 add_prev_ fc_2".split()]
    settings = [layer.settings for layer in layers]
    assert settings == [(150, 90), (2, 3, 3, 2, 2, 0, 1), (), (), (2, 2, 2, 2, 0, 0), (), (2, 3)]
    np.testing.assert_allclose(layers[0].parameters, [122.782, -1e-3, 104.298], rtol=1e-6)
    for layer, expected in zip(layers[1:], (FILTERS, AFFINE, (), (), (), LINEAR), strict=True):
        np.testing.assert_array_equal(layer.parameters, np.asarray(expected, np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x93NUMPY\x01\x00 not dlib's", "whole number"),
        (small_network()[:-1], "ends too early"),
        (small_network() + b"\x00", "behind the last layer"),
        (small_network().replace(b"loss_metric_2", b"loss_mmod____"), "loss layer"),
        (small_network().replace(b"affine_", b"bn_fc__"), "'bn_fc__' is not known"),
        (small_network().replace(integers(2, len(AFFINE), 1), integers(1, len(AFFINE), 1)), "version of a tensor"),
        (small_network().replace(tensor(LINEAR)[:8], integers(2, 10**12, 1, 1)), "cannot be"),
        (small_network().replace(np.float32(AFFINE[1]).tobytes(), np.float32(np.nan).tobytes()), "not finite"),
        (small_network().replace(real(122.782), integers(1, 32_000)), "finite number"),
    ],
)
def test_bad_files_end_with_one_line(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        read_dlib_network(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.dat", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_dlib_network(path)


def test_random_damage_never_crashes(tmp_path):
    random, whole, refused = np.random.default_rng(1), small_network(), 0
    for _ in range(300):
        data = bytearray(whole)
        for place in random.integers(0, len(data), random.integers(1, 6)):
            data[place] = random.integers(256)
        if random.random() < 0.3:
            data = data[: random.integers(len(data))]
        try:
            read_dlib_network(write(tmp_path, bytes(data)))
        except InputError as error:
            refused += 1
            assert len(str(error)) < 400 + len(str(tmp_path))
    assert refused > 150  # the rest is damage to a weight, which nothing tells


@pytest.mark.skipif(importlib.util.find_spec("face_recognition_models") is None, reason="needs jaxface[perceptual]")
def test_the_published_file():
    started = time.monotonic()
    layers = read_dlib_network(dlib_path())
    assert time.monotonic() - started < 5
    tensors = [layer.parameters for layer in layers[1:] if len(layer.parameters)]
    assert (len(tensors), sum(map(len, tensors))) == (59, 5_614_592)
    np.testing.assert_allclose(layers[0].parameters, [122.782, 117.001, 104.298], atol=1e-3)
    assert layers[0].settings == (150, 150) and layers[-1].settings == (128, 256)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'jaxface\[perceptual\]'"):
        dlib_path()
