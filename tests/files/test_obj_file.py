"""OBJ geometry as others write it."""

import numpy as np
import pytest
import trimesh

from jaxface.core.errors import InputError
from jaxface.files.obj_file import read_obj
from toys.heads import sphere


def write(path, text):
    path.write_text(text)
    return path


def test_a_mesh_comes_back_as_another_program_wrote_it(tmp_path):
    vertices, triangles = sphere(2, radius=80.0)
    trimesh.Trimesh(vertices, triangles, process=False).export(tmp_path / "mesh.obj")
    found = read_obj(tmp_path / "mesh.obj")
    np.testing.assert_allclose(found[0], vertices, atol=1e-6)
    np.testing.assert_array_equal(found[1], triangles)


def test_polygons_colours_textures_and_counting_from_the_end(tmp_path):
    text = "# scan\nv 0 0 0 1 0 0\nv 1 0 0\nvt 0 0\nvn 0 0 1\nv 1 1 0\nv 0 1 0\nf 1/1/1 2/1/1 3//1 4\nf -4 -2 -1\n"
    vertices, triangles = read_obj(write(tmp_path / "a.obj", text))
    np.testing.assert_array_equal(vertices, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(triangles, [[0, 1, 2], [0, 2, 3], [0, 2, 3]])


def test_points_alone_are_a_file_too(tmp_path):
    vertices, triangles = read_obj(write(tmp_path / "a.obj", "v 1 2 3\nv 4 5 6\n"))
    assert vertices.shape == (2, 3) and triangles.shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("v 1 2\n", "the line 'v 1 2'"),
        ("v 1 2 x\n", "the line 'v 1 2 x'"),
        ("v 1 2 nan\n", "finite"),
        ("hello\n", "no vertices"),
        ("v 0 0 0\nf 1 2 3\n", "has 1 vertices"),
        ("v 0 0 0\nf a b c\n", "the line 'f a b c'"),
        ("", "empty"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, text, told):
    with pytest.raises(InputError, match=told):
        read_obj(write(tmp_path / "a.obj", text))


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_obj(tmp_path / "a.obj")
