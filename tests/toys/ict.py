"""A folder like ICT-FaceKit's FaceXModel, of a small topology: a dome of quads with openings, two balls behind it."""

import json

import numpy as np

from jaxface.models import ict

COLUMNS, ROWS, BALL = 21, 19, 30
FACE_VERTICES = COLUMNS * ROWS


def vertex(row, column):
    return row * COLUMNS + column


def holes():
    """First row and column, height and width in quads: the subject's right eye, left eye, mouth."""
    return (4, 3, 2, 4), (4, 13, 2, 4), (12, 7, 2, 6)


def mesh():
    """A dome of quads with openings for eyes and mouth, as the makers' mesh has; behind it two balls."""
    x, y = np.meshgrid(0.8 * (np.arange(COLUMNS) - 10), 0.8 * (9 - np.arange(ROWS)))
    face = np.stack([x, y, 10 - 0.03 * (x**2 + y**2)], -1).reshape(-1, 3)
    for row, column, _, width in holes():
        face[[vertex(row + 1, column), vertex(row + 1, column + width)], 0] += -0.4, 0.4  # pointed corners
    points = np.random.default_rng(0).normal(size=(BALL, 3))
    ball = 1.4 * points / np.linalg.norm(points, axis=1, keepdims=True)
    centers = [face[[vertex(4, left), vertex(6, left + 4)]].mean(0) - [0, 0, 2.5] for left in (13, 3)]
    quads = []
    for row in range(ROWS - 1):
        for column in range(COLUMNS - 1):
            if not any(r <= row < r + h and c <= column < c + w for r, c, h, w in holes()):
                corners = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
                quads.append([vertex(*corner) for corner in corners])
    first = quads.pop(0)
    quads += [[first[0], first[1], first[2]], [first[0], first[2], first[3]]]  # the makers' mesh has triangles as well
    return np.concatenate([face, centers[0] + ball, centers[1] + ball * [-1, 1, 1]]), quads


def landmarks():
    marks = np.zeros(68, int)
    for outer, (row, column, _, width) in ((36, holes()[0]), (42, holes()[1])):
        marks[outer], marks[outer + 3] = vertex(row + 1, column), vertex(row + 1, column + width)
    columns = [7, 8, 10, 12, 13]
    marks[48:60] = [vertex(13, 6), *(vertex(11, c) for c in columns), vertex(13, 14)] + [
        vertex(15, c) for c in reversed(columns)
    ]
    marks[60:68] = [vertex(13, 7), *(vertex(12, c) for c in (8, 10, 12)), vertex(13, 13)] + [
        vertex(14, c) for c in (12, 10, 8)
    ]
    return marks.tolist()


def write_obj(path, vertices, quads=None):
    lines = ["# a comment", "mtllib some.mtl", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices)]
    if quads is not None:
        uv = np.stack([vertices[:, 0] / 20 + 0.5, vertices[:, 1] / 20 + 0.5], -1)
        lines += [*(f"vt {u:.6f} {v:.6f}" for u, v in uv), "usemtl M_Face"]
        lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in quad) for quad in quads]
    path.write_text("\n".join(lines) + "\n")


def write_ict(folder, monkeypatch):
    """Writes a folder like the makers', of a small topology that the reader is told of."""
    vertices, quads = mesh()
    monkeypatch.setattr(ict, "VERTICES", len(vertices))
    monkeypatch.setattr(ict, "AREAS", {"face": (FACE_VERTICES, len(quads)), "narrow": (FACE_VERTICES, len(quads) - 5)})
    balls = slice(FACE_VERTICES, FACE_VERTICES + BALL), slice(FACE_VERTICES + BALL, FACE_VERTICES + 2 * BALL)
    monkeypatch.setattr(ict, "EYEBALLS", dict(zip(("left_eye", "right_eye"), balls, strict=True)))
    write_obj(folder / ict.NEUTRAL, vertices, quads)
    random = np.random.default_rng(1)
    for name in ("identity001", "identity000", "jawOpen"):
        write_obj(folder / f"{name}.obj", vertices + 0.1 * random.normal(size=vertices.shape))
    blink = vertices.copy()
    for row, column, _, width in holes()[:2]:
        for middle in range(column + 1, column + width):
            blink[vertex(row, middle)] = blink[vertex(row + 2, middle)]
        for corner in (column, column + width):  # the loop's upper corners lie on the way
            blink[vertex(row, corner)] = blink[vertex(row + 2, corner)]
    write_obj(folder / "eyeBlink_L.obj", blink)
    indices = {
        "expressions": ["browDown_L", "eyeBlink_L", "jawOpen"],
        "idx_to_landmark_verts": landmarks(),
    }
    (folder / ict.INDICES).write_text(json.dumps(indices))
    return folder
