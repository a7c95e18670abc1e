"""Drawn faces look as they did, within what another processor may round; golden/make.py draws the pictures anew."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from golden.make import FOLDER, pictures

MEAN, SHARE = 0.01, 0.02
"""Bounds on the mean absolute difference, of the full range, and on the share of pixels that differ by a tenth."""

OTHERS = "page", "drawn_faces"
"""Pictures of other tests: a page of results, and the sheet that MediaPipe was asked about (make_detections.py)."""


def same(picture, golden):
    difference = np.abs(picture.astype(float) - golden).max(-1) / 255
    return difference.mean() < MEAN and (difference > 0.1).mean() < SHARE


@pytest.fixture(scope="module")
def golden():
    paths = {path.stem: path for path in FOLDER.glob("*.png") if path.stem not in OTHERS}
    return {name: np.asarray(Image.open(path).convert("RGB")) for name, path in paths.items()}


def test_faces_look_as_they_did(anny, golden):
    drawn = pictures(anny)
    assert drawn.keys() == golden.keys()
    assert [name for name in drawn if not same(drawn[name], golden[name])] == []


def test_an_inside_out_face_does_not_pass(anny, golden):
    drawn = pictures(dataclasses.replace(anny, triangles=np.asarray(anny.triangles)[:, ::-1].copy()))
    assert not any(same(drawn[name], golden[name]) for name in ("mean_clay", "other_clay", "other_colors"))


def test_rounding_passes(golden):
    random = np.random.default_rng(0)
    for name, one in golden.items():
        assert same(np.clip(one.astype(int) + random.integers(-2, 3, one.shape), 0, 255), one), name


MUTILATIONS = {
    "mirrored": (lambda x: x[:, ::-1], "other_colors mean_clay other_clay other_parts texture turned"),
    "upside down": (
        lambda x: x[::-1],
        "mean_colors other_colors mean_clay other_clay mean_parts other_parts texture turned",
    ),
    "wrong gamma": (lambda x: 255 * (x / 255) ** 2.2, "mean_colors other_colors mean_clay other_clay texture turned"),
    "channels swapped": (lambda x: x[..., ::-1], "mean_colors other_colors mean_parts other_parts texture turned"),
}


@pytest.mark.parametrize("name", MUTILATIONS)
def test_mutilated_pictures_do_not_pass(name, golden):
    change, which = MUTILATIONS[name]
    assert [one for one in which.split() if same(change(golden[one]), golden[one])] == []
