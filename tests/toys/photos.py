"""A folder of a hundred files of which thirty are no photos of faces, and stand-ins for what takes time."""

import io
import os
import signal
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from jaxface.core.errors import InputError
from jaxface.files import command_line
from jaxface.files.names import BOOK
from jaxface.fitting import SolvedFace
from jaxface.photos.alignment import Alignment
from jaxface.photos.face_crops import FaceCrop
from jaxface.results import photos

GOOD, BAD = 70, 30


def find_faces(image, model, *, parser=None, focal=None):
    """A bright picture is a face whose sample tells its colour; a dark one is none."""
    if image.max() < 8:
        raise InputError("no face found")
    sample = {"image": np.full((4, 4, 3), image[0, 0], np.uint8)}
    alignment = Alignment(scale=2.0, offset_x=0.0, offset_y=0.0, size=224, photo_size=image.shape[:2])
    return [FaceCrop(sample, alignment)]


def solve(samples, initial):
    """A face's vector tells its own colour and how many were solved together."""
    return [SolvedFace(np.float32([*sample["image"][0, 0], len(samples)])) for sample in samples]


def write_photo(folder, model, photo, reconstructions, *, photo_name, subtitle, settings, drawing):
    """The few files that the overview needs."""
    for index, one in enumerate(reconstructions):
        (folder / f"face_{index}").mkdir()
        for name in ("crop", "overlay", "shape"):
            Image.fromarray(one.sample["image"]).save(folder / f"face_{index}" / f"{name}.png")
    (folder / "index.html").write_text(
        f"{photo_name} {subtitle} {dict(settings)} delight={drawing.delight} {[one.vector for one in reconstructions]}"
    )
    measures = {"part_iou": 0.5, "landmark_error_interocular": float("nan"), "doubts": []}
    return None, [measures] * len(reconstructions)


def process(folder, out, solve=solve, **options):
    """`process_photos` with the stand-ins; to be called with `find_faces` and `write_photo` in place."""
    return photos.process_photos(
        [folder, Path(folder) / "folder.jpg"],
        out,
        None,
        solve=solve,
        description="test",
        settings={"method": "toy"} | options.pop("settings", {}),
        **options,
    )


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their path in it, but for the book of names, which tells where the photos are."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != BOOK)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def make_folder(folder: Path) -> Path:
    """70 pictures in many formats, and 30 things that are none or show no face."""
    folder.mkdir()
    formats = ["png", "jpg", "webp", "bmp", "gif", "tiff"]
    for index in range(GOOD - 2):
        _picture(index).save(folder / f"good_{index:02}.{formats[index % len(formats)]}")
    (folder / "deeper").mkdir()
    _picture(90).save(folder / "deeper" / "good_00.jpg", format="PNG")  # a wrong suffix, and a name that is taken
    frames = [_picture(91), _picture(92)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    for name, content in _bad_files().items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    return folder


def _picture(index: int) -> Image.Image:
    return Image.new("RGB", (40 + index, 64), (60 + index, 200 - index, 128))


def _encoded(format: str, size=(64, 48), color=(90, 80, 70), **options) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 60, (size[1], size[0], 3), np.uint8) * (max(color) > 0)
    Image.fromarray(pixels.astype(np.uint8) + np.array(color, np.uint8)).save(stream, format=format, **options)
    return stream.getvalue()


def _bad_files() -> dict[str, bytes]:
    png, jpeg, dark = _encoded("PNG"), _encoded("JPEG"), (0, 0, 0)
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 255
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("photo.jpg", jpeg)
    return {
        "empty.jpg": b"",
        "empty.png": b"",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "cut.webp": _encoded("WEBP", lossless=True)[:200],
        "cut.tiff": _encoded("TIFF")[:300],
        "cut.bmp": _encoded("BMP")[:500],
        "header.jpg": jpeg[:20],
        "header.gif": b"GIF89a",
        "damaged.png": bytes(damaged),
        "text.jpg": b"This is a letter.",
        "page.png": b"<!doctype html><p>404 Not Found",
        "drawing.webp": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "document.jpeg": b"%PDF-1.7\n1 0 obj\n",
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\nshowpage\n",
        "archive.tif": archive.getvalue(),
        "film.jpg": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100),
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "zeros.png": bytes(4096),
        "random.jpg": np.random.default_rng(1).bytes(4096),
        "bomb.png": _png_header(60_000, 60_000),
        "nothing_wide.png": _png_header(0, 100),
        "two_pixels.png": _encoded("PNG", size=(2, 1)),
        "thin.png": _encoded("PNG", size=(500, 1)),
        "black.png": _encoded("PNG", color=dark),
        "black.jpg": _encoded("JPEG", color=dark),
        "black.gif": _encoded("GIF", color=dark, save_all=True, append_images=[Image.new("RGB", (64, 48), (0, 0, 5))]),
    }


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, with next to no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def main() -> int:
    """python photos.py FOLDER OUT: the second batch takes for ever, and says so when it begins."""
    calls = []

    def slow(samples, initial):
        calls.append(len(samples))
        if len(calls) == 2:
            print("solving", flush=True)
            time.sleep(600)
        return solve(samples, initial)

    photos.preprocess_photo, photos.write_photo = find_faces, write_photo
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background may have it ignored
    return command_line.print_summary(*process(sys.argv[1], sys.argv[2], slow))


if __name__ == "__main__":
    from jaxface.files.command_line import run

    run(main, wait_for_threads=False)
