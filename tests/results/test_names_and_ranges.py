"""The names and ranges of a face model's expressions reach what is written, drawn at random and fitted."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxface.core.coefficients import column_mask, vector_columns, vector_size
from jaxface.fitting import coefficient_prior
from jaxface.photos.alignment import Alignment
from jaxface.photos.samples import empty_coefficients
from jaxface.results.drawing import DrawingOptions, Reconstruction
from jaxface.results.photo_files import write_photo
from jaxface.synthetic.random_faces import random_coefficients
from toys.glb_reader import read_face
from toys.models import toy_model

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = ("jawOpen", "eyeBlink_L")


@pytest.fixture(scope="module")
def named():
    """As ICT's and FaceVerse's models are: artist's units with names."""
    return dataclasses.replace(toy_model(), expression_names=NAMES, expression_bounds=(0.0, 1.0))


def test_what_is_written_has_the_names(named, tmp_path):
    vector = np.zeros(vector_size(named), np.float32)
    vector[vector_columns(named)["expression"]] = 0.75, 0.25
    sample = {
        "image": np.full((48, 48, 3), 128, np.uint8),
        "labels": np.full((48, 48), 8, np.uint8),
        "landmarks": np.random.default_rng(0).uniform(5, 43, (68, 2)).astype(np.float32),
        "landmark_weights": np.ones(68, np.float32),
        **empty_coefficients(len(vector)),
    }
    reconstruction = Reconstruction(vector, sample, Alignment(1.0, 0.0, 0.0, 48, (48, 48)), "Face 1")
    small = DrawingOptions(picture_size=48, largest_texture=64)
    write_photo(
        tmp_path, named, sample["image"], [reconstruction], photo_name="a.png", subtitle="", settings={}, drawing=small
    )
    face = read_face(tmp_path / "face_0" / "mesh.glb")
    assert tuple(face["names"]) == NAMES and face["weights"].tolist() == [0.75, 0.25]
    record = json.loads((tmp_path / "face_0" / "coefficients.json").read_text())
    assert tuple(record["expression_names"]) == NAMES and record["coefficients"]["expression"] == [0.75, 0.25]
    page = (tmp_path / "index.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])
    assert tuple(data["blendshapes"]["names"]) == NAMES and data["blendshapes"]["limits"] == [0, 1]
    assert data["faces"][0]["weights"] == [0.75, 0.25]


def test_random_expressions_are_shares_of_the_units(named):
    draw = jax.jit(random_coefficients)
    expression = np.asarray(draw(jax.random.split(jax.random.key(0), 200), named).expression)
    assert expression.min() == 0 and 0.8 < expression.max() <= 1
    assert (expression[:, 0] > 0.45).any() and (expression[:, 1] > 0.85).any()  # open mouths, closed eyes
    # Both occur alone: it is the names that tell what makes an open mouth and closed eyes, not their order.
    assert ((expression[:, 0] > 0.45) & (expression[:, 1] == 0)).any()
    assert ((expression[:, 1] > 0.85) & (expression[:, 0] == 0)).any()


def test_the_fit_allows_a_tenth_more_than_the_units(named):
    prior, columns = coefficient_prior(named), column_mask(named, "expression")
    np.testing.assert_allclose(prior.lower[columns], -0.1, rtol=1e-6)
    np.testing.assert_allclose(prior.upper[columns], 1.1, rtol=1e-6)
    told = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    assert "0 to 1, or std. deviations | of the expression basis; of fits, -0.1 to 1.1 or -3 to 3" in told
    plain = coefficient_prior(toy_model())
    np.testing.assert_array_equal(plain.lower[columns], -3)
    np.testing.assert_array_equal(plain.upper[columns], 3)
    for name in ("deviation", "lower", "upper"):
        np.testing.assert_array_equal(getattr(prior, name)[~columns], getattr(plain, name)[~columns])
