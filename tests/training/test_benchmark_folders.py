"""Files of benchmarks that are damaged; tests/training/test_benchmarks.py reads whole folders."""

import pytest

from jaxface.core.errors import InputError
from jaxface.training.benchmark_folders import read_picked_points


def test_picked_points_without_numbers_are_told(tmp_path):
    path = tmp_path / "a.pp"
    for text, told in (("<PickedPoints/>", "no picked points"), ('<point x="1" y="b" z="2"/>', "has no x, y and z")):
        path.write_text(text)
        with pytest.raises(InputError, match=told):
            read_picked_points(path)
