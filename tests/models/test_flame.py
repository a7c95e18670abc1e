import contextlib
import types

import jax
import numpy as np
import pytest
import scipy.sparse as sp

from jaxface.core.coefficients import vector_sizes
from jaxface.core.errors import InputError
from jaxface.core.face_models import shape
from jaxface.core.parts import PARTS
from jaxface.models.flame import EYES_AT, is_flame, read_flame
from oracles.skinning import slow_skinning
from toys.flame import FACES, VERTICES, flame_content, write_flame


@pytest.fixture
def small(tmp_path):
    """A small file of the format, and a function that writes it again with other values."""
    content = flame_content(40, 60)

    def rewrite(**changes):
        changed = {key: value for key, value in (content | changes).items() if value is not None}
        return write_flame(tmp_path / "flame.pkl", changed)

    return rewrite


@pytest.mark.slow
def test_a_file_of_full_size_equals_the_definition(tmp_path):
    content = flame_content()
    model = read_flame(write_flame(tmp_path / "flame2023.pkl", content))
    assert model.name == "flame2023"
    assert model.mean_shape.shape == (VERTICES, 3) and model.triangles.shape == (FACES, 3)
    assert vector_sizes(model) == (300, 100 + 9, 0, 3, 27, 3)
    assert all(leaf.dtype in (np.float32, np.int32) for leaf in jax.tree.leaves(model))

    random = np.random.default_rng(1)
    identity, expression, angles = random.normal(size=300), random.normal(size=100), 0.4 * random.normal(size=9)
    unposed = content["v_template"] + content["shapedirs"] @ np.concatenate([identity, expression])
    joints = content["J_regressor"] @ unposed
    in_metres = types.SimpleNamespace(
        parents=(-1, 0, 1, 1, 1), posed=(2, 3, 4), weights=content["weights"], pose_basis=content["posedirs"]
    )
    metres = slow_skinning(unposed, joints, angles, in_metres)
    eyes = (content["J_regressor"] @ content["v_template"])[3:].mean(0)
    expected = 10 * (metres - eyes) + EYES_AT
    got = shape(model, np.float32(identity), np.float32(np.concatenate([expression, angles])))
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_eyes_are_where_other_models_have_them_and_coloured(small):
    weights = np.tile([0.0, 1, 0, 0, 0], (40, 1))
    weights[30:35], weights[35:] = np.eye(5)[3], np.eye(5)[4]
    model = read_flame(small(weights=weights))
    np.testing.assert_allclose(model.skinning.joints[3:].mean(0), EYES_AT, atol=1e-6)
    assert (model.mean_albedo[:30] == model.mean_albedo[0]).all()
    assert (model.mean_albedo[30:] != model.mean_albedo[0]).all()
    assert model.parts == {} and model.landmarks == {} and model.uv is None and model.mirror is None


def test_it_is_recognised_by_its_keys():
    content = flame_content(40, 60)
    assert is_flame(content) and is_flame({key.encode(): value for key, value in content.items()})
    assert not is_flame({"v_template": 0, "f": 0}) and not is_flame([content]) and not is_flame(None)


def test_regions_beside_the_file_give_nose_and_skin(small, tmp_path):
    path = small(weights=np.tile([0.0, 1, 0, 0, 0], (40, 1)))
    masks = {"face": np.arange(30), "nose": np.arange(5, 8), "lips": np.arange(10, 15), "neck": np.arange(30, 40)}
    write_flame(tmp_path / "FLAME_masks.pkl", masks)
    parts = read_flame(path).parts
    assert set(parts) == {"nose", "skin"}
    np.testing.assert_array_equal(parts["nose"], [5, 6, 7])
    np.testing.assert_array_equal(parts["skin"], [*range(5), 8, 9, *range(15, 30)])
    annotated = {part: np.array([index, index + 8]) for index, part in enumerate(PARTS)}
    np.savez(tmp_path / "flame_parts.npz", **annotated, **{"landmarks/68": np.arange(68) % 30})
    model = read_flame(path)
    assert set(model.parts) == set(PARTS)
    np.testing.assert_array_equal(model.parts["skin"], [7, 15])
    np.testing.assert_array_equal(model.landmarks["68"], np.arange(68) % 30)
    write_flame(tmp_path / "FLAME_masks.pkl", {"face": np.arange(30), "nose": np.arange(3)})
    (tmp_path / "flame_parts.npz").unlink()
    with pytest.raises(InputError, match=r"FLAME_masks\.pkl lacks .*lips"):
        read_flame(path)


def test_landmark_embeddings_beside_the_file(small, tmp_path):
    path, random = small(), np.random.default_rng(3)
    triangles = read_flame(path).triangles
    inner = random.integers(0, 60, 51).astype(np.uint32), random.dirichlet(np.ones(3), 51)
    write_flame(tmp_path / "flame_static_embedding.pkl", {"lmk_face_idx": inner[0], "lmk_b_coords": inner[1]}, ())
    model = read_flame(path)
    np.testing.assert_array_equal(model.landmarks["51"], triangles[inner[0], inner[1].argmax(1)])
    full = random.integers(0, 60, (1, 68)), random.dirichlet(np.ones(3), (1, 68))
    lines = random.integers(0, 60, (79, 17)), random.dirichlet(np.ones(3), (79, 17))
    content = {
        "full_lmk_faces_idx": full[0], "full_lmk_bary_coords": full[1],
        "dynamic_lmk_faces_idx": lines[0], "dynamic_lmk_bary_coords": lines[1],
    }  # fmt: skip
    np.save(tmp_path / "landmark_embedding.npy", content, allow_pickle=True)
    model = read_flame(path)
    assert set(model.landmarks) == {"68"} and model.contours["68"].shape == (17, 79)
    np.testing.assert_array_equal(model.landmarks["68"], triangles[full[0][0], full[1][0].argmax(1)])
    assert model.contours["68"][4, 50] == triangles[lines[0][50, 4], lines[1][50, 4].argmax()]
    np.save(tmp_path / "landmark_embedding.npy", content | {"full_lmk_faces_idx": full[0] + 60}, allow_pickle=True)
    with pytest.raises(InputError, match=r"landmark_embedding\.npy: 'full_lmk_faces_idx' refers to"):
        read_flame(path)


def test_texture_coordinates_of_a_seam_are_those_of_the_first_triangle(small):
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    coordinates = np.arange(12, dtype=float).reshape(6, 2) / 12
    uv = read_flame(small(f=faces, vt=coordinates, ft=np.array([[0, 1, 2], [4, 5, 3]]))).uv
    np.testing.assert_allclose(uv[:4], coordinates[[0, 1, 2, 3]], rtol=1e-6)
    with pytest.raises(InputError, match="ft has 1 triangles, f 2"):
        read_flame(small(f=faces, vt=coordinates, ft=np.array([[0, 1, 2]])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"posedirs": None}, "lacks posedirs"),
        ({"v_template": np.zeros((40, 2))}, r"v_template is float64 \[40, 2\], expected numbers"),
        (
            {"shapedirs": np.zeros((40, 3, 150))},
            r"shapedirs is float64 .*, expected numbers \[40, 3, 400\]",
        ),
        ({"weights": np.full((40, 5), np.nan)}, "weights holds values that are not finite"),
        ({"weights": np.ones((40, 5))}, "weights do not sum to 1"),
        ({"J_regressor": sp.csc_matrix((5, 39))}, r"J_regressor is float64 \[5, 39\]"),
        ({"kintree_table": np.array([[0, 0, 0, 1, 1], [0, 1, 2, 3, 4]])}, "kintree_table has the parents"),
        ({"f": np.array([[0, 1, 40]])}, "'f' refers to vertices 0 to 40, but there are 40"),
        ({"f": "triangles"}, "'f' is str"),
        ({"weights": "nothing"}, "weights is"),
    ],
)
def test_what_does_not_fit_is_named(small, changes, message):
    with pytest.raises(InputError, match=message) as error:
        read_flame(small(**changes))
    assert "flame.pkl" in str(error.value) and "\n" not in str(error.value)


def test_random_corruptions_of_the_small_file_are_input_errors_or_read(small):
    path = small(shapedirs=np.zeros((40, 3, 400), np.float32))
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole[: random.integers(1, len(whole))] if random.random() < 0.3 else whole)
        # The keys, shapes and types make up the smallest share of the bytes: half of the hits go there.
        area = 1500 if random.random() < 0.5 else len(data)
        for place in random.integers(0, min(area, len(data)), random.integers(1, 4)):
            data[place] = random.integers(0, 256)
        path.write_bytes(data)
        with contextlib.suppress(InputError):
            read_flame(path)
