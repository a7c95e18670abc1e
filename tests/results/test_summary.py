"""summary.json tells of this run and of those before it, whoever wrote it meanwhile."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxface.results.summary import add_clips, add_photos


def read(out):
    return json.loads((out / "summary.json").read_text())


def photo(out, name):
    """A photo, and the folder of its results."""
    (out / name).mkdir(parents=True, exist_ok=True)
    (out.parent / f"{name}.jpg").touch()
    return out.parent / f"{name}.jpg", name


def test_earlier_results_are_kept(tmp_path):
    out = tmp_path / "out"
    a, b, bad = photo(out, "a"), photo(out, "b"), photo(out, "bad")[0]
    add_photos(out, done=[a], reasons={str(bad): "no face"})
    add_clips(out, [{"clip": "x.mp4", "folder": "x"}, {"clip": "y.mp4", "reason": "cut off"}])
    add_photos(out, done=[b], reasons={})
    told = read(out)
    assert [one["folder"] for one in told["done"]] == ["b"] and told["failed"] == []
    assert told["earlier"] == {
        "done": [{"photo": str(a[0]), "folder": "a"}],
        "failed": [{"photo": str(bad), "reason": "no face"}],
    }
    assert len(told["clips"]) == 2
    add_clips(out, [{"clip": "y.mp4", "folder": "y"}])
    assert read(out)["clips"] == [{"clip": "x.mp4", "folder": "x"}, {"clip": "y.mp4", "folder": "y"}]
    (out / "b").rmdir()  # results that are gone are not told of
    add_photos(out, done=[], skipped=[a], reasons={str(bad): "no face"})
    told = read(out)
    assert told["earlier"] == {"done": [], "failed": []} and [one["folder"] for one in told["skipped"]] == ["a"]


def test_files_of_other_programs_and_of_earlier_versions(tmp_path):
    out = tmp_path / "out"
    old = photo(out, "old")
    for content in ("[", "[1]", '{"done": 3}'):
        (out / "summary.json").write_text(content)
        add_photos(out, done=[old], reasons={})
        assert read(out)["earlier"]["done"] == []
    (out / "summary.json").write_text(
        json.dumps({"done": [{"photo": "o.jpg", "folder": "old"}], "skipped": [], "failed": []})
    )
    add_photos(out, done=[photo(out, "new")], reasons={})
    assert [one["folder"] for one in read(out)["earlier"]["done"]] == ["old"]


def test_runs_at_once_are_all_told_of(tmp_path):
    out = tmp_path / "out"
    jobs = [photo(out, f"photo_{number}") for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda job: add_photos(out, done=[job], reasons={}), jobs))
    told = read(out)
    assert {one["folder"] for one in told["done"] + told["earlier"]["done"]} == {name for _, name in jobs}
    assert not list(Path(out).glob(".*"))
