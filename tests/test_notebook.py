"""examples/fit_a_photo.ipynb runs from top to bottom, as a reader would run it, and holds its pictures."""

import base64
import importlib.util
import io
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

NOTEBOOK = Path(__file__).parent.parent / "examples" / "fit_a_photo.ipynb"


def pictures(notebook) -> list[Image.Image]:
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return [Image.open(io.BytesIO(base64.b64decode(one["image/png"]))) for one in data if "image/png" in one]


def test_the_notebook_holds_its_small_pictures():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(pictures(notebook)) == 5
    assert NOTEBOOK.stat().st_size < 1_500_000
    text = NOTEBOOK.read_text()
    assert '"stderr"' not in text and '"error"' not in text and "/home/" not in text


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="needs jaxface[photo]: scikit-image")
@pytest.mark.filterwarnings("default")  # those of the notebook's machinery
def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    saved = pictures(notebook)
    client = nbclient.NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises the error of a cell
    assert (tmp_path / "outputs" / "notebook" / "surprised.glb").stat().st_size > 100_000
    for picture, before in zip(pictures(notebook), saved, strict=True):
        assert picture.size == before.size
        pixels = np.asarray(picture.convert("RGB"), np.float32)
        assert pixels.std() > 20  # something is to be seen
        assert np.abs(pixels - np.asarray(before.convert("RGB"), np.float32)).mean() < 12  # much the same
