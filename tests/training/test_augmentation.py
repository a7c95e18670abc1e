import dataclasses
import math

import jax
import numpy as np
import pytest

from jaxface.core import parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.faces import decode_face
from jaxface.photos.samples import empty_coefficients, validate_sample
from jaxface.training import augmentation

SIZE = 48


def face_sample():
    """A face of rectangles: each part's label in its place, landmarks on the eyes' pixels, colours that tell parts."""
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[8:44, 8:40] = parts.LABELS["skin"]
    labels[18:21, 28:36] = parts.LABELS["left_eye"]  # the subject's left eye lies at larger x
    labels[18:21, 12:20] = parts.LABELS["right_eye"]
    labels[12:14, 28:36] = parts.LABELS["left_brow"]
    labels[12:14, 12:20] = parts.LABELS["right_brow"]
    landmarks = np.random.default_rng(0).uniform(10, 38, (68, 2)).astype(np.float32)
    landmarks[42], landmarks[39] = (28.5, 19.5), (19.5, 19.5)
    landmarks[45], landmarks[36] = (35.5, 19.5), (12.5, 19.5)
    image = (np.stack([labels, 10 - labels, labels], -1) * 25).astype(np.uint8)
    return {
        "image": image,
        "labels": labels,
        "landmarks": landmarks,
        "landmark_weights": np.ones(68, np.float32),
        **empty_coefficients(4),
        "has_coefficients": np.ones((), np.float32),
    }


def label_at(sample, index):
    x, y = sample["landmarks"][index]
    return sample["labels"][int(y), int(x)]


@pytest.fixture(scope="module")
def mirror(anny):
    return augmentation.coefficient_mirror(anny)


def same(one, other):
    return all(np.array_equal(one[key], other[key]) for key in one)


def test_flip_keeps_landmarks_and_labels_on_the_same_side():
    flipped = augmentation.flip(face_sample())
    validate_sample(flipped, "flipped")
    assert flipped["landmarks"][42, 0] > flipped["landmarks"][39, 0]
    for index, part in {42: "left_eye", 45: "left_eye", 39: "right_eye", 36: "right_eye"}.items():
        assert label_at(flipped, index) == parts.LABELS[part]
    assert flipped["has_coefficients"] == 0
    twice = augmentation.flip(flipped)
    np.testing.assert_allclose(twice["landmarks"], face_sample()["landmarks"], atol=1e-5)
    np.testing.assert_array_equal(twice["labels"], face_sample()["labels"])


@pytest.mark.slow
def test_flip_with_the_models_mirror_gives_the_coefficients_of_the_mirrored_face(anny, mirror):
    vector = np.random.default_rng(0).normal(0, 0.3, len(mirror)).astype(np.float32)
    sample = face_sample() | {"coefficients": vector}
    flipped = augmentation.flip(sample, mirror)
    validate_sample(flipped, "flipped")
    assert flipped["has_coefficients"] == 1
    camera = Camera().resized(SIZE)
    vectors = np.stack([vector, flipped["coefficients"]])
    face = jax.jit(decode_face)(anny, Coefficients.from_vector(vectors, anny), camera)
    points, colors = np.asarray(face.points), np.asarray(face.colors)
    there = np.array([SIZE, 0]) + np.array([-1, 1]) * points[1][anny.mirror]
    np.testing.assert_allclose(there, points[0], atol=1e-4)
    np.testing.assert_allclose(colors[1][anny.mirror], colors[0], atol=0.03)  # one blemish of the model is asymmetric
    shape = slice(0, anny.identity_basis.shape[-1] + anny.expression_basis.shape[-1])
    np.testing.assert_allclose(augmentation.flip(flipped, mirror)["coefficients"][shape], vector[shape], atol=1e-5)


def test_a_model_that_is_not_symmetric_has_no_mirror(anny):
    assert augmentation.coefficient_mirror(dataclasses.replace(anny, mirror=None)) is None
    few = {"identity_basis": anny.identity_basis[..., :2], "expression_basis": anny.expression_basis[..., :0]}
    assert augmentation.coefficient_mirror(dataclasses.replace(anny, **few)) is not None
    crooked = few["identity_basis"].copy()
    crooked[: len(crooked) // 2] = 0
    assert augmentation.coefficient_mirror(dataclasses.replace(anny, **few | {"identity_basis": crooked})) is None


def test_synthetic_faces_are_flipped_half_of_the_time_if_that_is_possible(mirror):
    sample = face_sample() | {"coefficients": np.ones(len(mirror), np.float32)}

    def flips(mirror):
        made = (
            augmentation.augment_synthetic(sample, np.random.default_rng(seed), mirror=mirror) for seed in range(40)
        )
        return sum(not np.array_equal(one["landmarks"], sample["landmarks"]) for one in made)

    assert 10 <= flips(mirror) <= 30
    assert flips(None) == 0


def test_warp_by_whole_pixels_moves_everything_alike():
    sample = face_sample()
    moved = augmentation.warp(sample, augmentation.similarity(SIZE, angle=0, scale=1, shift=np.array([3, -2])))
    validate_sample(moved, "moved")
    np.testing.assert_array_equal(moved["labels"][:-2, 3:], sample["labels"][2:, :-3])
    np.testing.assert_array_equal(moved["image"][:-2, 3:], sample["image"][2:, :-3])
    np.testing.assert_allclose(moved["landmarks"], sample["landmarks"] + [3, -2], atol=1e-5)
    assert moved["has_coefficients"] == 0


def test_warp_by_a_quarter_turn_is_exact():
    sample = face_sample()
    turn = augmentation.similarity(SIZE, angle=math.pi / 2, scale=1, shift=np.zeros(2))
    turned = augmentation.warp(sample, turn)
    np.testing.assert_array_equal(turned["labels"], np.rot90(sample["labels"], -1))  # clockwise
    assert label_at(turned, 45) == parts.LABELS["left_eye"]


def test_landmarks_that_leave_the_picture_lose_their_weight():
    shifted = augmentation.similarity(SIZE, angle=0, scale=1, shift=np.array([20.0, 0]))
    moved = augmentation.warp(face_sample(), shifted)
    inside = (moved["landmarks"] <= SIZE).all(-1)
    assert 0 < inside.sum() < 68
    np.testing.assert_array_equal(moved["landmark_weights"], inside)


def test_colors_change_but_geometry_and_input_stay():
    sample = face_sample()
    for seed in range(20):
        result = augmentation.augment_colors(sample, np.random.default_rng(seed))
        validate_sample(result, "augmented")
        assert not np.array_equal(result["image"], sample["image"])
        changed = result["labels"] != sample["labels"]
        assert (result["labels"][changed] == parts.BACKGROUND).all()
        assert all(result[key] is sample[key] for key in ("landmarks", "coefficients", "has_coefficients"))
        difference = np.abs(result["image"].astype(float) - sample["image"])[result["labels"] > 0]
        assert difference.mean() < 90
    assert same(sample, face_sample())


def test_augmentations_depend_on_the_generator_alone():
    for function in (augmentation.augment_colors, augmentation.augment_photo):
        one, other = (function(face_sample(), np.random.default_rng(5)) for _ in range(2))
        assert same(one, other)
        assert not same(one, function(face_sample(), np.random.default_rng(6)))
        validate_sample(one, "augmented", size=SIZE)
