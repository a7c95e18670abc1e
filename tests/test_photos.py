"""The loop over photos: what it writes, what it says of bad photos, how it ends."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxface import drawing, photos
from jaxface.coefficients import vector_size
from jaxface.data.alignment import Alignment
from jaxface.errors import InputError
from toy import toy_model
from toy_training import toy_batch


@pytest.fixture
def model():
    return toy_model()


@pytest.fixture
def toy_photos(tmp_path, monkeypatch, model):
    """Photos in which every bright pixel row is a face, found without MediaPipe; pictures are small."""
    monkeypatch.setattr(drawing, "PICTURE_SIZE", 64)
    monkeypatch.setattr(drawing, "TEXTURE_SIZE", 32)
    batch = toy_batch(model, 2, 224)

    def find(image, model):
        if image.max() == 0:
            raise InputError("no face found")
        sample = {name: values[0] for name, values in batch.items()}
        alignment = Alignment(scale=2.0, offset_x=0.0, offset_y=0.0, size=224, photo_size=image.shape[:2])
        return [(sample, alignment, None)] * 2

    monkeypatch.setattr(photos, "preprocess_photo", find)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (120, 112), (90, 80, 70)).save(folder / "a.png")
    Image.new("RGB", (120, 112), (90, 80, 70)).save(folder / "a.jpg")
    Image.new("RGB", (120, 112)).save(folder / "dark.png")
    (folder / "empty.png").touch()
    return folder


def mean_faces(model):
    return lambda photo, found: np.zeros((len(found), vector_size(model)), np.float32)


def process(toy_photos, out, model, **options):
    return photos.process_photos(
        [toy_photos], out, model, mean_faces(model), description="test", settings={"method": "none"}, **options
    )


def test_bad_photos_are_reported_and_the_rest_goes_on(toy_photos, tmp_path, model, capsys):
    report, pages = process(toy_photos, tmp_path / "out", model)
    assert (report.done, len(report.failures), report.exit_code) == (2, 2, 1)
    assert all(name in " ".join(report.failures) for name in ("dark.png", "empty.png"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "a_2"]
    assert [page.is_file() for page in pages] == [True, True]
    assert {path.name for path in pages[0].parent.iterdir()} == {"face_0", "face_1", "index.html", "photo_overlay.png"}
    capsys.readouterr()
    assert photos.close(report, pages) == 1
    assert capsys.readouterr().out.splitlines()[-1] == str(pages[-1])


def test_largest_face_alone(toy_photos, tmp_path, model):
    process(toy_photos, tmp_path / "out", model, faces="largest")
    assert not (tmp_path / "out" / "a" / "face_1").exists()


def test_nothing_half_written_stays(toy_photos, tmp_path, model, monkeypatch):
    monkeypatch.setattr(photos, "write_photo", lambda folder, *_, **__: (folder / "x").touch() or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        process(toy_photos, tmp_path / "out", model)
    assert list((tmp_path / "out").iterdir()) == []


def test_out_may_not_be_a_file(toy_photos, tmp_path, model):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="is a file"):
        process(toy_photos, tmp_path / "out", model)


def test_only_missing_photos_is_a_failure(tmp_path, model):
    report, pages = photos.process_photos(
        [tmp_path / "none.jpg"], tmp_path / "out", model, mean_faces(model), description="test", settings={}
    )
    assert (report.exit_code, pages) == (2, [])
    assert not (tmp_path / "out").exists()


def test_compiled_code_is_kept_where_the_user_wants_it(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
        photos.keep_compiled()
        assert jax.config.jax_compilation_cache_dir == before
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        photos.keep_compiled()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxface")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
