import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import jaxface
from jaxface import evaluate
from jaxface.core import metrics
from jaxface.core.coefficients import vector_size
from jaxface.core.faces import landmark_points
from jaxface.core.parts import LABELS, PARTS
from jaxface.render import label_triangles, render_labels
from jaxface.training import evaluation
from toys.models import toy_model

SIZE = 32


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "BATCH_SIZE", 4)
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


@jax.jit
def decode(model, vectors, camera):
    coefficients = jaxface.Coefficients.from_vector(vectors, model)
    face = jaxface.decode_face(model, coefficients, camera)
    return face, landmark_points(model, face.points, coefficients.angles[:, 2])


@pytest.fixture(scope="module")
def samples(model, camera, truth):
    """Samples whose labels and landmarks are exactly those of `truth`; the last is like a photo without landmarks."""
    face, points = decode(model, truth, camera)
    labels = label_triangles(model.parts, model.triangles)
    drawn = render_labels(face.points, face.depth, model.triangles, labels, image_size=SIZE)
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


@pytest.mark.slow
def test_the_truth_has_no_error(model, camera, truth, samples):
    result = evaluation.evaluate_predictions(model, truth, samples, camera)
    seen = {part: any((s["labels"] == LABELS[part]).any() for s in samples) for part in PARTS}
    assert result["part_iou"] == 1.0
    assert all(result[f"part_iou_{part}"] == 1.0 for part in PARTS if seen[part])
    assert result["landmark_error_px"] < 1e-4
    assert result["landmark_error_interocular"] < 1e-4
    assert result["vertex_error_mm"] < 1e-2


@pytest.mark.slow
def test_measures_equal_their_definitions_whatever_the_batch(model, camera, truth, samples):
    vectors = np.zeros_like(truth)
    measures = evaluation.measure_faces(model, vectors, samples, camera)
    assert {value.shape for value in measures.values()} == {(6,)}
    face, points = decode(model, vectors, camera)
    true_face, _ = decode(model, truth, camera)
    vertex_error = np.asarray(metrics.vertex_error_mm(face.shape, true_face.shape))
    np.testing.assert_allclose(measures["vertex_error_mm"], np.where(np.arange(6) < 5, vertex_error, np.nan), rtol=1e-4)
    points = np.asarray(points)
    for i, sample in enumerate(samples[:5]):
        distance = np.linalg.norm(points[i] - sample["landmarks"], axis=-1).mean()
        eyes = np.linalg.norm(sample["landmarks"][36] - sample["landmarks"][45])
        assert measures["landmark_error_px"][i] == pytest.approx(distance * 224 / SIZE, rel=1e-4)
        assert measures["landmark_error_interocular"][i] == pytest.approx(distance / eyes, rel=1e-4)
    assert np.isnan(measures["landmark_error_px"][5])
    alone = evaluation.measure_faces(model, vectors[4:], samples[4:], camera)
    for name, values in alone.items():
        np.testing.assert_allclose(values, measures[name][4:], rtol=1e-6)


def test_summary_is_the_mean_of_what_is_known():
    nan = np.nan
    measures = {f"part_iou_{part}": np.array([0.2, nan]) for part in PARTS}
    measures["part_iou_nose"] = np.array([0.9, 0.9])
    measures["part_iou_skin"] = np.array([nan, 1.0])
    measures |= {"part_iou": np.array([0.3, 0.9]), "vertex_error_mm": np.array([nan, nan])}
    summary = evaluation.summarize(measures)
    assert summary["part_iou"] == pytest.approx((6 * 0.2 + 0.9) / 7)
    assert summary["part_iou_skin"] == 1.0
    assert np.isnan(summary["vertex_error_mm"])


@pytest.mark.slow
def test_measuring_compiles_once(model, camera, truth, samples):
    evaluation.measure_faces(model, truth, samples, camera)
    before = evaluation._measure_batch._cache_size()
    evaluation.measure_faces(model, truth[:3], samples[:3], camera)
    assert evaluation._measure_batch._cache_size() == before


@pytest.mark.slow
def test_drawn_faces_show_what_is_measured(model, camera, truth, samples):
    drawn = evaluation.draw_faces(model, truth, camera)
    np.testing.assert_array_equal(drawn["labels"], [sample["labels"] for sample in samples])
    np.testing.assert_allclose(drawn["landmarks"], [sample["landmarks"] for sample in samples], atol=1e-4)
    for name in ("colors", "normals"):
        assert drawn[name].shape == (6, SIZE, SIZE, 3)
        np.testing.assert_array_equal(drawn[name].any(-1), drawn["labels"] > 0)


def test_table_leaves_out_what_nobody_knows():
    known = {"part_iou": 0.71234, "landmark_error_interocular": 0.034, "vertex_error_mm": np.nan}
    table = evaluation.comparison_table({"encoder": known, "mean face": {"part_iou": 0.3}}).splitlines()
    assert len({len(line) for line in table}) == 1
    assert [cell.strip() for cell in table[2].split("|")[1:-1]] == ["Part IoU, mean of seven parts", "0.712", "0.300"]
    assert [cell.strip() for cell in table[3].split("|")[2:-1]] == ["3.400", "-"]
    assert len(table) == 4


@pytest.fixture
def dataset(tmp_path, samples):
    """The samples in the folder format; the image of the third is damaged."""
    for index, sample in enumerate(samples):
        folder = tmp_path / "data" / f"face_{index}"
        folder.mkdir(parents=True)
        Image.fromarray(np.full((SIZE, SIZE, 3), index, np.uint8)).save(folder / "image.png")
        Image.fromarray(sample["labels"]).save(folder / "labels.png")
        content = {name: sample[name].tolist() for name in ("landmarks", "landmark_weights")}
        (folder / "landmarks.json").write_text(json.dumps(content))
    (tmp_path / "data" / "face_2" / "image.png").write_bytes(b"")
    return tmp_path / "data"


@pytest.fixture
def trained(monkeypatch, model, truth):
    """An encoder that knows the truth of each sample by its grey value, and errs on the last two."""

    def predict(images):
        vectors = truth[images[:, 0, 0, 0]].copy()
        vectors[images[:, 0, 0, 0] >= 4, -1] += 2.0
        return vectors

    loaded = (predict, model, ConfigDict({"image_size": SIZE}))
    monkeypatch.setattr("jaxface.networks.checkpoints.load_encoder", lambda path, model=None: loaded)


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_results(tmp_path, dataset, trained, capsys):
    out = tmp_path / "out"
    assert evaluate.main([str(dataset), "--checkpoint", "somewhere", "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "face_2" in printed.err and "1 failed" in printed.out
    assert "Part IoU, nose" in printed.out and "Vertex error" not in printed.out
    results = json.loads((out / "results.json").read_text())
    assert results["face_count"] == 5
    assert results["encoder"]["part_iou"] > results["mean_face"]["part_iou"]
    assert results["encoder"]["vertex_error_mm"] is None
    by_name = {face["face"]: face for face in results["faces"]}
    assert sorted(by_name) == ["face_0", "face_1", "face_3", "face_4", "face_5"]
    assert by_name["face_0"]["part_iou"] == 1.0 > by_name["face_4"]["part_iou"]
    assert by_name["face_5"]["landmark_error_px"] is None
    with Image.open(out / "faces.png") as sheet:
        assert sheet.width > 5 * SIZE
    assert sorted(file.name for file in out.iterdir()) == ["faces.png", "results.json"]


def test_the_command_fails_when_no_face_can_be_read(tmp_path, dataset, trained, capsys):
    for folder in dataset.iterdir():
        (folder / "labels.png").unlink()
    assert evaluate.main([str(dataset), "--checkpoint", "somewhere", "--out", str(tmp_path / "out")]) == 2
    assert "no part masks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
