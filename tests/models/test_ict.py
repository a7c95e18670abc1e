import functools
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
from toys import ict as toys

SAMPLE = Path(jaxface.__file__).parents[2] / "shared" / "data" / "ict_facekit_sample" / "FaceXModel"
render = jax.jit(functools.partial(rasterize, image_size=(64, 64)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return toys.write_ict(tmp_path, monkeypatch)


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
        offsets = [0.1 * (_slow_vertices(folder / f"{name}.obj") - neutral)[: toys.FACE_VERTICES] for name in names]
        np.testing.assert_allclose(basis[: toys.FACE_VERTICES], np.stack(offsets, -1), atol=1e-6)
    corners = np.asarray(toys.landmarks())[[36, 39, 42, 45]]
    np.testing.assert_allclose(model.mean_shape[corners].mean(0), ict.EYES_AT, atol=1e-6)
    spans = np.ptp(model.mean_shape[: toys.FACE_VERTICES], axis=0), np.ptp(0.1 * neutral[: toys.FACE_VERTICES], axis=0)
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
    for row, column, height, width in toys.holes():
        around = {toys.vertex(row + dy, column + dx) for dy in (0, height) for dx in range(width + 1)}
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
    model, marks = read_ict(folder), toys.landmarks()
    upper, lower = set(model.parts["upper_lip"].tolist()), set(model.parts["lower_lip"].tolist())
    assert set(marks[49:54] + marks[61:64]) <= upper and set(marks[55:60] + marks[65:68]) <= lower
    assert not upper & lower
    allowed = {toys.vertex(row, column) for row in range(11, 16) for column in range(6, 15)}
    assert upper | lower <= allowed
    np.testing.assert_array_equal(model.landmarks["68"], marks)


def test_the_mirror_table_is_there_for_a_symmetric_mesh_alone(folder):
    model = read_ict(folder)
    np.testing.assert_array_equal(model.mirror[model.mirror], np.arange(len(model.mean_shape)))
    np.testing.assert_allclose(model.mean_shape[model.mirror] * [-1, 1, 1], model.mean_shape, atol=1e-5)
    vertices, quads = toys.mesh()
    vertices[5, 1] += 0.1
    toys.write_obj(folder / ict.NEUTRAL, vertices, quads)
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
