"""The expected error of a face, where it is known and where it is not."""

import numpy as np

from jaxface.core.coefficients import vector_size
from jaxface.photos.alignment import Alignment
from jaxface.results.drawing import Reconstruction
from jaxface.results.expected_error import error_measures, vertex_errors
from toys.models import toy_model


def test_a_covariance_of_numbers_that_are_none_is_unknown():
    model = toy_model()
    alignment = Alignment(scale=1.0, offset_x=0.0, offset_y=0.0, size=224, photo_size=(224, 224))
    vector = np.zeros(vector_size(model), np.float32)
    for covariance in (None, np.full((5, 5), np.nan, np.float32)):
        face = Reconstruction(vector, {}, alignment, "Face 1", covariance=covariance)
        assert vertex_errors(model, face) is None
    assert np.isnan(error_measures(model, None)["expected_error_mm"])
    covariance = np.eye(5, dtype=np.float32)
    known = vertex_errors(model, Reconstruction(vector, {}, alignment, "Face 1", covariance=covariance))
    assert known is not None
    measures = error_measures(model, known)
    assert known.shape == (len(model.mean_shape),) and 0 < measures["expected_error_mm"] < 1000
