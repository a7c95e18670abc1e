"""What is no photo for one command is none for the others, in the same words."""

import sys

import pytest
from PIL import Image

from jaxface.photos import preparation
from jaxface.results import person
from toys import photos as toys
from toys.models import toy_model


@pytest.mark.parametrize("name", ["IMG_1.heic", "IMG_1.jpg"])
def test_fit_preprocess_and_same_person_say_the_same_of_a_photo(tmp_path, monkeypatch, name):
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs it; it is in the extra photo")
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (90, 80, 70))).save(tmp_path / "a.heic")
    photo = (tmp_path / "a.heic").rename(tmp_path / name)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(person, "load_for_person", lambda *_: (toy_model(), None, None, None))
    fitted = toys.process(photo, tmp_path / "fit")[0]
    together = person.fit_person([photo], tmp_path / "person")[0]
    prepared = preparation.preprocess_files([photo], tmp_path / "dataset", size=64, workers=0)
    said = f"{photo}: HEIC pictures need pillow-heif; run: pip install 'jaxface[photo]', or save it as JPEG"
    assert fitted.failures[0] == together.failures[0] == prepared.failures[0] == said
