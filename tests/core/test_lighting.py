import jax
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.special import sph_harm_y

from jaxface.core.lighting import AMBIENT, shade, spherical_harmonics


def _unit_vectors(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _real_harmonic(degree, order, normals):
    polar, azimuth = np.arccos(normals[:, 2]), np.arctan2(normals[:, 1], normals[:, 0])
    value = sph_harm_y(degree, abs(order), polar, azimuth)
    if order == 0:
        return value.real
    return np.sqrt(2) * (-1) ** order * (value.real if order > 0 else value.imag)


def test_basis_against_scipy():
    # Deep3D's basis is the real spherical harmonics times the Lambertian factors (pi, 2 pi/3, pi/4 up to its own
    # constant for band 2), with its own signs: check the functions up to one constant per band and those signs.
    normals = _unit_vectors(200)
    with jax.enable_x64(True):
        basis = np.asarray(spherical_harmonics(normals))
    orders = [(0, 0), (1, -1), (1, 0), (1, 1), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2)]
    signs = [1, -1, 1, -1, 1, -1, 1, -1, 1]
    ratios = {}
    for column, ((degree, order), sign) in enumerate(zip(orders, signs, strict=True)):
        harmonic = sign * _real_harmonic(degree, order, normals)
        ratio = (basis[:, column] @ harmonic) / (harmonic @ harmonic)
        np.testing.assert_allclose(basis[:, column], ratio * harmonic, atol=1e-12)
        ratios.setdefault(degree, []).append(ratio)
    assert np.isclose(ratios[0][0], np.pi)
    np.testing.assert_allclose(ratios[1], 2 * np.pi / np.sqrt(3), rtol=1e-6)
    assert np.all(np.array(ratios[2]) > 0)
    np.testing.assert_allclose(ratios[2], ratios[2][0], rtol=1e-6)


def test_formula_as_published():
    normals = _unit_vectors(50, seed=1)
    x, y, z = normals.T
    a = [np.pi, 2 * np.pi / np.sqrt(3), 2 * np.pi / np.sqrt(8)]
    c = [1 / np.sqrt(4 * np.pi), np.sqrt(3) / np.sqrt(4 * np.pi), 3 * np.sqrt(5) / np.sqrt(12 * np.pi)]
    k = a[2] * c[2]
    expected = np.stack(
        [
            a[0] * c[0] * np.ones_like(x), -a[1] * c[1] * y, a[1] * c[1] * z, -a[1] * c[1] * x,
            k * x * y, -k * y * z, k * (3 * z**2 - 1) / (2 * np.sqrt(3)), -k * x * z, k * (x**2 - y**2) / 2,
        ],
        -1,
    )  # fmt: skip
    np.testing.assert_allclose(spherical_harmonics(normals), expected, rtol=2e-5, atol=2e-6)


def test_zero_light_is_even():
    albedo = np.random.default_rng(2).uniform(size=(1, 30, 3)).astype(np.float32)
    colors = shade(albedo, _unit_vectors(30)[None], np.zeros((1, 3, 9), np.float32))
    np.testing.assert_allclose(colors, albedo * AMBIENT * np.sqrt(np.pi) / 2, rtol=1e-5)


def test_light_from_the_right_brightens_the_right():
    light = np.zeros((1, 3, 9), np.float32)
    light[:, :, 3] = -0.3
    colors = shade(np.ones((1, 2, 3), np.float32), np.array([[[1.0, 0, 0], [-1.0, 0, 0]]], np.float32), light)
    assert (colors[0, 0] > colors[0, 1]).all()


def test_channels_are_separate():
    light = np.zeros((1, 3, 9), np.float32)
    light[0, 2, 0] = 0.5
    colors = shade(np.ones((1, 4, 3), np.float32), _unit_vectors(4)[None], light)
    np.testing.assert_allclose(colors[..., 0], colors[..., 1])
    assert (colors[..., 2] > colors[..., 0]).all()


@pytest.mark.slow
def test_gradients():
    with jax.enable_x64(True):
        random = np.random.default_rng(3)
        arguments = (random.uniform(size=(1, 4, 3)), random.normal(size=(1, 4, 3)), random.normal(size=(1, 3, 9)))
        check_grads(shade, arguments, order=1, modes=["rev"])
