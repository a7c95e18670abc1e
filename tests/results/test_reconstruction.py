"""What results say of how they came about."""

import pytest

from jaxface.results import reconstruction


@pytest.mark.parametrize(("stranger", "start"), [(False, reconstruction.OWN), (True, "mean face")])
def test_a_fit_tells_what_it_started_from(tmp_path, monkeypatch, stranger, start):
    told = []
    monkeypatch.setattr(reconstruction, "process_photos", lambda *_, settings, **__: told.append(settings))
    monkeypatch.setattr(reconstruction, "sample_solver", lambda *_: None)
    if stranger:  # a face model that is not the network's
        monkeypatch.setattr(reconstruction, "onlooker_for", lambda _: None)
    monkeypatch.setattr(reconstruction, "_prepared", reconstruction._prepared.__wrapped__)  # nothing is kept
    reconstruction.fit_photos([tmp_path], tmp_path / "out", recognition="off")
    assert [settings["start"] for settings in told] == [start]
