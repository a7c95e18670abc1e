"""Light on drawn people against plain NumPy written from the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.core.lighting import spherical_harmonics
from jaxface.synthetic import lamps
from jaxface.synthetic.dice import Dice

SIZE, FOCAL, DISTANCE = 24, 60.0, 10.0


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def flat_surface(depth, **changes):
    """A surface at the given depths, whose normals point to the camera."""
    grid = np.arange(SIZE) + 0.5 - SIZE / 2
    away = np.where(np.isfinite(depth), depth, DISTANCE)
    position = np.stack([grid[None] * away / FOCAL, -grid[:, None] * away / FOCAL, DISTANCE - away], -1)
    normal = np.broadcast_to([0.0, 0.0, 1.0], position.shape)
    ones = np.ones((SIZE, SIZE))
    values = {"albedo": 0.5 + 0 * position, "normal": normal, "position": position}
    values |= {"gloss": ones, "sharpness": 20 * ones, "skin": ones} | changes
    return lamps.Surface(**{name: jnp.asarray(value, jnp.float32) for name, value in values.items()})


def test_light_is_what_its_formula_says():
    rng = np.random.default_rng(0)
    light = lamps.random_lamps(Dice(jax.random.key(1)))
    surface = flat_surface(
        np.full((SIZE, SIZE), DISTANCE),
        albedo=rng.uniform(size=(SIZE, SIZE, 3)),
        normal=unit(rng.normal(size=(SIZE, SIZE, 3)) + [0, 0, 1]),
        gloss=rng.uniform(size=(SIZE, SIZE)),
        sharpness=rng.uniform(10, 100, size=(SIZE, SIZE)),
        skin=rng.uniform(size=(SIZE, SIZE)),
    )
    lit, openness = rng.uniform(0.1, 1, size=(2, SIZE, SIZE)).astype(np.float32)
    eye = jnp.array([0.0, 0.0, DISTANCE])
    color, fallen = lamps.light_surface(light, surface, eye=eye, lit=jnp.asarray(lit), openness=jnp.asarray(openness))
    toward, shone, sky, ground = (np.asarray(v, float) for v in (light.toward, light.color, light.sky, light.ground))
    for row, column in [(0, 0), (3, 7), (SIZE - 1, 12)]:
        at = {name: np.asarray(getattr(surface, name), float)[row, column] for name in vars(surface)}
        n, view = at["normal"], unit(np.asarray(eye, float) - at["position"])
        wrap = at["skin"] * np.array(lamps.BLEEDING)
        light_here = openness[row, column] * (ground + (0.5 + 0.5 * n[1]) * (sky - ground))
        f0 = lamps.REFLECTANCE
        shine = 0.5 * at["gloss"] * (f0 + (1 - f0) * (1 - max(n @ view, 0)) ** 5) * light_here
        for lamp in range(lamps.LAMPS):
            share = (lit if lamp == 0 else openness)[row, column]
            reach = share * (1 + wrap * (1 - share))
            half = unit(toward[lamp] + view)
            blinn = max(n @ half, 1e-4) ** at["sharpness"] * (at["sharpness"] + 8) / 8
            fresnel = f0 + (1 - f0) * (1 - max(view @ half, 0)) ** 5
            light_here = light_here + np.clip((n @ toward[lamp] + wrap) / (1 + wrap), 0, 1) * reach * shone[lamp]
            highlight = min(at["gloss"] * blinn * fresnel * max(n @ toward[lamp], 0), 4.0)
            shine = shine + highlight * reach * shone[lamp]
        np.testing.assert_allclose(color[row, column], at["albedo"] * light_here + shine, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fallen[row, column], light_here.mean(), rtol=1e-4)


def test_a_wall_throws_its_shadow_away_from_the_lamp():
    depth = np.full((SIZE, SIZE), DISTANCE)
    depth[:, 11:13] = DISTANCE - 0.5  # a bar half a unit before a wall, lit from the left
    surface = flat_surface(depth)
    toward = jnp.asarray(unit(np.array([-1.0, 0.0, 0.6])), jnp.float32)
    shadows = jax.jit(
        lambda toward: lamps.cast_shadows(
            jnp.asarray(depth, jnp.float32),
            surface,
            toward,
            focal=jnp.float32(FOCAL),
            center=jnp.full(2, SIZE / 2),
            distance=jnp.float32(DISTANCE),
            jitter=jnp.full((SIZE, SIZE), 0.5),
            softness=jnp.float32(0.0),
        )
    )
    lit = np.asarray(shadows(toward))
    assert lit[12, 2:9].min() > 0.95 and lit[12, 20:].min() > 0.95  # before the bar, and far behind it
    assert lit[12, 14:16].max() < 0.2
    mirrored = np.asarray(shadows(toward * jnp.array([-1.0, 1.0, 1.0])))
    np.testing.assert_allclose(mirrored, lit[:, ::-1], atol=0.02)
    assert np.asarray(shadows(jnp.array([0.0, 0.0, 1.0]))).min() > 0.95  # a lamp at the camera


def test_hollows_get_less_of_the_sky():
    depth = np.full((SIZE, SIZE), DISTANCE)
    depth[11:14, 11:14] += 0.4
    seen = np.ones_like(depth)
    seen[:, -3:] = 0
    openness = lamps.openness_to_sky(
        jnp.asarray(depth, jnp.float32), jnp.asarray(seen, jnp.float32), pixels_per_unit=jnp.float32(6.0)
    )
    assert openness[12, 12] < 0.8 and openness[2, 2] > 0.97
    assert (np.asarray(openness)[:, -3:] == 1).all()
    nothing = lamps.openness_to_sky(jnp.zeros((8, 8)), jnp.zeros((8, 8)), pixels_per_unit=jnp.float32(6.0))
    assert np.isfinite(nothing).all()


def test_harmonics_that_explain_a_picture_are_found():
    rng = np.random.default_rng(1)
    basis = np.asarray(spherical_harmonics(jnp.asarray(unit(rng.normal(size=(SIZE, SIZE, 3))), jnp.float32)))
    albedo = rng.uniform(0.2, 0.9, size=(SIZE, SIZE, 3))
    truth = 0.2 * rng.normal(size=(3, 9)) + 0.8 * (np.arange(9) == 0)
    colors = albedo * np.einsum("hwk,ck->hwc", basis, truth)
    weight = rng.uniform(size=(SIZE, SIZE)) > 0.3
    colors[~weight] = 7.0  # not to be looked at
    found = lamps.best_harmonics(*(jnp.asarray(a, jnp.float32) for a in (colors, albedo, basis, weight)))
    np.testing.assert_allclose(found, truth, atol=0.02)
    assert np.isfinite(lamps.best_harmonics(*(jnp.zeros((4, 4, n)) for n in (3, 3, 9)), jnp.zeros((4, 4)))).all()


@pytest.mark.parametrize("seed", range(3))
def test_random_light_is_light(seed):
    light = lamps.random_lamps(Dice(jax.random.key(seed)))
    np.testing.assert_allclose(np.linalg.norm(light.toward, axis=-1), 1, atol=1e-5)
    assert (np.asarray(light.color) >= 0).all() and np.asarray(light.sky).min() > 0
