"""How fast faces are found: a portrait, many small photos, a large photo, and the first photo of a new process.

    python benchmarks/detection.py             (two minutes on two cores; --quick shows that it works)

The photos are the portraits that installed packages carry, in several sizes. Prints a table and writes
outputs/benchmarks/detection.json.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import seconds_of
from PIL import Image

from jaxface.files import command_line
from jaxface.files.atomic import atomic_write
from jaxface.photos.detection import detect_faces, detect_faces_in
from jaxface.results.demo import portrait_paths

OUT = Path("outputs/benchmarks/detection.json")
MANY, SMALL, LARGE = 64, (180, 256), 1600

FIRST_PHOTO = (
    "import sys, numpy as np\nfrom PIL import Image\nfrom jaxface.files.command_line import keep_compiled\n"
    "from jaxface.photos.detection import detect_faces\nkeep_compiled()\n"
    "print(len(detect_faces(np.asarray(Image.open(sys.argv[1]).convert('RGB')))))\n"
)
"""A program that finds the faces of one photo, its networks compiled by an earlier one or not."""


def resized(photo: Image.Image, longer: int) -> np.ndarray:
    """The photo with so many pixels on its longer side."""
    scale = longer / max(photo.size)
    width, height = (round(side * scale) for side in photo.size)
    return np.asarray(photo.resize((width, height), Image.Resampling.LANCZOS))


def measure(*, quick: bool) -> dict[str, float]:
    """All figures."""
    photos = [Image.open(path).convert("RGB") for path in portrait_paths().values()]
    many, budget = (4, 0.0) if quick else (MANY, 10.0)
    sizes = np.linspace(*SMALL, many).round().astype(int)
    small = [resized(photos[index % len(photos)], size) for index, size in enumerate(sizes)]
    portrait, large = resized(photos[0], 512), resized(photos[0], LARGE)
    assert all(len(faces) == 1 for faces in detect_faces_in([portrait, large, *small]))
    each = seconds_of(lambda: detect_faces_in(small), budget)
    figures = {
        "one portrait of 512 px, ms": 1000 * seconds_of(lambda: detect_faces(portrait), budget),
        f"one photo of {LARGE} px, ms": 1000 * seconds_of(lambda: detect_faces(large), budget),
        f"{many} photos of {SMALL[0]} to {SMALL[1]} px, photos/s": many / each,
    }
    command = [sys.executable, "-c", FIRST_PHOTO, str(next(iter(portrait_paths().values())))]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    figures["first photo of a new process, compiled before, s"] = time.perf_counter() - start
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="each figure once, to see that everything works")
    options = parser.parse_args(arguments)
    figures = measure(quick=options.quick)
    with atomic_write(OUT) as partial:
        partial.write_text(json.dumps(figures, indent=1) + "\n")
    for title, value in figures.items():
        print(f"{title}: {value:.3g}")
    return 0


if __name__ == "__main__":
    command_line.keep_compiled()
    command_line.run(main)
