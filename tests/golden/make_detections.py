"""Asks MediaPipe 0.10.14 what it sees in small pictures: `PYTHONPATH=.:tests python tests/golden/make_detections.py`.

It writes detections.npz, which tests of jaxface's own networks compare with, so that they need no MediaPipe.
"""

import hashlib
import itertools
import math
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from jaxface.photos.warping import Square, cut_square
from jaxface.results.demo import portrait_paths

PATH = Path(__file__).with_name("detections.npz")

FULL, SHORT, MESH = 192, 128, 360
"""Pixels a side: of the detectors' inputs, which MediaPipe then takes as they are; and for the mesh."""

FACES = 10
"""Detections kept of a picture, at most."""


def sources():
    """The two portraits and a sheet of drawn faces."""
    sheet = Path(__file__).with_name("drawn_faces.png")
    paths = portrait_paths() | {"drawn": sheet}
    return {name: np.asarray(Image.open(path).convert("RGB")) for name, path in paths.items()}


def squares():
    """(source, square) of each picture: scales and turns, cuts through faces, drawn ones, several faces."""
    turns = [math.radians(angle) for angle in (0, -18, 33)]
    portraits = {"astronaut": ((225, 124), (190, 300, 512)), "grace_hopper": ((262, 235), (340, 500, 640))}
    for name, (center, sides) in portraits.items():
        yield from ((name, Square(center, side, turn)) for side, turn in itertools.product(sides, turns))
        x, y = center
        side = sides[0]
        for move in ((0.35, 0.0), (-0.3, 0.2), (0.0, 0.35)):
            yield name, Square((x + move[0] * side, y + move[1] * side), side)
    for index, turn in zip((1, 4, 9, 12, 15, 18, 26), itertools.cycle(turns)):
        row, column = divmod(index, 8)
        yield "drawn", Square((180 * column + 90, 180 * row + 90), 230 + 10 * index, turn)
    yield from (("drawn", Square((360, 360), side)) for side in (400, 540, 720))


def pictures(size):
    """The pictures, `size` pixels a side, cut in whole numbers: the same bytes on every machine."""
    photos = sources()
    return [cut_square(photos[name], square, size, repeat_border=False) for name, square in squares()]


def digests():
    """Of each picture: another decoder of JPEG files may see other bytes, of which MediaPipe was not asked."""
    return np.array([hashlib.sha256(picture.tobytes()).hexdigest()[:16] for picture in pictures(MESH)])


def ask_mediapipe():
    """What it says of each picture.

    Returns:
        full, short: [P, FACES, 17] left, top, right, bottom, six keypoints, score, relative to the picture; nan where
        there are no more. region: [P, 4] centre, side and angle of the mesh's square, in pixels. points: [P, 478, 3].
    """
    from mediapipe.python.solutions.face_detection import FaceDetection

    arrays = {name: np.full((len(digests()), FACES, 17), np.nan, np.float32) for name in ("full", "short")}
    arrays["region"] = np.full((len(digests()), 4), np.nan, np.float32)
    arrays["points"] = np.full((len(digests()), 478, 3), np.nan, np.float32)
    with warnings.catch_warnings(), FaceDetection(model_selection=1) as detector, _face_mesh() as mesh:
        warnings.simplefilter("ignore")  # deprecated functions of protobuf
        for index, picture in enumerate(pictures(FULL)):
            _fill(arrays["full"][index], detector.process(picture).detections)
        for index, picture in enumerate(pictures(SHORT)):
            _fill(arrays["short"][index], mesh.process(picture).face_detections)
        for index, picture in enumerate(pictures(MESH)):
            result = mesh.process(picture)
            if result.multi_face_landmarks:
                rect, landmarks = result.face_rects_from_detections[0], result.multi_face_landmarks[0].landmark
                arrays["region"][index] = rect.x_center, rect.y_center, rect.width, rect.rotation
                arrays["region"][index, :3] *= MESH
                arrays["points"][index] = [(MESH * point.x, MESH * point.y, MESH * point.z) for point in landmarks]
    return arrays


def _face_mesh():
    """FaceMesh that gives the detections and the mesh's square out as well."""
    from mediapipe.python.solution_base import SolutionBase
    from mediapipe.python.solutions.face_mesh import FaceMesh

    class Telling(FaceMesh):
        def __init__(self):
            begin = SolutionBase.__init__

            def begin_with_more(*arguments, **options):
                options["outputs"] = ["multi_face_landmarks", "face_detections", "face_rects_from_detections"]
                begin(*arguments, **options)

            SolutionBase.__init__ = begin_with_more
            try:
                super().__init__(static_image_mode=True, refine_landmarks=True, max_num_faces=1)
            finally:
                SolutionBase.__init__ = begin

    return Telling()


def _fill(rows, detections):
    for row, detection in zip(rows, detections or (), strict=False):
        box, points = detection.location_data.relative_bounding_box, detection.location_data.relative_keypoints
        corners = [box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height]
        row[:] = [*corners, *itertools.chain.from_iterable((point.x, point.y) for point in points), detection.score[0]]


if __name__ == "__main__":
    np.savez_compressed(PATH, digests=digests(), **ask_mediapipe())
    print(f"{PATH}: {len(digests())} pictures, {PATH.stat().st_size} bytes")
