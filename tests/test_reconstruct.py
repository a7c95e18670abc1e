"""python -m jaxface.reconstruct: the encoder sees the photo at its own size."""

import numpy as np

from jaxface.networks import checkpoints
from jaxface.photos import prediction
from jaxface.photos.alignment import Alignment
from jaxface.photos.face_crops import FaceCrop
from toys.models import toy_model


def test_encoder_crops_the_photo_at_its_own_size(monkeypatch):
    model = toy_model()
    sizes = []

    def predict(images):
        sizes.append(images.shape)
        return np.zeros((len(images), 41), np.float32)

    config = type("Config", (), {"image_size": 48})
    monkeypatch.setattr(checkpoints, "load_encoder", lambda path, **_: (predict, model, config))
    solve, loaded = prediction.predict_faces("checkpoint")
    photo = np.zeros((112, 112, 3), np.uint8)
    alignment = Alignment(scale=2.0, offset_x=0.0, offset_y=0.0, size=224, photo_size=(112, 112))
    crop = FaceCrop({"landmarks": np.zeros((68, 2), np.float32)}, alignment)
    assert solve(photo, [crop] * 3).shape == (3, 41)
    assert set(sizes) == {(1, 48, 48, 3)} and loaded is model
