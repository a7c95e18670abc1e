"""python -m jaxface.convert: face models to native files, parts merged, a table and a sheet, and what goes wrong."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from jaxface import convert, load_face_model
from jaxface.core.errors import InputError
from jaxface.core.parts import PARTS
from jaxface.models import conversion
from jaxface.models import sheet as sheet_module
from jaxface.models.native import write_face_model
from toys import stand_ins
from toys.models import toy_model

VERTICES = 300


@pytest.fixture(scope="module")
def bfm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bfm")
    return stand_ins.save_pickled(folder / "face_model.npy", stand_ins.three_ddfa_v3(VERTICES))


@pytest.mark.parametrize("out", ["bfm.npz", "bfm.safetensors"])
def test_to_native_and_back(bfm, tmp_path, capsys, out):
    assert convert.main([str(bfm), str(tmp_path / out)]) == 0
    printed = capsys.readouterr().out
    assert "3DDFA-V3, 300 vertices" in printed and "random faces: 0 mm" in printed
    before, after = load_face_model(bfm), load_face_model(tmp_path / out)
    for name in ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis", "uv", "triangles"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    for group in ("parts", "landmarks", "contours"):
        assert getattr(before, group).keys() == getattr(after, group).keys()
        for key, vertices in getattr(before, group).items():
            np.testing.assert_array_equal(vertices, getattr(after, group)[key])


@pytest.mark.parametrize(("dtype", "largest"), [("float16", 0.01), ("int16", 0.01), ("bfloat16", 0.1)])
def test_rounded_bases_tell_their_error(bfm, tmp_path, capsys, dtype, largest):
    assert convert.main([str(bfm), str(tmp_path / "small.npz"), "--dtype", dtype]) == 0
    assert f"bases as {dtype}" in capsys.readouterr().out
    before, after = load_face_model(bfm), load_face_model(tmp_path / "small.npz")
    assert 0 < conversion.shape_error_mm(before, after)[0] < largest


def test_the_error_is_that_of_whole_faces(bfm, tmp_path):
    before = load_face_model(bfm)
    write_face_model(before, tmp_path / "a.npz", basis_type="bfloat16")
    after = load_face_model(tmp_path / "a.npz")
    random = np.random.default_rng(7)
    worst, total, faces = 0.0, 0.0, 16
    coefficients = [random.standard_normal((faces, count)).astype(np.float32) for count in (80, 64)]
    for face in range(faces):
        identity, expression = (values[face] for values in coefficients)
        shapes = [
            model.mean_shape + model.identity_basis @ identity + model.expression_basis @ expression
            for model in (before, after)
        ]
        distances = 100 * np.linalg.norm(shapes[0] - shapes[1], axis=-1)
        worst, total = max(worst, distances.max()), total + distances.mean()
    np.testing.assert_allclose(conversion.shape_error_mm(before, after, seed=7), (worst, total / faces), rtol=1e-2)


def test_parts_are_merged(tmp_path, capsys):
    source = stand_ins.save_matlab(tmp_path / "bfm.mat", stand_ins.deep3d(VERTICES))
    parts = {part: np.arange(index, index + 5) for index, part in enumerate(PARTS[:7])}
    named = {f"part/{part}" if index % 2 else part: vertices for index, (part, vertices) in enumerate(parts.items())}
    contours = np.arange(34).reshape(17, 2)
    np.savez(tmp_path / "parts.npz", **named, **{"contours/68": contours, "settings/seed": np.array(1)})
    assert convert.main([str(source), str(tmp_path / "a.npz"), "--parts", str(tmp_path / "parts.npz")]) == 0
    model = load_face_model(tmp_path / "a.npz")
    assert set(model.parts) == set(PARTS)
    for part, vertices in parts.items():
        np.testing.assert_array_equal(model.parts[part], vertices)
    np.testing.assert_array_equal(model.parts["skin"], load_face_model(source).parts["skin"])
    np.testing.assert_array_equal(model.contours["68"], contours)
    for bad in ({"nose": np.array([VERTICES])}, {"nose": np.array([0.5])}, {"nothing": np.arange(3)}):
        np.savez(tmp_path / "parts.npz", **bad)
        with pytest.raises(InputError, match=r"parts\.npz"):
            convert.main([str(source), str(tmp_path / "b.npz"), "--parts", str(tmp_path / "parts.npz")])
    assert not (tmp_path / "b.npz").exists()


def test_expression_names_are_kept(tmp_path):
    source = stand_ins.save_pickled(tmp_path / "v2.npy", stand_ins.faceverse(2, VERTICES))
    convert.main([str(source), str(tmp_path / "v2.safetensors")])
    assert load_face_model(tmp_path / "v2.safetensors").expression_names == tuple(f"unit{index}" for index in range(52))


def test_the_table(bfm):
    table = sheet_module.describe(load_face_model(bfm))
    for line in (
        "name           3DDFA-V3",
        "vertices       300",
        "coefficients   identity 80, expression 64, albedo 80; a vector has 257",
        "landmarks      68 (68 points), 106 (106 points), 134 (134 points)",
        "contours       68 (17 lines), 106 (33 lines)",
        "missing parts  none",
        "uv             yes",
    ):
        assert line in table.splitlines()
    shape = load_face_model(bfm).mean_shape
    width, height, depth = 100 * (shape.max(0) - shape.min(0))
    assert f"extents        {width:.1f} x {height:.1f} x {depth:.1f} mm" in table


def test_which_way_a_surface_faces():
    model = toy_model()  # a dome that faces the viewer
    assert sheet_module.front_share(model) == 1
    assert sheet_module.front_share(dataclasses.replace(model, triangles=model.triangles[:, ::-1])) == 0


@pytest.mark.slow
def test_info_draws_a_sheet(tmp_path, capsys, quick_compilation):
    path = tmp_path / "toy.npz"
    write_face_model(dataclasses.replace(toy_model(), expression_names=("smile", "frown")), path)
    assert convert.main(["--info", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "vertices       81" in printed and "expressions    smile, frown" in printed and "toy_info.png" in printed
    with Image.open(tmp_path / "toy_info.png") as picture:
        sheet = np.asarray(picture.convert("RGB"))
    cell = sheet_module.CELL
    assert sheet.shape[1] >= 6 * cell and sheet.shape[0] >= 4 * cell
    first = sheet[:cell, :cell]
    assert (first < 250).any(-1)[cell // 2, cell // 2 - 20 : cell // 2 + 20].all()  # a face in the middle, on white
    assert (first[:5] > 250).all()
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.npy", "out.npz"], r"no face-model file at missing\.npy"),
        (["anny", "out.obj"], r"out\.obj: the name of a face model ends in \.npz or \.safetensors"),
        (["nonsense", "out.npz"], "unknown face model 'nonsense'"),
        (["--info", "nonsense"], "unknown face model 'nonsense'"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        convert.main(arguments)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    ["anny", "", "--info", "--info anny b.npz", "anny b.npz --out c", "a b --dtype x", "--info anny --parts c"],
)
def test_wrong_use_prints_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        convert.main(arguments.split())
    assert error.value.code == 2 and "usage: python -m jaxface.convert" in capsys.readouterr().err
