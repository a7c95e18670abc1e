"""Eyes, lids and mouth for random people: closed is closed, teeth are where they belong."""

import jax
import numpy as np
import pytest

import jaxface
from jaxface.core.parts import LABELS
from jaxface.render import label_triangles, rasterize

PEOPLE = 300


@pytest.fixture(scope="module")
def people(anny):
    random = np.random.default_rng(5)
    return random.normal(size=(PEOPLE, anny.identity_basis.shape[-1])).clip(-2.5, 2.5).astype(np.float32)


@pytest.fixture(scope="module")
def pieces(anny):
    """Vertices of each piece of the mesh, the face first."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([anny.triangles[:, [0, 1]], anny.triangles[:, [1, 2]]])
    count = len(anny.mean_shape)
    graph = csr_matrix((np.ones(len(edges)), edges.T), (count, count))
    labels = connected_components(graph, directed=False)[1]
    return sorted((np.flatnonzero(labels == i) for i in range(labels.max() + 1)), key=len, reverse=True)


def seen_triangles(anny, identity, size=224, **units):
    """Index of the triangle seen at every pixel, per person [N, S, S], -1 for none."""
    expression = np.zeros(len(anny.expression_names), np.float32)
    for name, value in units.items():
        expression[anny.expression_names.index(name)] = value

    @jax.jit
    def draw(model, identity):
        count = len(identity)
        coefficients = jaxface.Coefficients.zeros(model, count).replace(
            identity=identity, expression=np.tile(expression, (count, 1))
        )
        face = jaxface.decode_face(model, coefficients, jaxface.Camera().resized(size))
        return rasterize(face.points, face.depth, model.triangles, image_size=size).triangle

    return np.concatenate([np.asarray(draw(anny, part)) for part in np.split(identity, len(identity) // 20)])


def eye_pixels(anny, seen):
    labels = np.append(label_triangles(anny.parts, anny.triangles), 0)[seen]
    return ((labels == LABELS["left_eye"]) | (labels == LABELS["right_eye"])).sum((1, 2))


@pytest.mark.slow
def test_closed_eyes_show_no_white_for_anybody(anny, people):
    assert eye_pixels(anny, seen_triangles(anny, people[:20])).min() > 100
    assert eye_pixels(anny, seen_triangles(anny, people, eyeBlinkLeft=1, eyeBlinkRight=1)).max() == 0


@pytest.mark.slow
def test_closed_lips_show_no_teeth(anny, people, pieces):
    inner = np.isin(anny.triangles[:, 0], np.concatenate(pieces[1:]))
    shown = np.append(inner, False)[seen_triangles(anny, people)].sum((1, 2))
    assert (shown <= 4).mean() > 0.95


@pytest.mark.slow
def test_an_open_smile_shows_teeth_in_front_of_nothing(anny, people, pieces):
    units = {"jawOpen": 0.7, "mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}
    inner = np.isin(anny.triangles[:, 0], np.concatenate(pieces[1:]))
    shown = np.append(inner, False)[seen_triangles(anny, people[:40], **units)]
    assert shown.sum((1, 2)).min() > 100
    # What is seen of the mouth is within the opening: without teeth and tongue, these pixels show the cavity.
    bare = seen_triangles(anny.__class__(**{**vars(anny), "triangles": anny.triangles[~inner]}), people[:40], **units)
    in_parts = np.isin(anny.triangles[~inner], np.concatenate(list(anny.parts.values()))).all(1)
    assert np.append(in_parts, True)[bare][shown].mean() < 0.05


def test_teeth_hold_together(anny, people, pieces):
    """At an open smile, no tooth of anybody is stretched or squeezed beyond a quarter of its size."""
    names = anny.expression_names
    smile = [names.index(f"mouthSmile{side}") for side in ("Left", "Right")]
    units = 0.7 * anny.expression_basis[..., names.index("jawOpen")]
    units = units + 0.8 * anny.expression_basis[..., smile].sum(-1)
    for tooth in pieces[1:]:
        rest = anny.mean_shape[tooth]
        moved = rest + units[tooth] + np.einsum("vck,bk->bvc", anny.identity_basis[tooth], people)
        size = np.linalg.norm(moved - moved.mean(1, keepdims=True), axis=-1).mean(1)
        usual = np.linalg.norm(rest - rest.mean(0), axis=-1).mean()
        assert size.min() / usual > 0.75 and size.max() / usual < 1.25


def test_only_the_lower_teeth_follow_the_jaw(anny, pieces):
    jaw = anny.expression_basis[..., anny.expression_names.index("jawOpen")]
    moved = np.array([np.linalg.norm(jaw[piece], axis=-1).mean() for piece in pieces[1:]])
    # The gums, 14 teeth and the tongue; the gums, 14 teeth and a loose facet of two of them.
    assert (moved > 0.05).sum() == 16 and (moved < 1e-4).sum() == 17
    tongue = anny.expression_basis[..., anny.expression_names.index("tongueOut")]
    assert sum(np.abs(tongue[piece]).max() > 0.1 for piece in pieces) == 1


def test_eyes_lie_on_spheres(anny):
    """What is seen of the iris's surroundings lies on a sphere of 12 mm, within 0.3 mm."""
    for part in ("left_eye", "right_eye"):
        eye = anny.mean_shape[anny.parts[part]]
        middle = (eye[:, :2].min(0) + eye[:, :2].max(0)) / 2
        near = eye[np.linalg.norm(eye[:, :2] - middle, axis=1) < 0.06]
        system = np.concatenate([2 * near, np.ones((len(near), 1))], 1)
        center = np.linalg.lstsq(system, (near**2).sum(1), rcond=None)[0]
        radius = np.sqrt(center[3] + (center[:3] ** 2).sum())
        assert 0.11 < radius < 0.135
        assert np.abs(np.linalg.norm(near - center[:3], axis=1) - radius).max() < 0.003


def test_texture_coordinates_of_the_mouth_lie_beside_the_face(anny, pieces):
    face = anny.uv[pieces[0]]
    for piece in pieces[1:]:
        low, high = anny.uv[piece].min(0), anny.uv[piece].max(0)
        assert not ((face > low - 0.005) & (face < high + 0.005)).all(1).any()
