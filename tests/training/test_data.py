"""What a training's config asks for, from either format of a dataset, in one or several processes."""

import numpy as np
import pytest
from absl import flags

from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.photos import preparation
from jaxface.photos.shards import ShardSource, list_name
from jaxface.training.data import make_training_data
from toys.face_points import toy_face_model
from toys.many_photos import make_photos, stand_in

pytest.importorskip("array_record")

SIZE, SAMPLES, HELD_OUT = 32, 21, 4


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    photos = make_photos(folder / "photos", 20)
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch.setattr)
        for format in ("folders", "shards"):
            preparation.preprocess_files([photos], folder / format, size=SIZE, format=format, samples_per_file=5)
    return folder


def config(path, *, source="folder", held_out=HELD_OUT, workers=0):
    from ml_collections import ConfigDict

    data = {"source": source, "path": str(path), "held_out": held_out, "workers": workers}
    return ConfigDict({"data": data, "image_size": SIZE, "batch_size": 8, "seed": 3})


def test_shards_are_recognised_and_their_last_samples_held_out(datasets):
    batches, held_out = make_training_data(config(datasets / "shards"), toy_face_model())
    batch = next(batches)
    assert batch["image"].shape == (8, SIZE, SIZE, 3)
    assert batch["coefficients"].shape == (8, vector_size(toy_face_model()))
    source = ShardSource(datasets / "shards", size=SIZE, coefficient_count=vector_size(toy_face_model()))
    assert len(source) == SAMPLES and len(held_out) == HELD_OUT
    for sample, index in zip(held_out, range(SAMPLES - HELD_OUT, SAMPLES), strict=True):
        assert all(np.array_equal(sample[key], source[index][key]) for key in sample)


def test_folders_are_still_read(datasets):
    batches, held_out = make_training_data(config(datasets / "folders"), toy_face_model())
    assert next(batches)["image"].shape == (8, SIZE, SIZE, 3) and len(held_out) == HELD_OUT


@pytest.mark.slow
def test_loading_processes_give_the_same_batches_from_any_step(datasets):
    flags.FLAGS.mark_as_parsed()
    alone, _ = make_training_data(config(datasets / "shards"), toy_face_model())
    expected = [next(alone) for _ in range(6)]
    several, _ = make_training_data(config(datasets / "shards", workers=2), toy_face_model())
    found = [next(several) for _ in range(3)]
    resumed, _ = make_training_data(config(datasets / "shards", workers=3), toy_face_model(), start=3)
    found += [next(resumed) for _ in range(3)]
    for one, other in zip(expected, found, strict=True):
        assert all(np.array_equal(one[key], other[key]) for key in one)


def test_a_damaged_sample_is_replaced_and_told_of(datasets, tmp_path, capsys):
    for path in (datasets / "shards").glob("samples-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = (tmp_path / list_name(1, 1, 0)).with_suffix(".array_record")
    content = bytearray(data.read_bytes())
    content[300:400] = bytes(100)
    data.write_bytes(content)
    batches, _ = make_training_data(config(tmp_path), toy_face_model())
    for _ in range(4):
        assert next(batches)["image"].shape == (8, SIZE, SIZE, 3)
    assert "skipped: " in (told := capsys.readouterr().err) and data.name in told


def test_what_cannot_be_trained_on_is_said_at_once(datasets, tmp_path):
    for path, source, message in [
        (datasets / "shards", "shards", "choose 'synthetic', 'drawn' or 'folder'"),
        ("", "folder", "config.data.path is empty"),
        (tmp_path, "folder", "no samples found"),
        (tmp_path / "nothing", "folder", "no such folder"),
    ]:
        with pytest.raises(InputError, match=message):
            make_training_data(config(path, source=source), toy_face_model())
    with pytest.raises(InputError, match=r"holds 21 samples, and config\.data\.held_out would keep 30"):
        make_training_data(config(datasets / "shards", held_out=30), toy_face_model())
