"""The people's file and how its things are placed on a head, against plain loops and against the face model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from jaxface.core import face_models
from jaxface.core.errors import InputError
from jaxface.synthetic import people as people_file
from jaxface.synthetic.people import (
    SLOTS,
    STILL,
    head_albedo,
    joined_normals,
    load_people,
    place_head,
    wear,
)

COUNT = 20
MM = 100.0
"""Millimetres per model unit."""


@pytest.fixture(scope="module")
def people(anny):
    return load_people(anny)


@pytest.fixture(scope="module")
def drawn(anny):
    """Coefficients of COUNT random persons, each with an expression."""
    rng = np.random.default_rng(3)
    identity = rng.normal(size=(COUNT, anny.identity_basis.shape[-1]))
    expression = rng.uniform(size=(COUNT, anny.expression_basis.shape[-1])) ** 4
    albedo = rng.normal(size=(COUNT, anny.albedo_basis.shape[-1]))
    return tuple(jnp.asarray(array, jnp.float32) for array in (identity, expression, albedo))


@pytest.fixture(scope="module")
def faces(anny, drawn):
    return np.asarray(face_models.shape(anny, *drawn[:2]))


@pytest.fixture(scope="module")
def heads(people, drawn):
    return np.asarray(place_head(people, *drawn[:2]))


def styles_of(people, count, seed=0):
    rng = np.random.default_rng(seed)
    styles = {slot: rng.integers(1, len(people.slots[slot].names), count) for slot in SLOTS}
    return {slot: jnp.asarray(index) for slot, index in (styles | {"lenses": styles["glasses"]}).items()}


def normals_of(points, triangles):
    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(points)
    for i in range(3):
        np.add.at(total, triangles[:, i], normals)
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-12)


def below(points, surface, triangles):
    """How deep [N] points lie under a surface, along the normal of its nearest vertex."""
    near = cKDTree(surface).query(points)[1]
    return -((points - surface[near]) * normals_of(surface, triangles)[near]).sum(-1)


def test_the_file_is_small_and_opens_without_pickles():
    assert people_file.PATH.stat().st_size < 6e6
    with np.load(people_file.PATH, allow_pickle=False) as content:
        assert all(content[name].dtype.kind in "fiubU" for name in content.files)


def test_another_face_model_is_refused(anny):
    moved = dataclasses.replace(anny, mean_shape=anny.mean_shape + np.float32([0, 0, 0.01]))
    with pytest.raises(InputError, match="mean shape differ"):
        load_people(moved)
    with pytest.raises(InputError, match="sizes differ"):
        load_people(dataclasses.replace(anny, identity_basis=anny.identity_basis[..., :40]))


def test_another_file_is_refused(anny, tmp_path):
    np.savez(tmp_path / "other.npz", format=np.array("something else"))
    with pytest.raises(InputError, match="not a file of people"):
        load_people(anny, tmp_path / "other.npz")


def test_a_damaged_file_is_refused(anny, tmp_path):
    with np.load(people_file.PATH) as content:
        arrays = {name: content[name] for name in content.files if name != "hair/uv"}
    np.savez(tmp_path / "people.npz", **arrays)
    with pytest.raises(InputError, match="damaged"):
        load_people(anny, tmp_path / "people.npz")


def test_what_is_worn_is_where_plain_loops_put_it(people, drawn):
    """Corner by corner: the row of the mean and its bases, three of them weighed, and the offset."""
    identity, expression = (np.asarray(array[:3], float) for array in drawn[:2])
    styles = styles_of(people, 3) | {"hat": jnp.zeros(3, int)}
    soup = jax.jit(wear)(people, styles, *(array[:3] for array in drawn[:2]))
    corners, uv = np.asarray(soup.corners), np.asarray(soup.uv)
    rng = np.random.default_rng(0)
    for person in range(3):
        start = 0
        for slot in SLOTS:
            table, style = people.slots[slot], int(styles[slot][person])
            for triangle in rng.integers(0, table.triangles.shape[1], 20).tolist():
                for corner in range(3):
                    vertex = int(table.triangles[style, triangle, corner])
                    place = table.offsets[style, vertex].astype(float)
                    for row, weight in zip(table.references[style, vertex], table.weights[style, vertex], strict=True):
                        moved = people.mean[row].astype(float)
                        moved = moved + people.identity_basis[row] @ identity[person]
                        moved = moved + people.expression_basis[row] @ expression[person]
                        place = place + weight * moved
                    np.testing.assert_allclose(corners[person, start + triangle, corner], place, atol=1e-5)
                    np.testing.assert_allclose(uv[person, start + triangle, corner], table.uv[style, vertex])
            start += table.triangles.shape[1]
        assert start == corners.shape[1] == len(soup.slot)


def test_nobody_need_wear_anything(people, drawn):
    none = {slot: jnp.zeros(COUNT, int) for slot in ("hair", "hat")}
    soup = wear(people, none, *drawn[:2])
    edges = soup.corners[:, :, 1:] - soup.corners[:, :, :1]
    assert not np.asarray(edges).any()
    assert {SLOTS[i] for i in np.asarray(soup.slot)} == {"hair", "hat"}


def test_hair_does_not_stick_out_of_a_hat(people, drawn):
    """Above the hat's crown there is no hair that is drawn; without the hat there is."""
    hair = people.slots["hair"].names.index("afro01")
    styles = {"hair": jnp.array([hair, hair]), "hat": jnp.array([0, 1])}
    soup = wear(people, styles, *(0 * array[:2] for array in drawn[:2]))
    seen = np.linalg.norm(np.asarray(soup.corners[:, :, 1] - soup.corners[:, :, 0]), axis=-1) > 0
    of_hair = soup.slot == SLOTS.index("hair")
    bare, covered = (np.asarray(soup.corners)[i, seen[i] & of_hair] for i in range(2))
    assert bare[..., 1].max() > 1.2
    assert covered[..., 1].max() < 0.9
    assert len(covered) > 0.1 * len(bare)


def test_hair_leaves_the_face_free(people, drawn):
    """Before the face nothing hangs below the line; beside and behind it hair is as it was, and as long."""
    styles = {"hair": jnp.arange(1, len(people.slots["hair"].names))}
    count = len(styles["hair"])
    nobody = (jnp.zeros((count, array.shape[-1])) for array in drawn[:2])
    identity, expression = nobody
    line = jnp.tile(jnp.array([[0.5, 0.1]]), (count, 1))
    cut, plain = (
        np.asarray(wear(people, styles, identity, expression, fringe=fringe).corners) for fringe in (line, None)
    )
    drawn_there = np.linalg.norm(np.cross(cut[:, :, 1] - cut[:, :, 0], cut[:, :, 2] - cut[:, :, 0]), axis=-1) > 1e-9
    x, y, z = np.moveaxis(cut, -1, 0)
    in_face = (abs(x) < 0.4) & (z > -0.25) & drawn_there[..., None]
    assert in_face.any() and (y[in_face] > 0.5 + 0.1 * x[in_face] - 1e-5).all()
    assert (plain[..., 1] < 0.2)[
        (abs(plain[..., 0]) < 0.4) & (plain[..., 2] > -0.25)
    ].any()  # some styles do hang there
    beside = (abs(plain[..., 0]) > 0.9) | (plain[..., 2] < -0.3)
    np.testing.assert_array_equal(cut[beside & drawn_there[..., None]], plain[beside & drawn_there[..., None]])
    assert cut[..., 1].min() == plain[..., 1].min()


def test_a_batch_is_its_persons_one_by_one(people, drawn):
    styles = styles_of(people, 2)
    together = wear(people, styles, *(array[:2] for array in drawn[:2]))
    for i in range(2):
        alone = wear(people, {k: v[i : i + 1] for k, v in styles.items()}, *(array[i : i + 1] for array in drawn[:2]))
        np.testing.assert_allclose(together.corners[i], alone.corners[0], atol=1e-5)


def test_the_head_lies_just_under_the_face_at_its_rim(anny, people, faces, heads):
    """A millimetre below in the mean; never out of the face by more than a little, nor so deep that a step is seen."""
    deep = np.stack(
        [
            below(head[people.head_covered], face, np.asarray(anny.triangles))
            for head, face in zip(heads, faces, strict=True)
        ]
    )
    assert 0.7 < MM * np.median(deep) < 1.3
    assert MM * np.quantile(deep, [0.001, 0.999]).min() > -0.5
    assert MM * np.quantile(deep, 0.999) < 2.5


def test_the_head_is_closed_around_the_face(anny, people, faces, heads):
    """Along the whole rim of the face the head's surface is near."""
    edges = np.sort(np.asarray(anny.triangles)[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), -1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    points = anny.mean_shape
    rim = np.unique(edges[uses == 1])
    rim = rim[(np.abs(points[rim, 0]) > 0.55) | (points[rim, 1] > 0.7) | (points[rim, 1] < -1.2)]
    assert len(rim) > 50
    for head, face in zip(heads, faces, strict=True):
        corners = head[people.head_triangles]
        samples = np.concatenate(
            [corners.mean(1), *(corners[:, i] for i in range(3)), (corners[:, 0] + corners[:, 1]) / 2]
        )
        assert MM * cKDTree(samples).query(face[rim])[0].max() < 9


def test_colours_meet_at_the_rim(anny, people, drawn):
    face = np.asarray(face_models.albedo(anny, drawn[2]))
    head = np.asarray(head_albedo(people, drawn[2]))
    covered = np.asarray(people.head_covered)
    near = cKDTree(anny.mean_shape).query(people.mean[: len(covered)][covered])[1]
    assert np.abs(head[:, covered] - face[:, near]).mean() < 0.01
    # No darker or lighter than the face on the whole.
    skin = face[:, anny.parts["skin"]].mean((1, 2))
    assert np.abs(head[:, ~covered].mean((1, 2)) - skin).max() < 0.12


def test_normals_agree_at_the_rim(anny, people, faces, heads):
    """They are unit vectors, the same on both sides of the rim, and the face's own away from it."""
    own = face_models.vertex_normals(jnp.asarray(faces), anny.triangles)
    face, head = (np.asarray(part) for part in joined_normals(people, own, jnp.asarray(heads)))
    own = np.asarray(own)
    np.testing.assert_allclose(np.linalg.norm(face, axis=-1)[:, people.rim_face], 1, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(head, axis=-1), 1, atol=1e-4)
    away = np.setdiff1d(np.arange(own.shape[1]), people.rim_face)
    np.testing.assert_array_equal(face[:, away], own[:, away])
    rim = people.rim_weights.sum(1) > 0.99
    assert rim.sum() > 50
    beside = head[:, people.rim_head[rim, 0]]
    angles = np.degrees(np.arccos(np.clip((face[:, people.rim_face[rim]] * beside).sum(-1), -1, 1)))
    assert np.median(angles) < 5


def test_little_hair_grows_inside_the_skull(anny, people):
    """Vertices more than 3 mm below the skin, of those above the eyes, on the mean head."""
    head = people.mean[: len(people.head_covered)]
    skull = np.concatenate([head, anny.mean_shape])
    triangles = np.concatenate([people.head_triangles, np.asarray(anny.triangles) + len(head)])
    counts = {}
    for style, name in enumerate(people.slots["hair"].names[1:], 1):
        table = people.slots["hair"]
        used = np.unique(table.triangles[style])
        points = np.einsum("nk,nkc->nc", table.weights[style, used], people.mean[table.references[style, used]])
        points = points + table.offsets[style, used]
        scalp = points[:, 1] > 0.0  # above the eyes: there the skull is round
        counts[name] = int((MM * below(points[scalp], skull, triangles) > 3).sum()), int(scalp.sum())
    # Two bobs and long hair tuck some cards in, where nobody sees them.
    assert all(inside <= 0.06 * total for inside, total in counts.values()), counts
    assert sum(inside == 0 for inside, _ in counts.values()) >= 5, counts


def test_triangles_face_outwards(anny, people):
    """Of the head those of the crown and the neck; of a hat most."""
    head = people.mean[: len(people.head_covered)]
    center = np.array([0.0, 0.3, -0.8])
    normals = normals_of(head, people.head_triangles)
    crown = head[:, 1] > 0.8
    assert (((head - center) * normals).sum(-1)[crown] > 0).all()


def test_glasses_do_not_frown(people, drawn):
    identity, expression, _ = (array[:2] for array in drawn)
    styles = {slot: index for slot, index in styles_of(people, 2).items() if slot in STILL}
    moved = wear(people, styles, identity, expression)
    np.testing.assert_array_equal(moved.corners, wear(people, styles, identity, 0 * expression).corners)


def test_every_style_has_its_place_in_the_atlas(people):
    """Something of each is seen, and styles of different pictures do not share a place."""
    size = people.atlas.shape[0]
    for slot, table in people.slots.items():
        for style, name in enumerate(table.names[1:], 1):
            faces = table.triangles[style][: (table.triangles[style].any(1)).sum()]
            corners = table.uv[style][faces].mean(1)
            texels = people.atlas[((1 - corners[:, 1]) * size).astype(int), (corners[:, 0] * size).astype(int)]
            assert (texels[:, 3] > 100).mean() > (0.1 if slot in ("brows", "lashes") else 0.3), (slot, name)
