import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxface
from jaxface.core.errors import InputError
from jaxface.core.face_models import shape, vertex_normals
from jaxface.core.parts import PARTS
from jaxface.models import ict
from jaxface.models.ict import expression_names, read_ict
from jaxface.render import rasterize

SAMPLE = Path(jaxface.__file__).parents[2] / "shared" / "data" / "ict_facekit_sample" / "FaceXModel"
render = jax.jit(functools.partial(rasterize, image_size=(64, 64)))
COLUMNS, ROWS, BALL = 21, 19, 30
FACE_VERTICES = COLUMNS * ROWS


def _vertex(row, column):
    return row * COLUMNS + column


def _holes():
    """First row and column, height and width in quads: the subject's right eye, left eye, mouth."""
    return (4, 3, 2, 4), (4, 13, 2, 4), (12, 7, 2, 6)


def _mesh():
    """A dome of quads with openings for eyes and mouth, as the makers' mesh has; behind it two balls."""
    x, y = np.meshgrid(0.8 * (np.arange(COLUMNS) - 10), 0.8 * (9 - np.arange(ROWS)))
    face = np.stack([x, y, 10 - 0.03 * (x**2 + y**2)], -1).reshape(-1, 3)
    for row, column, _, width in _holes():
        face[[_vertex(row + 1, column), _vertex(row + 1, column + width)], 0] += -0.4, 0.4  # pointed corners
    points = np.random.default_rng(0).normal(size=(BALL, 3))
    ball = 1.4 * points / np.linalg.norm(points, axis=1, keepdims=True)
    centers = [face[[_vertex(4, left), _vertex(6, left + 4)]].mean(0) - [0, 0, 2.5] for left in (13, 3)]
    quads = []
    for row in range(ROWS - 1):
        for column in range(COLUMNS - 1):
            if not any(r <= row < r + h and c <= column < c + w for r, c, h, w in _holes()):
                corners = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
                quads.append([_vertex(*corner) for corner in corners])
    first = quads.pop(0)
    quads += [[first[0], first[1], first[2]], [first[0], first[2], first[3]]]  # the makers' mesh has triangles as well
    return np.concatenate([face, centers[0] + ball, centers[1] + ball * [-1, 1, 1]]), quads


def _landmarks():
    marks = np.zeros(68, int)
    for outer, (row, column, _, width) in ((36, _holes()[0]), (42, _holes()[1])):
        marks[outer], marks[outer + 3] = _vertex(row + 1, column), _vertex(row + 1, column + width)
    columns = [7, 8, 10, 12, 13]
    marks[48:60] = [_vertex(13, 6), *(_vertex(11, c) for c in columns), _vertex(13, 14)] + [
        _vertex(15, c) for c in reversed(columns)
    ]
    marks[60:68] = [_vertex(13, 7), *(_vertex(12, c) for c in (8, 10, 12)), _vertex(13, 13)] + [
        _vertex(14, c) for c in (12, 10, 8)
    ]
    return marks.tolist()


def _write_obj(path, vertices, quads=None):
    lines = ["# a comment", "mtllib some.mtl", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices)]
    if quads is not None:
        uv = np.stack([vertices[:, 0] / 20 + 0.5, vertices[:, 1] / 20 + 0.5], -1)
        lines += [*(f"vt {u:.6f} {v:.6f}" for u, v in uv), "usemtl M_Face"]
        lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in quad) for quad in quads]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder like the makers', of a small topology that the reader is told of."""
    vertices, quads = _mesh()
    monkeypatch.setattr(ict, "VERTICES", len(vertices))
    monkeypatch.setattr(ict, "AREAS", {"face": (FACE_VERTICES, len(quads)), "narrow": (FACE_VERTICES, len(quads) - 5)})
    balls = slice(FACE_VERTICES, FACE_VERTICES + BALL), slice(FACE_VERTICES + BALL, FACE_VERTICES + 2 * BALL)
    monkeypatch.setattr(ict, "EYEBALLS", dict(zip(("left_eye", "right_eye"), balls, strict=True)))
    _write_obj(tmp_path / ict.NEUTRAL, vertices, quads)
    random = np.random.default_rng(1)
    for name in ("identity001", "identity000", "jawOpen"):
        _write_obj(tmp_path / f"{name}.obj", vertices + 0.1 * random.normal(size=vertices.shape))
    blink = vertices.copy()
    for row, column, _, width in _holes()[:2]:
        for middle in range(column + 1, column + width):
            blink[_vertex(row, middle)] = blink[_vertex(row + 2, middle)]
        for corner in (column, column + width):  # the loop's upper corners lie on the way
            blink[_vertex(row, corner)] = blink[_vertex(row + 2, corner)]
    _write_obj(tmp_path / "eyeBlink_L.obj", blink)
    indices = {
        "expressions": ["browDown_L", "eyeBlink_L", "jawOpen"],
        "idx_to_landmark_verts": _landmarks(),
    }
    (tmp_path / ict.INDICES).write_text(json.dumps(indices))
    return tmp_path


def _slow_vertices(path):
    return np.array([line.split()[1:] for line in path.read_text().splitlines() if line.startswith("v ")], float)


def test_bases_are_files_minus_the_neutral_one(folder):
    model = read_ict(folder)
    assert expression_names(folder) == ("eyeBlink_L", "jawOpen")  # in the order of the list, without what is not there
    neutral = _slow_vertices(folder / ict.NEUTRAL)
    for basis, names in (
        (model.identity_basis, ("identity000", "identity001")),
        (model.expression_basis, expression_names(folder)),
    ):
        offsets = [0.1 * (_slow_vertices(folder / f"{name}.obj") - neutral)[:FACE_VERTICES] for name in names]
        np.testing.assert_allclose(basis[:FACE_VERTICES], np.stack(offsets, -1), atol=1e-6)
    corners = np.asarray(_landmarks())[[36, 39, 42, 45]]
    np.testing.assert_allclose(model.mean_shape[corners].mean(0), ict.EYES_AT, atol=1e-6)
    spans = np.ptp(model.mean_shape[:FACE_VERTICES], axis=0), np.ptp(0.1 * neutral[:FACE_VERTICES], axis=0)
    np.testing.assert_allclose(*spans, atol=1e-6)


def test_the_surface_faces_the_viewer_and_has_no_hole_at_the_eyes(folder):
    model = read_ict(folder)
    corners = model.mean_shape[model.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).all()
    edges = model.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    directed = set(map(tuple, edges.tolist()))
    assert len(directed) == len(edges)  # the sense of rotation agrees everywhere
    rims = {a for a, b in directed if (b, a) not in directed}
    for row, column, height, width in _holes():
        around = {_vertex(row + dy, column + dx) for dy in (0, height) for dx in range(width + 1)}
        assert around <= rims if row == 12 else not around & rims
    assert model.uv.shape == (len(model.mean_shape), 2) and (model.uv[model.triangles] > 0).all()


def test_closed_lids_leave_nothing_of_the_eye(folder):
    model = read_ict(folder)
    names = expression_names(folder)

    def area(part, blink):
        expression = np.float32([blink, 0.0])[: len(names)]
        points = np.asarray(shape(model, np.zeros(2, np.float32), expression))
        inside = np.isin(model.triangles, model.parts[part]).all(1)
        corners = points[model.triangles[inside]]
        return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum()

    for part in ("left_eye", "right_eye"):
        assert area(part, 0.0) > 0.04
        assert area(part, 1.0) < 0.15 * area(part, 0.0)
    assert (
        model.mean_shape[model.parts["left_eye"], 0].mean() > 0 > model.mean_shape[model.parts["right_eye"], 0].mean()
    )


def test_lips_lie_within_the_outer_landmarks(folder):
    model, marks = read_ict(folder), _landmarks()
    upper, lower = set(model.parts["upper_lip"].tolist()), set(model.parts["lower_lip"].tolist())
    assert set(marks[49:54] + marks[61:64]) <= upper and set(marks[55:60] + marks[65:68]) <= lower
    assert not upper & lower
    allowed = {_vertex(row, column) for row in range(11, 16) for column in range(6, 15)}
    assert upper | lower <= allowed
    np.testing.assert_array_equal(model.landmarks["68"], marks)


def test_the_mirror_table_is_there_for_a_symmetric_mesh_alone(folder):
    model = read_ict(folder)
    np.testing.assert_array_equal(model.mirror[model.mirror], np.arange(len(model.mean_shape)))
    np.testing.assert_allclose(model.mean_shape[model.mirror] * [-1, 1, 1], model.mean_shape, atol=1e-5)
    vertices, quads = _mesh()
    vertices[5, 1] += 0.1
    _write_obj(folder / ict.NEUTRAL, vertices, quads)
    assert read_ict(folder).mirror is None


def test_parts_that_the_annotation_tool_left_in_the_folder(folder):
    lines = {"landmarks/68": np.arange(68)[::-1], "contours/68": np.arange(34).reshape(17, 2)}
    np.savez(folder / "parts.npz", **{part: np.array([index]) for index, part in enumerate(PARTS)}, **lines)
    model = read_ict(folder)
    assert set(model.parts) == set(PARTS) and model.parts["skin"].tolist() == [7]
    np.testing.assert_array_equal(model.landmarks["68"], lines["landmarks/68"])
    np.testing.assert_array_equal(model.contours["68"], lines["contours/68"])


def test_an_area_is_cut_out(folder):
    assert len(read_ict(folder, area="narrow").triangles) == len(read_ict(folder).triangles) - 8  # 5 polygons
    with pytest.raises(ValueError, match="choose one of face, narrow"):
        read_ict(folder, area="wide")


def _replace(path, old, new):
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("jawOpen.obj", "\nv ", "\nv x", "jawOpen.obj: the 'v' lines hold something that is not a number"),
        ("jawOpen.obj", "\nv ", "\nv 1.0 ", "jawOpen.obj: the 'v' lines do not hold 3 numbers"),
        ("jawOpen.obj", "\nv ", "\nv nan 0 0\nv ", "jawOpen.obj: the 'v' lines hold values that are not finite"),
        ("identity000.obj", "\nv ", "\nv 0 0 0\nv ", "identity000.obj has 460 vertices, .* 459"),
        (ict.NEUTRAL, "\nf ", "\n# f ", "its first 333 polygons are not those"),
        (ict.NEUTRAL, "\nf 2/2", "\nf 459/2", "its first 333 polygons are not those"),
        (ict.NEUTRAL, "\nf 2/2", "\nf 2", "an 'f' line is not made of vertex/texture pairs"),
        (ict.NEUTRAL, "\nvt ", "\nvt a ", "the 'vt' lines hold something that is not a number"),
        (ict.INDICES, "{", "[", "vertex_indices.json is not valid JSON"),
        (ict.INDICES, "idx_to_landmark_verts", "other", "'idx_to_landmark_verts' is not a list of 68 vertices"),
        (ict.INDICES, "jawOpen", "../jawOpen", "'expressions' is not a list of names"),
    ],
)
def test_what_does_not_fit_is_named(folder, file, old, new, message):
    _replace(folder / file, old, new)
    with pytest.raises(InputError, match=message) as error:
        read_ict(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", [ict.NEUTRAL, ict.INDICES])
def test_missing_files_are_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(InputError, match=f"cannot read .*{file} .*FaceXModel"):
        read_ict(folder)


@pytest.mark.slow
@pytest.mark.parametrize("file", [ict.NEUTRAL, "jawOpen.obj", ict.INDICES])
def test_random_corruptions_are_input_errors_or_read(folder, file):
    whole = (folder / file).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200 if file == ict.NEUTRAL else 50):
        data = bytearray(whole[: random.integers(1, len(whole))] if random.random() < 0.3 else whole)
        for place in random.integers(0, len(data), random.integers(1, 6)):
            data[place] = random.choice([random.integers(0, 256), *b"0123456789 /-.e\n"])
        (folder / file).write_bytes(data)
        try:
            read_ict(folder)
        except InputError as error:
            assert "\n" not in str(error)


@pytest.fixture(scope="module")
def sample():
    if not SAMPLE.is_dir():
        pytest.skip("the sample of ICT-FaceKit is not here")
    return read_ict(SAMPLE)


@pytest.mark.slow
def test_the_makers_files(sample):
    assert sample.mean_shape.shape == (9409 + 200, 3) and sample.identity_basis.shape[-1] == 8
    assert expression_names(SAMPLE)[-2:] == ("mouthSmile_L", "mouthSmile_R") and len(expression_names(SAMPLE)) == 13
    neutral = _slow_vertices(SAMPLE / ict.NEUTRAL)
    for basis, index, name in ((sample.identity_basis, 7, "identity007"), (sample.expression_basis, 8, "jawOpen")):
        offset = 0.1 * (_slow_vertices(SAMPLE / f"{name}.obj") - neutral)[:9409]
        np.testing.assert_allclose(basis[:9409, :, index], offset, atol=1e-6)
    assert 0.85 < np.ptp(sample.mean_shape[sample.landmarks["68"][[36, 45]], 0]) < 0.95  # 8.9 cm
    assert sample.mirror is not None and sample.uv.min() > 0 and sample.uv.max() < 1


@pytest.mark.slow
def test_the_makers_face_looks_at_the_viewer_with_eyes_that_close(sample):
    normals = np.asarray(vertex_normals(sample.mean_shape, sample.triangles))
    assert (normals[sample.landmarks["68"][27:36], 2] > 0).all()
    eye = sample.parts["left_eye"]
    assert (normals[eye[eye >= 9409], 2] > 0.3).all()
    expression = np.zeros(13, np.float32)
    expression[[name.startswith("eyeBlink") for name in expression_names(SAMPLE)]] = 1
    closed = np.asarray(shape(sample, np.zeros(8, np.float32), expression))

    def seen(points):
        """Share of a picture of the left eye, 4 cm wide, that shows the eye's surface."""
        around = sample.triangles[(np.abs(sample.mean_shape[sample.triangles, :2] - [0.31, 0.25]) < 0.3).all((1, 2))]
        xy = (points[:, :2] - [0.31, 0.25]) * [1, -1] * 160 + 32
        fragments = render(np.float32(xy)[None], np.float32(5 - points[None, :, 2]), around)
        triangle = np.asarray(fragments.triangle[0])
        return (np.isin(around[triangle], eye).all(-1) & (triangle >= 0)).mean()

    assert seen(sample.mean_shape) > 0.08
    assert seen(closed) < 0.2 * seen(sample.mean_shape)
