"""The page is one offline file, holds what it was given, and draws in a real browser."""

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxface.core.parts import PARTS
from jaxface.results import viewer
from jaxface.results.blendshapes import Blendshapes

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RED = (220, 30, 40)
GOLDEN = Path(__file__).parents[1] / "golden" / "page.png"


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
        weights=np.array([0.25, 0.0, 0.0]),
    )
    deltas = np.zeros((81, 3, 3), np.float32)
    deltas[:, 1, 0] = -0.8 * vertices[:, 1]  # flattens the sheet
    deltas[80, :, 1] = (0.01, -0.02, 0.03)
    blendshapes = Blendshapes(("mouthSmileLeft", "corner", "nothing"), deltas, (0.0, 1.0))
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
        blendshapes=blendshapes,
    )
    return html, vertices, triangles, blendshapes


def page_data(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


def test_page_holds_the_mesh():
    html, vertices, triangles, _ = make_page()
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


def unpacked(data, vertex_count):
    """The page's blendshapes [E, V, 3], by its format's definition."""
    moved = np.frombuffer(base64.b64decode(data["moved"]), np.uint8).reshape(len(data["names"]), -1)
    moved = np.unpackbits(moved, axis=1, bitorder="little", count=vertex_count).astype(bool)
    counts = np.frombuffer(base64.b64decode(data["counts"]), "<i2").reshape(-1, 3)
    result = np.zeros((*moved.shape, 3))
    result[moved] = counts
    return result * np.array(data["steps"])[:, None, None]


def test_page_holds_the_blendshapes():
    html, _, _, blendshapes = make_page()
    data = page_data(html)
    found = unpacked(data["blendshapes"], 81)
    expected = np.moveaxis(blendshapes.deltas, -1, 0)
    largest = np.abs(expected).max(axis=(1, 2), keepdims=True)
    assert (np.abs(found - expected) <= 0.51 * largest / 32767 + 1e-9).all()
    assert data["blendshapes"]["names"] == list(blendshapes.names) and data["blendshapes"]["limits"] == [0, 1]
    assert data["faces"][0]["weights"] == [0.25, 0, 0]


def test_page_keeps_the_strongest_of_too_many_blendshapes(monkeypatch):
    random = np.random.default_rng(0)
    strength = np.array([3.0, 1.0, 5.0, 2.0, 4.0])
    deltas = (random.normal(size=(50, 3, 5)) * strength).astype(np.float32)
    monkeypatch.setattr(viewer, "BLENDSHAPE_BYTES", 3 * (6 * 50 + 7) + 10)
    face = viewer.ViewerFace("a", np.zeros((50, 3)), np.zeros((2, 2, 3), np.uint8), {}, {}, {}, {}, strength)
    html = viewer.page_html(
        [face], np.array([[0, 1, 2]]), np.zeros((50, 2)), np.zeros((50, 3)), title="", subtitle="", part_colors={},
        photo={}, settings={}, blendshapes=Blendshapes(tuple("abcde"), deltas, (-3.0, 3.0)),
    )  # fmt: skip
    data = page_data(html)
    assert data["blendshapes"]["names"] == ["a", "c", "e"] and data["faces"][0]["weights"] == [3, 5, 4]


def test_a_large_photo_makes_no_large_page():
    noise = np.random.default_rng(0).integers(0, 255, (1500, 2600, 3), np.uint8)
    face = viewer.ViewerFace("a", np.zeros((3, 3)), noise, {}, {}, {}, {})
    html = viewer.page_html(
        [face], np.array([[0, 1, 2]]), np.zeros((3, 2)), np.zeros((3, 3)), title="", subtitle="", part_colors={},
        photo={"Photo": noise, "Overlay": noise}, settings={},
    )  # fmt: skip
    data = page_data(html)
    for url, size in ((data["faces"][0]["texture"], (2048, 1182)), (data["photo"][0][1], (1280, 738))):
        assert Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).size == size


def browse(folder, html, size):
    """Opens a page in a browser: its picture, and the lines that it wrote on the console."""
    (folder / "index.html").write_text(html, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader"]
    command += ["--enable-unsafe-swiftshader", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", "--no-first-run", "--disable-quic", f"--user-data-dir={folder / 'profile'}"]
    command += ["--hide-scrollbars", "--force-prefers-reduced-motion", "--virtual-time-budget=6000"]
    command += ["--enable-logging=stderr", f"--window-size={size[0]},{size[1]}"]
    command += [f"--screenshot={folder / 'page.png'}", (folder / "index.html").as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=90)
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line and "GL Driver Message" not in line]
    return np.asarray(Image.open(folder / "page.png").convert("RGB")).astype(int), console


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")


@needs_browser
def test_the_page_looks_as_it_did(tmp_path):
    """Fonts differ from machine to machine: the picture is made small first. Remade by hand: save `small`."""
    pixels, _ = browse(tmp_path, make_page()[0], (1200, 1500))
    small = np.asarray(Image.fromarray(pixels.astype(np.uint8)).resize((120, 150), Image.Resampling.BOX)).astype(int)
    golden = np.asarray(Image.open(GOLDEN).convert("RGB")).astype(int)

    def difference(picture):
        return np.abs(picture - golden).mean() / 255

    assert difference(small) < 0.02
    assert difference(golden[:, ::-1]) > 0.04 and difference(golden[::-1]) > 0.04 and difference(255 - golden) > 0.2


@needs_browser
@pytest.mark.parametrize("size", [(1200, 1500), (390, 844)])
def test_browser_draws_the_mesh(tmp_path, size):
    pixels, console = browse(tmp_path, make_page(faces=2)[0], size)
    assert console == []
    red = (np.abs(pixels - RED) < 40).all(-1)
    assert red.mean() > 0.05
    rows, columns = np.nonzero(red)
    assert columns.max() < (size[0] / 2 if size[0] > 760 else size[0])  # in the left of two columns, or in the only one
    assert np.ptp(rows) == pytest.approx(1.1 * np.ptp(columns), rel=0.1)  # its left and right edges lie further back


ACTIONS = """<script>
const [flat] = document.querySelectorAll("#sliders input"), cut = document.querySelector("#crop input");
const set = (input, value) => { input.value = value; input.dispatchEvent(new Event("input")); };
const report = { sliders: document.querySelectorAll("#sliders input").length, fitted: flat.value };
set(cut, 250);
report.cut = document.querySelector("#crop").style.getPropertyValue("--cut");
[...document.querySelectorAll("#pictures button")].at(-1).click();
report.picture = document.querySelectorAll("#crop img")[1].alt;
document.querySelector("#play").click();
let asked = 0, most = 0;  // a busy machine draws few frames, and the first one late
const asking = setInterval(() => {
  most = Math.max(most, +flat.value);
  if (most <= 0.26 && ++asked < 100) return;
  clearInterval(asking);
  report.played = most;
  document.querySelector("#fitted").click();
  report.back = flat.value;
  document.querySelector("#neutral").click();
  report.neutral = flat.value;
  set(flat, 1);
  console.log("REPORT " + JSON.stringify(report));
}, 50);
</script></body>"""


@needs_browser
def test_sliders_and_buttons_of_the_page(tmp_path):
    html = make_page()[0].replace("</body>", ACTIONS)
    pixels, console = browse(tmp_path, html, (1200, 1000))
    (line,) = console
    report = json.loads(re.search(r'REPORT (\{.*?\})"', line)[1])
    played = report.pop("played")
    assert 0.26 < played <= 0.9  # from 0.25
    expected = {"sliders": 3, "fitted": "0.25", "cut": "25%", "picture": "Parts", "back": "0.25", "neutral": "0"}
    assert report == expected
    rows, columns = np.nonzero((np.abs(pixels - RED) < 40).all(-1))
    # Fitted at 0.25 of the blendshape that takes 0.8 of the height: at 1 there remain 0.4 of the sheet's.
    assert np.ptp(rows) < 0.6 * np.ptp(columns)
