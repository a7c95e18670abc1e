"""Which faces are one person's: the one that all photos share, and those of strangers."""

import numpy as np
import pytest

from jaxface.losses.perceptual import ARCFACE_CHIP, DLIB_CHIP
from jaxface.networks.face_recognition import FaceRecognizer
from jaxface.results.same_face import (
    choose_by_features,
    distances_to_others,
    find_strangers,
    least_distance_of_strangers,
)


def people(*counts, apart=0.75, spread=0.3):
    """Features of persons, each with so many photos: about as far from one another as dlib's are."""
    random = np.random.default_rng(1)
    centers = np.eye(len(counts), 128) * apart / np.sqrt(2)
    noise = random.normal(size=(sum(counts), 128)) * spread / np.sqrt(2 * 128)
    return np.repeat(centers, counts, axis=0) + noise


def test_the_face_that_the_photos_share_is_chosen():
    random = np.random.default_rng(0)
    anna, bert = random.normal(size=(2, 16))

    def near(who):
        return who + 0.1 * random.normal(size=16)

    photos = [[near(bert), near(anna)], [near(anna)], [near(bert), near(anna), near(bert)], [near(anna)]]
    chosen = choose_by_features([np.stack(faces) for faces in photos])
    assert chosen == [1, 0, 1, 0]
    # No photo shows a single face: the largest decide.
    groups = [[near(anna), near(bert)], [near(anna), near(bert)], [near(bert), near(anna)]]
    assert choose_by_features([np.stack(faces) for faces in groups]) == [0, 0, 1]
    assert choose_by_features([np.stack([anna, bert])]) == [0]
    assert distances_to_others(anna[None]).tolist() == [0]
    assert distances_to_others(np.stack([near(anna), near(anna), near(bert)])).argmax() == 2


@pytest.mark.parametrize(
    ("counts", "strangers"),
    [
        ((3, 1), {3}),
        ((2, 1), {2}),
        ((5, 1, 1), {5, 6}),
        ((6, 2), {6, 7}),
        ((4,), set()),
        ((1, 1), set()),
        ((1,), set()),
    ],
)
def test_strangers_are_found(counts, strangers):
    found = find_strangers(people(*counts))
    assert set(found) == strangers and all(0.6 < distance < 1 for distance in found.values())


def test_nobody_is_a_stranger_for_a_profile_or_among_photos_alike():
    assert not find_strangers(people(3, 1, apart=0.4, spread=0.02))  # three frames of a burst, and another day
    assert not find_strangers(people(8, spread=0.6))  # all blurred: all far apart


def test_more_than_half_remain():
    assert not find_strangers(people(2, 2))
    assert len(find_strangers(people(1, 1, 1, 1, 1, apart=2.0, spread=0.0))) <= 2


def test_distances_are_those_of_the_network():
    dlib, arcface = (
        least_distance_of_strangers(FaceRecognizer(None, None, chip)) for chip in (DLIB_CHIP, ARCFACE_CHIP)
    )
    assert 0.5 < dlib < 0.6 < arcface < np.sqrt(2)  # sqrt(2): right angles, as strangers have
