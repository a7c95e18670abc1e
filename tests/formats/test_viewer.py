"""The page is one offline file, holds what it was given, and draws in a real browser."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from jaxface.formats import viewer
from jaxface.parts import PARTS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RED = (220, 30, 40)


def make_page(title="portrait.png", faces=1):
    rows, columns = np.mgrid[0:9, 0:9]
    u, v = columns.ravel() / 8, rows.ravel() / 8
    vertices = np.stack([u - 0.5, v - 0.5, 0.2 - (u - 0.5) ** 2], -1).astype(np.float32)
    corner = (np.arange(8)[:, None] * 9 + np.arange(8)[None]).ravel()
    triangles = np.concatenate(
        [np.stack([corner, corner + 1, corner + 10], -1), np.stack([corner, corner + 10, corner + 9], -1)]
    )
    texture = np.full((64, 64, 3), RED, np.uint8)
    crop = np.full((32, 32, 3), 128, np.uint8)
    face = viewer.ViewerFace(
        label="Face 1",
        vertices=vertices,
        texture=texture,
        pictures={"Photo": crop, "Shape": crop // 2, "Parts": crop},
        part_iou={part: np.nan if part == "nose" else 0.75 for part in PARTS},
        measures={"Landmark error": "1.8 %"},
        files={"GLB": "face_0/mesh.glb"},
    )
    html = viewer.page_html(
        [face] * faces,
        triangles,
        np.stack([u, v], -1),
        np.ones((81, 3)),
        title=title,
        subtitle="a test",
        part_colors=dict.fromkeys(PARTS, (1, 2, 3)),
        photo={"Photo": np.zeros((3000, 40, 3), np.uint8), "Overlay": np.ones((3000, 40, 3), np.uint8)},
        settings={"steps": "3"},
    )
    return html, vertices, triangles


def page_data(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


def test_page_holds_the_mesh():
    html, vertices, triangles = make_page()
    data = page_data(html)
    positions = np.frombuffer(base64.b64decode(data["faces"][0]["positions"]), np.float32).reshape(-1, 3)
    np.testing.assert_array_equal(positions, vertices)
    indices = np.frombuffer(base64.b64decode(data["topology"]["triangles"]), np.uint16).reshape(-1, 3)
    np.testing.assert_array_equal(indices, triangles)
    assert data["topology"]["indexBytes"] == 2
    assert dict((row[0], row[1]) for row in data["faces"][0]["iou"])["nose"] is None


def test_page_is_offline_and_safe_from_names():
    html, *_ = make_page(title='</script><img src=x onerror="alert(1)">.png')
    assert page_data(html)["title"].startswith("</script>")
    assert "<img src=x" not in html
    assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]{2,}", html, re.I)
    assert "default-src 'none'" in html


def test_large_mesh_uses_wide_indices():
    uv = np.zeros((70000, 2))
    face = viewer.ViewerFace("a", np.zeros((70000, 3)), np.zeros((2, 2, 3), np.uint8), {}, {}, {}, {})
    html = viewer.page_html(
        [face],
        np.array([[0, 1, 69999]]),
        uv,
        np.zeros((70000, 3)),
        title="",
        subtitle="",
        part_colors={},
        photo={},
        settings={},
    )
    assert page_data(html)["topology"]["indexBytes"] == 4


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize("size", [(1200, 1500), (390, 844)])
def test_browser_draws_the_mesh(tmp_path, size):
    (tmp_path / "index.html").write_text(make_page(faces=2)[0], encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader"]
    command += ["--enable-unsafe-swiftshader", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars"]
    command += ["--force-prefers-reduced-motion", "--virtual-time-budget=3000", "--enable-logging=stderr"]
    command += [f"--window-size={size[0]},{size[1]}", f"--screenshot={tmp_path / 'page.png'}"]
    run = subprocess.run([*command, (tmp_path / "index.html").as_uri()], capture_output=True, text=True, timeout=90)
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line and "GL Driver Message" not in line]
    assert console == []
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    red = (np.abs(pixels - RED) < 40).all(-1)
    assert red.mean() > 0.05
    columns = np.nonzero(red)[1]
    assert columns.max() < (size[0] / 2 if size[0] > 760 else size[0])  # in the left of two columns, or in the only one
