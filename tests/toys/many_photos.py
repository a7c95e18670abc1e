"""Many small photos in no time: flat pictures whose faces a stand-in reads from one pixel, for runs that are killed.

python many_photos.py PHOTOS OUT [OPTIONS OF preprocess]
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from jaxface import preprocess
from jaxface.photos import preparation
from jaxface.photos.detection import DetectedFace
from toys.face_points import toy_face_model

SIDE = 64
SLOW, DEADLY, DARK = 250, 251, 0
"""Red values with a meaning: a look that takes its time, a worker that dies, a photo without a face."""


def make_photo(path: Path, faces: int, number: int) -> Path:
    """A photo that tells how many faces are in it, and which photo it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((SIDE, SIDE, 3), (faces, number % 256, number // 256), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_photos(folder: Path, count: int) -> Path:
    """Photos with one face, with two (every 5th), with none (every 7th), and one that is cut short (the 11th)."""
    for number in range(count):
        faces = DARK if number % 7 == 6 else 2 if number % 5 == 4 else 1
        path = make_photo(folder / f"{number % 3}" / f"{number:03}.png", faces, number)
        if number == 11:
            path.write_bytes(path.read_bytes()[:60])
    return folder


def find_faces(image: np.ndarray) -> list[DetectedFace]:
    """As many faces as the red value says, at places that depend on the photo."""
    count, number = int(image[0, 0, 0]), int(image[0, 0, 1])
    if count == SLOW:
        time.sleep(0.05)
        count = 1
    if count == DEADLY:
        count = 1
    random = np.random.default_rng(number)
    return [DetectedFace(random.uniform(10, 50, (478, 2)), 0.9 - index / 10) for index in range(count)]


def label(photo, face, alignment, *, path=None):
    """A label map that is all skin; of a deadly photo, the process's end."""
    if photo[0, 0, 0] == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.full((alignment.size, alignment.size), 8, np.uint8)


def stand_in(patch) -> None:
    """Puts the stand-ins in their places, by `patch(module, name, value)`."""
    patch(preparation, "detect_faces_in", lambda images: [find_faces(image) for image in images])
    patch(preparation, "load_face_model", lambda name: toy_face_model())
    patch(preparation, "create_parser", lambda *arguments, **options: label)


def main() -> int:
    stand_in(setattr)
    return preprocess.main([*sys.argv[1:], "--size", "32"])


if __name__ == "__main__":
    from jaxface.files.command_line import run

    run(main)
