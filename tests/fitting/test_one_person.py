"""Fits of several crops of one person: what they hand on. What they find is tested with persons and clips."""

import numpy as np

from jaxface import Camera
from jaxface.core.coefficients import vector_size
from jaxface.fitting import one_person
from toys.models import toy_model


def test_fits_of_a_known_person_hear_the_network_too(monkeypatch):
    """Frames of a clip are padded before they are looked at, so that each has its own look."""
    model, heard, looked = toy_model(), {}, []

    def onlooker(images, landmarks):
        looked.append((images.shape, landmarks.shape))
        return "what was seen"

    monkeypatch.setattr(one_person, "onlooker_for", lambda _: onlooker)
    monkeypatch.setattr(one_person, "fit_faces", lambda *_, **options: heard.update(options) or FewFaces())
    batch = {
        "image": np.zeros((3, 16, 16, 3), np.uint8),
        "labels": np.zeros((3, 16, 16), np.uint8),
        "landmarks": np.zeros((3, 68, 2), np.float32),
    }
    start = np.zeros(vector_size(model), np.float32)
    one_person.fit_known_person(model, batch, start, Camera(), None)
    assert heard["look"] == "what was seen" and looked == [((8, 16, 16, 3), (8, 68, 2))]
    monkeypatch.setattr(one_person, "onlooker_for", lambda _: None)
    one_person.fit_known_person(model, batch, start, Camera(), None)
    assert heard["look"] is None


class FewFaces:
    """What a fit gives, where nobody asks for the faces."""

    def faces(self, count):
        return [None] * count
