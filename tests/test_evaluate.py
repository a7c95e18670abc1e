import jax
import numpy as np
import pytest

import jaxface
from jaxface import evaluate, metrics
from jaxface.coefficients import vector_size
from jaxface.parts import LABELS, PARTS
from jaxface.render import label_triangles, rasterize, render_labels
from toy import toy_model

SIZE = 32


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "BATCH_SIZE", 4)
        yield


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def camera():
    return jaxface.Camera().resized(SIZE)


@pytest.fixture(scope="module")
def truth(model):
    vectors = np.random.default_rng(0).normal(size=(6, vector_size(model))).astype(np.float32)
    vectors[:, -33:] *= 0.1
    return vectors


@pytest.fixture(scope="module")
def samples(model, camera, truth):
    """Samples whose labels and landmarks are exactly those of `truth`; the last is like a photo without landmarks."""
    coefficients = jaxface.Coefficients.from_vector(truth, model)
    face = jaxface.decode_face(model, coefficients, camera)
    labels = label_triangles(model.parts, model.triangles)
    drawn = render_labels(face.points, face.depth, model.triangles, labels, image_size=SIZE)
    points = evaluate.landmark_points(model, coefficients, face)
    known = np.arange(len(truth)) < len(truth) - 1
    return [
        {
            "image": np.zeros((SIZE, SIZE, 3), np.uint8),
            "labels": np.asarray(drawn[i]),
            "landmarks": np.asarray(points[i]),
            "landmark_weights": np.full(68, known[i], np.float32),
            "coefficients": truth[i] * known[i],
            "has_coefficients": np.float32(known[i]),
        }
        for i in range(len(truth))
    ]


def test_the_truth_has_no_error(model, camera, truth, samples):
    result = evaluate.evaluate_predictions(model, truth, samples, camera)
    seen = {part: any((s["labels"] == LABELS[part]).any() for s in samples) for part in PARTS}
    assert result["part_iou"] == 1.0
    assert all(result[f"part_iou_{part}"] == 1.0 for part in PARTS if seen[part])
    assert result["landmark_error_px"] < 1e-4
    assert result["landmark_error_interocular"] < 1e-4
    assert result["vertex_error_mm"] < 1e-2


def test_measures_equal_their_definitions_whatever_the_batch(model, camera, truth, samples):
    vectors = np.zeros_like(truth)
    measures = evaluate.measure_faces(model, vectors, samples, camera)
    assert {value.shape for value in measures.values()} == {(6,)}
    coefficients = jaxface.Coefficients.from_vector(vectors, model)
    face = jaxface.decode_face(model, coefficients, camera)
    true_face = jaxface.decode_face(model, jaxface.Coefficients.from_vector(truth, model), camera)
    vertex_error = np.asarray(metrics.vertex_error_mm(face.shape, true_face.shape))
    np.testing.assert_allclose(measures["vertex_error_mm"], np.where(np.arange(6) < 5, vertex_error, np.nan), rtol=1e-4)
    points = np.asarray(evaluate.landmark_points(model, coefficients, face))
    for i, sample in enumerate(samples[:5]):
        distance = np.linalg.norm(points[i] - sample["landmarks"], axis=-1).mean()
        eyes = np.linalg.norm(sample["landmarks"][36] - sample["landmarks"][45])
        assert measures["landmark_error_px"][i] == pytest.approx(distance * 224 / SIZE, rel=1e-4)
        assert measures["landmark_error_interocular"][i] == pytest.approx(distance / eyes, rel=1e-4)
    assert np.isnan(measures["landmark_error_px"][5])
    alone = evaluate.measure_faces(model, vectors[4:], samples[4:], camera)
    for name, values in alone.items():
        np.testing.assert_allclose(values, measures[name][4:], rtol=1e-6)


def test_summary_is_the_mean_of_what_is_known():
    nan = np.nan
    measures = {f"part_iou_{part}": np.array([0.2, nan]) for part in PARTS}
    measures["part_iou_nose"] = np.array([0.9, 0.9])
    measures["part_iou_skin"] = np.array([nan, 1.0])
    measures |= {"part_iou": np.array([0.3, 0.9]), "vertex_error_mm": np.array([nan, nan])}
    summary = evaluate.summarize(measures)
    assert summary["part_iou"] == pytest.approx((6 * 0.2 + 0.9) / 7)
    assert summary["part_iou_skin"] == 1.0
    assert np.isnan(summary["vertex_error_mm"])


def test_measuring_compiles_once(model, camera, truth, samples):
    evaluate.measure_faces(model, truth, samples, camera)
    before = evaluate._measure_batch._cache_size()
    evaluate.measure_faces(model, truth[:3], samples[:3], camera)
    assert evaluate._measure_batch._cache_size() == before


def test_drawn_faces_are_those_of_the_rasterizer(model, camera, truth):
    drawn = evaluate.draw_faces(model, truth, camera)
    face = jaxface.decode_face(model, jaxface.Coefficients.from_vector(truth, model), camera)
    fragments = jax.device_get(rasterize(face.points, face.depth, model.triangles, image_size=SIZE))
    np.testing.assert_array_equal(drawn["labels"] > 0, fragments.triangle >= 0)
    assert drawn["colors"].shape == drawn["normals"].shape == (6, SIZE, SIZE, 3)
    assert drawn["landmarks"].shape == (6, 68, 2)
