"""Reading pickles as data: what real ones hold, and that damaged ones are refused (test_hostile_pickles.py: others)."""

import argparse
import collections
import io
import os
import pickle
import sys
import time
import tracemalloc
import types
import typing

import numpy as np
import pytest
import scipy.sparse as sp

from jaxface.core.errors import InputError
from jaxface.files.pickles import read_pickle, read_pickled_npy


def content() -> dict:
    random = np.random.default_rng(0)
    return {
        "matrix": random.normal(size=(3, 4)),
        "float32": random.normal(size=(2, 3)).astype(np.float32),
        "column by column": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "axes swapped": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
        "of other machines": np.arange(3, dtype=">f4"),
        "empty": np.zeros((0, 3), np.int16),
        "no axis": np.array(3.5),
        "flags": np.array([True, False]),
        "texts": np.array(["left eye", "é"]),
        "bytes of one length": np.array([b"ab", b"c"]),
        "complex": np.array([1 + 2j]),
        "large": np.arange(40_000, dtype=np.int32).reshape(2, -1),
        "scalar": np.float32(0.1),
        "number": np.int64(7),
        "numbers": [1, -5, 300, 70_000, 2**70, -(2**70), 1.5, float("inf"), 1 + 2j],
        "constants": (None, True, False, (), [], {}),
        "text": "é\n\\u0041 'quoted'",
        "bytes": b"\x00\xff'",
        "no bytes": b"",
        "bytearray": bytearray(b"ab"),
        "set": {1, 2},
        "frozenset": frozenset("ab"),
        "slice": slice(1, None, 2),
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "nested": {"a": [{"b": (1, [2, {"c": np.ones(2)}])}]},
        3: "key",
        ("two", "texts"): "key",
    }


def same(a, b) -> bool:
    if sp.issparse(a):
        return type(a) is type(b) and a.shape == b.shape and a.dtype == b.dtype and (a != b).nnz == 0
    if isinstance(a, np.ndarray) and a.dtype != object:
        equal = isinstance(b, np.ndarray) and a.shape == b.shape and np.array_equal(a, b)
        return equal and a.dtype.newbyteorder("=") == b.dtype
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.shape == b.shape and all(map(same, a.ravel(), b.ravel()))
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.fixture
def read(tmp_path):
    def read_bytes(pickled: bytes):
        path = tmp_path / "file.pkl"
        path.write_bytes(pickled)
        return read_pickle(path)

    return read_bytes


@pytest.mark.parametrize("protocol", range(6))
class TestRealPickles:
    def test_reads_what_python_writes(self, read, protocol):
        assert same(content(), read(pickle.dumps(content(), protocol)))

    def test_shared_parts_stay_shared(self, read, protocol):
        part = [1]
        first, second = read(pickle.dumps([part, part], protocol))
        assert first is second

    def test_arrays_of_objects(self, read, protocol):
        array = np.empty((2, 2), object, order="F")
        array[0, 0], array[0, 1], array[1, 0], array[1, 1] = np.ones(3), [1, "two"], None, {"a": np.zeros(2)}
        assert same(array, read(pickle.dumps(array, protocol)))

    @pytest.mark.parametrize("kind", ["csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array"])
    def test_sparse_matrices(self, read, protocol, kind):
        dense = np.array([[0, 1.5, 0], [2, 0, 0]])
        matrix = getattr(sp, kind)(dense)
        assert same(matrix, read(pickle.dumps(matrix, protocol)))

    def test_what_becomes_a_dictionary(self, read, protocol):
        value = [argparse.Namespace(a=1), collections.Counter("aab"), collections.defaultdict(list, a=[1])]
        assert read(pickle.dumps(value, protocol)) == [{"a": 1}, {"a": 2, "b": 1}, {"a": [1]}]

    def test_names_of_older_numpy_and_scipy(self, read, protocol):
        if protocol > 2:
            pytest.skip("the names are preceded by their lengths")
        value = [np.arange(3), np.float64(2), sp.csc_matrix(np.eye(2)), sp.csr_matrix(np.eye(2))]
        pickled = pickle.dumps(value, protocol)
        pickled = pickled.replace(b"numpy._core", b"numpy.core").replace(b"sparse._cs", b"sparse.cs")
        assert same(value, read(pickled))


class PythonTwoPickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings."""

    dispatch: typing.ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        if not self.bin:
            text = "".join(chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in value)
            self.write(pickle.STRING + f"'{text}'\n".encode())
        elif len(value) < 256:
            self.write(pickle.SHORT_BINSTRING + len(value).to_bytes(1, "little") + value)
        else:
            self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_pickles_of_python_2(read, protocol):
    value = {
        b"f": np.arange(6, dtype=np.uint32).reshape(2, 3),
        b"weights": np.random.default_rng(1).normal(size=(100, 90)),  # more than 64 KiB
        b"bs_style": b"lbs",
        b"latin1": b"Ren\xe9",
        b"quotes": b"\\'\"\n",
        b"J_regressor": sp.csc_matrix(np.eye(3)),
        "unicode": "é",
        b"list": [b"a", np.float32(1), 2**40, None],
    }
    file = io.BytesIO()
    PythonTwoPickler(file, protocol).dump(value)
    expected = pickle.loads(file.getvalue(), encoding="latin1")
    assert expected["latin1"] == "René"
    assert same(expected, read(file.getvalue()))


@pytest.fixture
def chumpy(monkeypatch):
    """Classes that pickle as chumpy's do."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering", "chumpy.ch_ops")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def make(module, name, **attributes):
        cls = getattr(modules[module], name, None) or type(name, (), {"__module__": module})
        setattr(modules[module], name, cls)
        instance = cls()
        vars(instance).update(attributes)
        return instance

    return make


@pytest.mark.parametrize("protocol", range(6))
def test_chumpy(read, chumpy, protocol):
    array = np.arange(24.0).reshape(4, 3, 2)
    plain = chumpy("chumpy.ch", "Ch", x=array, dterms=["x"], _dirty_vars={"x"}, _itr=None)
    selected = np.arange(24).reshape(4, 3, 2)[..., :1]
    value = {
        "plain": plain,
        "again": plain,
        "selected": chumpy(
            "chumpy.reordering", "Select", a=plain, idxs=selected.ravel(), preferred_shape=selected.shape
        ),
        "reshaped": chumpy("chumpy.reordering", "Reshape", a=plain, newshape=(12, -1)),
    }
    expected = {"plain": array, "again": array, "selected": array[..., :1], "reshaped": array.reshape(12, 2)}
    assert same(expected, read(pickle.dumps(value, protocol)))


def test_other_expressions_of_chumpy_are_refused(read, chumpy):
    # `x` is there the argument, not the value.
    with pytest.raises(InputError, match=r"chumpy\.ch_ops\.sin"):
        read(pickle.dumps(chumpy("chumpy.ch_ops", "sin", x=np.ones(2))))


class TestNpy:
    def test_pickled_dictionary(self, tmp_path):
        np.save(tmp_path / "model.npy", content(), allow_pickle=True)  # type: ignore[arg-type]
        assert same(content(), read_pickled_npy(tmp_path / "model.npy"))

    @pytest.mark.parametrize("name", [key for key, value in content().items() if isinstance(value, np.ndarray)])
    def test_plain_array(self, tmp_path, name):
        np.save(tmp_path / "array.npy", content()[name])
        assert same(content()[name], read_pickled_npy(tmp_path / "array.npy"))

    def test_header_of_python_2(self, tmp_path):
        np.save(tmp_path / "array.npy", np.arange(6.0).reshape(3, 2))
        written = (tmp_path / "array.npy").read_bytes()
        (tmp_path / "array.npy").write_bytes(written.replace(b"(3, 2), }  ", b"(3L, 2L), }"))
        assert same(np.arange(6.0).reshape(3, 2), read_pickled_npy(tmp_path / "array.npy"))

    @pytest.mark.parametrize("shape", [b"(9999999999999, 2)", b"(3, 1)", b"(3, 3)", b"(-3, 2)", b"3"])
    def test_shape_that_is_not_there(self, tmp_path, shape):
        np.save(tmp_path / "array.npy", np.arange(6.0).reshape(3, 2))
        written = (tmp_path / "array.npy").read_bytes()
        (tmp_path / "array.npy").write_bytes(written.replace(b"(3, 2), }".ljust(30), (shape + b", }").ljust(30)))
        with pytest.raises(InputError, match=r"array\.npy"):
            read_pickled_npy(tmp_path / "array.npy")

    def test_hostile_object(self, tmp_path):
        class Hostile:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'ran'}",)

        np.save(tmp_path / "model.npy", np.array(Hostile(), object), allow_pickle=True)
        with pytest.raises(InputError, match=r"model\.npy refers to posix\.system, which is not data"):
            read_pickled_npy(tmp_path / "model.npy")
        assert not (tmp_path / "ran").exists()

    def test_several_in_one(self, tmp_path):
        with open(tmp_path / "two.npy", "wb") as file:
            for _ in range(2):
                np.save(file, np.array({"a": 1}, object), allow_pickle=True)
        with pytest.raises(InputError, match="goes on"):
            read_pickled_npy(tmp_path / "two.npy")


@pytest.mark.parametrize(
    "changes",
    [
        {"indices": np.array([0, 5])},
        {"indices": np.array([0, -1])},
        {"indices": np.array([0.0, 1.0])},
        {"indptr": np.array([0, 2, 1])},
        {"indptr": np.array([0, 1, 9])},
        {"indptr": np.array([0, 1])},
        {"data": np.array([1.0])},
        {"data": np.array([[1.0, 2.0]])},
        {"data": np.array(["a", "b"])},
        {"_shape": (2**31, 2)},
        {"_shape": (3, 1)},
        {"_shape": None},
    ],
)
@pytest.mark.parametrize("kind", ["csc_matrix", "csr_matrix"])
def test_sparse_matrices_are_checked(read, kind, changes):
    matrix = getattr(sp, kind)(np.eye(2))
    vars(matrix).update(changes)
    with pytest.raises(InputError):
        read(pickle.dumps(matrix))


@pytest.mark.parametrize("coordinates", [([0, 2], [0, 1]), ([0, -1], [0, 1]), ([0], [0, 1]), ([0.0, 1.0], [0, 1])])
def test_coordinates_of_sparse_matrices_are_checked(read, coordinates):
    matrix = sp.coo_matrix(np.eye(2))
    matrix.coords = tuple(np.array(indices) for indices in coordinates)
    with pytest.raises(InputError):
        read(pickle.dumps(matrix))


def test_files_that_are_not_there(tmp_path):
    for reader in (read_pickle, read_pickled_npy):
        with pytest.raises(InputError, match="no file at"):
            reader(tmp_path / "missing")
        with pytest.raises(InputError, match="no file at"):
            reader(tmp_path)


def corruptions(good: bytes, count: int, seed: int):
    """Copies of a file with bytes changed, or cut off."""
    random = np.random.default_rng(seed)
    for index in range(count):
        bad = bytearray(good)
        if index % 4 == 0:
            del bad[random.integers(len(bad)) :]
        else:
            for _ in range(random.integers(1, 4)):
                bad[random.integers(len(bad))] = random.integers(256)
        yield bytes(bad)


@pytest.mark.parametrize("form", ["0", "2", "4", "5", "npy", "python 2"])
def test_random_corruptions(tmp_path, form):
    value = {key: part for key, part in content().items() if key != "large"} | {"sparse": sp.csc_matrix(np.eye(3))}
    file = io.BytesIO()
    if form == "npy":
        np.save(file, np.array(value, object), allow_pickle=True)
    elif form == "python 2":
        PythonTwoPickler(file, 2).dump({b"a": np.arange(3), b"b": [b"c", 1.5]})
    else:
        pickle.dump(value, file, int(form))
    reader, path, refused = read_pickled_npy if form == "npy" else read_pickle, tmp_path / "file", 0
    for bad in corruptions(file.getvalue(), 200, seed=len(form)):
        path.write_bytes(bad)
        start = time.perf_counter()
        try:
            reader(path)
        except InputError:
            refused += 1
        assert time.perf_counter() - start < 5
    assert refused > 80


@pytest.mark.parametrize("form", ["npy", "2", "5", "python 2"])
def test_memory_stays_below_three_times_the_file(tmp_path, form):
    value = {name: np.random.default_rng(0).normal(size=(5000, 3, 20)) for name in ("id", "exp", "alb")}
    file = io.BytesIO()
    if form == "npy":
        np.save(file, np.array(value, object), allow_pickle=True)
    elif form == "python 2":
        PythonTwoPickler(file, 2).dump(value)
    else:
        pickle.dump(value, file, int(form))
    path = tmp_path / "file"
    path.write_bytes(file.getvalue())
    del value, file
    tracemalloc.start()
    try:
        (read_pickled_npy if form == "npy" else read_pickle)(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * path.stat().st_size
    finally:
        tracemalloc.stop()
