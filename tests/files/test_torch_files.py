"""Reading PyTorch's files without it. PyTorch 2.13 wrote the two small files beside this one, of `expected`."""

import collections
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxface.core.errors import InputError
from jaxface.files.torch_files import read_torch

FILES = [Path(__file__).parent / name for name in ("torch_zip.pth", "torch_legacy.pth")]
ZIP, LEGACY = FILES


def expected() -> dict:
    base = np.arange(12, dtype=np.float32)
    return {
        "net_recon": {
            "backbone.conv1.weight": base.reshape(3, 2, 2, 1) / 4,
            "bn.num_batches_tracked": np.array(7),
            "transposed": base.reshape(3, 4).T,
            "part": base[2:8:3],
            "half": np.array([0.5, -2], np.float16),
            "brain": np.array([1.5, -3], ml_dtypes.bfloat16),
            "flags": np.array([True, False]),
            "bytes": np.array([1, 255], np.uint8),
            "empty": np.zeros((0, 3), np.float32),
            "double": np.array([[1e-300]]),
            "repeated": np.full(3, 2.5, np.float32),
        },
        "opt_00": {
            "state": {0: {"step": np.array(3, np.float32), "exp_avg": np.ones(2, np.float32)}},
            "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0], "foreach": None}],
        },
        "sched_00": {"last_epoch": 2, "_last_lr": [1e-4], "verbose": False},
        "epoch": 20,
    }


def assert_same(got, wanted):
    if isinstance(wanted, np.ndarray):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        np.testing.assert_array_equal(got, wanted)
    elif isinstance(wanted, dict):
        assert isinstance(got, dict) and list(got) == list(wanted)
        for key in wanted:
            assert_same(got[key], wanted[key])
    elif isinstance(wanted, (list, tuple)):
        assert type(got) is type(wanted) and len(got) == len(wanted)
        for part, wanted_part in zip(got, wanted, strict=True):
            assert_same(part, wanted_part)
    else:
        assert type(got) is type(wanted) and got == wanted


@pytest.mark.parametrize("path", FILES, ids=["zip", "legacy"])
def test_reads_a_stored_checkpoint(path):
    assert_same(read_torch(path), expected())


@pytest.mark.parametrize("path", FILES, ids=["zip", "legacy"])
def test_tensors_that_share_numbers_share_them_here(path):
    tensors = read_torch(path)["net_recon"]
    assert np.shares_memory(tensors["transposed"], tensors["part"])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
class TestAgainstTorch:
    def test_types_and_strides(self, tmp_path, zipped):
        torch = pytest.importorskip("torch")
        names = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128".split()
        value = {name: torch.arange(24).reshape(2, 3, 4).to(getattr(torch, name)) for name in names}
        value |= {f"{name} strided": tensor.permute(2, 0, 1)[1:, :, ::2] for name, tensor in value.items()}
        torch.save(value, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
        got = read_torch(tmp_path / "file.pth")
        for name, tensor in value.items():
            array = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
            assert str(got[name].dtype) == str(tensor.dtype).removeprefix("torch.")
            np.testing.assert_array_equal(got[name].astype(array.dtype), array)

    def test_values_that_are_not_tensors(self, tmp_path, zipped):
        torch = pytest.importorskip("torch")
        value = [
            torch.Size([2, 3]),
            torch.device("cuda", 1),
            torch.device("cpu"),
            torch.float16,
            np.ones(2),
            np.float32(3),
        ]
        torch.save(value, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
        assert_same(
            read_torch(tmp_path / "file.pth"), [(2, 3), "cuda:1", "cpu", np.dtype("f2"), np.ones(2), np.float32(3)]
        )

    def test_a_network_and_its_schedule(self, tmp_path, zipped):
        torch = pytest.importorskip("torch")
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        network(torch.ones(2, 3, 5, 5))
        schedule = {"milestones": collections.Counter([1, 2]), "base_lrs": [0.1]}
        states = {"net": network.state_dict(), "sched": schedule}
        torch.save(states, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
        got = read_torch(tmp_path / "file.pth")
        assert list(got["net"]) == list(network.state_dict())
        for name, tensor in network.state_dict().items():
            np.testing.assert_array_equal(got["net"][name], tensor.numpy())
        assert got["sched"] == {"milestones": {1: 1, 2: 1}, "base_lrs": [0.1]}

    def test_parameters_with_attributes(self, tmp_path, zipped):
        torch = pytest.importorskip("torch")
        parameter, tensor = torch.nn.Parameter(torch.ones(2)), torch.ones(3)
        parameter.note, tensor.note = "a", "b"
        torch.save([parameter, tensor], tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
        assert_same(read_torch(tmp_path / "file.pth"), [np.ones(2, np.float32), np.ones(3, np.float32)])

    def test_types_without_storages_of_their_own(self, tmp_path, zipped):
        torch = pytest.importorskip("torch")
        if not zipped:
            pytest.skip("the older format does not have them")
        value = [torch.tensor([1, 65535], dtype=torch.uint16), torch.tensor([1.5]).to(torch.float8_e4m3fn)]
        torch.save(value, tmp_path / "file.pth")
        assert_same(
            read_torch(tmp_path / "file.pth"),
            [np.array([1, 65535], np.uint16), np.array([1.5], ml_dtypes.float8_e4m3fn)],
        )

    def test_a_whole_network_is_refused(self, tmp_path, zipped):
        torch = pytest.importorskip("torch")
        torch.save(torch.nn.Linear(1, 1), tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear"):
            read_torch(tmp_path / "file.pth")


class Hostile:
    def __reduce__(self):
        return os.system, ("touch ran",)


def zipped(
    path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, compression=zipfile.ZIP_STORED, **others
):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in (storages or {}).items():
            archive.writestr(f"archive/data/{name}", content)
        for name, content in others.items():
            archive.writestr(f"archive/{name}", content)


def legacy(path: Path, pickled: bytes, keys: list, storages: list[tuple[int, bytes]], **system):
    header = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True} | system]
    content = b"".join(pickle.dumps(part, 2) for part in header) + pickled + pickle.dumps(keys, 2)
    path.write_bytes(content + b"".join(struct.pack("<q", count) + numbers for count, numbers in storages))


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def tensor(
    offset=0, shape=(2,), strides=(1,), *, key="0", kind="FloatStorage", count=2, metadata=None, view=None
) -> bytes:
    """The pickle of a tensor; of two float32 by default."""
    view_part = b"" if view is None else pickle.dumps(view, 2)[2:-1]
    storage = (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + number(count)
        + view_part
        + b"tQ"
    )
    sizes = b"".join(b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (shape, strides))
    hooks = b"ccollections\nOrderedDict\n)R" + (b"" if metadata is None else pickle.dumps(metadata, 2)[2:-1])
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + sizes + b"\x89" + hooks + b"tR"


TWO = np.array([1.5, -2], np.float32).tobytes()


@pytest.fixture(params=["zip", "legacy"])
def write(request, tmp_path):
    """Writes a file of one storage "0" whose pickle is given."""

    def write_file(pickled: bytes) -> Path:
        if request.param == "zip":
            zipped(tmp_path / "file.pth", pickled + b".", {"0": TWO})
        else:
            legacy(tmp_path / "file.pth", pickled + b".", ["0"], [(2, TWO)])
        return tmp_path / "file.pth"

    return write_file


def test_the_hand_written_files_are_right(write):
    assert_same(read_torch(write(tensor())), np.array([1.5, -2], np.float32))


def test_a_storage_alone(write):
    pickled = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(2) + b"tQ"
    assert_same(read_torch(write(pickled)), np.array([1.5, -2], np.float32))


def test_views_of_early_files(tmp_path):
    legacy(tmp_path / "file.pth", tensor(shape=(1,), view=("1", 1, 1)) + b".", ["0"], [(2, TWO)])
    assert_same(read_torch(tmp_path / "file.pth"), np.array([-2], np.float32))


LIES = {
    "offset beyond": tensor(offset=1),
    "shape beyond": tensor(shape=(3,)),
    "strides beyond": tensor(strides=(2,)),
    "huge shape": tensor(shape=(2**40, 2**40), strides=(1, 1)),
    "negative offset": tensor(offset=-1),
    "negative shape": tensor(shape=(-1,)),
    "negative strides": tensor(offset=1, strides=(-1,)),
    "more strides than axes": tensor(strides=(1, 1)),
    "many axes": tensor(shape=(1,) * 40, strides=(1,) * 40),
    "repeated without measure": tensor(shape=(2**40,), strides=(0,)),
    "empty, of a huge length": tensor(shape=(0, 2**45), strides=(1, 1)),
    "storage of another length": tensor(count=1),
    "storage of another type": tensor(kind="DoubleStorage"),
    "storage of a huge length": tensor(count=2**50, key="1"),
    "storage of a negative length": tensor(count=-2),
    "storage that is not there": tensor(key="1"),
    "storage outside of the folder": tensor(key="../data.pkl"),
    "storage of an unknown type": tensor(kind="SecretStorage"),
    "storage of a class": tensor(kind="Tensor"),
    "conjugated": tensor(metadata={"conj": True}),
    "shape that is a list": tensor().replace(b"(K\x02t", b"](K\x02e"),
    "identifier that is not a tuple": text("storage") + b"Q",
    "identifier that is a module": b"(" + text("module") + b"]" * 4 + b"tQ",
    "identifier with a function": b"(" + text("storage") + b"cos\nsystem\n" + text("0") + text("cpu") + b"K\x02tQ",
    "identifier with a list as key": b"(" + text("storage") + b"ctorch\nFloatStorage\n]" + text("cpu") + b"K\x02tQ",
    "tensor of a list": b"ctorch._utils\n_rebuild_tensor_v2\n(]K\x00K\x01\x85K\x01\x85\x89NtR",
    "parameter of a list": b"ctorch._utils\n_rebuild_parameter\n(]\x88NtR",
    "tensor made by a function": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n)NtR",
    "tensor made by another call": b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\ndevice\nctorch\nTensor\n"
    + text("cpu")
    + b"\x85NtR",
    "torch.load": b"ctorch\nload\n" + text("file") + b"\x85R",
    "bytes of a storage": b"ctorch.storage\n_load_from_bytes\nC\x01a\x85R",
    "function of torch": b"ctorch.hub\nload\n" + text("file") + b"\x85R",
    "sparse tensor": b"ctorch._utils\n_rebuild_sparse_tensor\n)R",
    "call": pickle.dumps(Hostile(), 2)[:-1],
    "call in a container": pickle.dumps({"net": [Hostile()]}, 2)[:-1],
}


@pytest.mark.parametrize("name", LIES)
def test_lies_and_calls_are_refused(write, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = write(LIES[name])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"file\.pth"):
            read_torch(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "ran").exists()


def test_the_message_names_the_function(write):
    with pytest.raises(InputError, match=r"file\.pth refers to posix\.system, which is not data"):
        read_torch(write(LIES["call"]))


class TestZip:
    def test_compressed(self, tmp_path):
        zipped(tmp_path / "file.pth", b"N.", {"0": bytes(2**20)}, zipfile.ZIP_DEFLATED)
        with pytest.raises(InputError, match="compressed"):
            read_torch(tmp_path / "file.pth")

    def test_entries_that_overlap(self, tmp_path):
        path = tmp_path / "file.pth"
        zipped(path, b"N.", {"0": bytes(1000), "1": bytes(1000)})
        content = bytearray(path.read_bytes())
        directory = content.index(b"PK\x01\x02")
        content[directory:] = content[directory:].replace(
            struct.pack("<II", 1000, 1000), struct.pack("<II", 2000, 2000)
        )
        path.write_bytes(content)
        with pytest.raises(InputError, match="larger than the file"):
            read_torch(path)

    def test_entry_that_ends_beyond_the_file(self, tmp_path):
        zipped(tmp_path / "file.pth", tensor(count=305) + b".", {"0": bytes(1000)})
        content = (tmp_path / "file.pth").read_bytes()
        content = content.replace(struct.pack("<II", 1000, 1000), struct.pack("<II", 1220, 1220))
        (tmp_path / "file.pth").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            read_torch(tmp_path / "file.pth")

    def test_changed_numbers(self, tmp_path):
        zipped(tmp_path / "file.pth", tensor() + b".", {"0": TWO})
        content = (tmp_path / "file.pth").read_bytes()
        (tmp_path / "file.pth").write_bytes(content.replace(TWO, TWO[::-1]))
        with pytest.raises(InputError, match="CRC"):
            read_torch(tmp_path / "file.pth")

    def test_without_a_pickle(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "file.pth", "w") as archive:
            archive.writestr("word/document.xml", "")
        with pytest.raises(InputError, match=r"data\.pkl"):
            read_torch(tmp_path / "file.pth")

    def test_other_byte_order(self, tmp_path):
        zipped(tmp_path / "file.pth", tensor() + b".", {"0": TWO}, byteorder=b"big")
        with pytest.raises(InputError, match="byte order"):
            read_torch(tmp_path / "file.pth")


class TestLegacy:
    def test_other_byte_order(self, tmp_path):
        legacy(tmp_path / "file.pth", tensor() + b".", ["0"], [(2, TWO)], little_endian=False)
        with pytest.raises(InputError, match="byte order"):
            read_torch(tmp_path / "file.pth")

    @pytest.mark.parametrize(
        "keys, storages",
        [
            ([], []),
            (["1"], [(2, TWO)]),
            ([0], [(2, TWO)]),
            (["0"], [(3, TWO + TWO[:4])]),
            (["0"], [(-1, TWO)]),
            (["0"], [(2, TWO[:-1])]),
            (["0"], [(2, TWO + b"\0")]),
            (["0", "0"], [(2, TWO)]),
        ],
    )
    def test_numbers_that_do_not_fit(self, tmp_path, keys, storages):
        legacy(tmp_path / "file.pth", tensor() + b".", keys, storages)
        with pytest.raises(InputError, match=r"file\.pth"):
            read_torch(tmp_path / "file.pth")

    def test_other_files(self, tmp_path):
        for content in (b"", b"text", pickle.dumps({"a": 1}), bytes(1000)):
            (tmp_path / "file.pth").write_bytes(content)
            with pytest.raises(InputError, match=r"torch\.save|is empty|zeros alone"):
                read_torch(tmp_path / "file.pth")


@pytest.mark.parametrize("path", FILES, ids=["zip", "legacy"])
def test_random_corruptions(path, tmp_path):
    random, good, refused = np.random.default_rng(0), path.read_bytes(), 0
    for index in range(200):
        bad = bytearray(good)
        if index % 4 == 0:
            del bad[random.integers(len(bad)) :]
        else:
            for _ in range(random.integers(1, 4)):
                bad[random.integers(len(bad))] = random.integers(256)
        (tmp_path / "file.pth").write_bytes(bad)
        start = time.perf_counter()
        try:
            read_torch(tmp_path / "file.pth")
        except InputError:
            refused += 1
        assert time.perf_counter() - start < 5
    assert refused > 80


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_memory_stays_below_three_times_the_file(tmp_path, form):
    count = 2**20
    numbers = np.arange(count, dtype=np.float32).tobytes()
    pickled = b"](" + b"".join(tensor(shape=(count,), count=count, key=str(key)) for key in range(4)) + b"e."
    if form == "zip":
        zipped(tmp_path / "file.pth", pickled, {str(key): numbers for key in range(4)})
    else:
        legacy(tmp_path / "file.pth", pickled, [str(key) for key in range(4)], [(count, numbers)] * 4)
    tracemalloc.start()
    try:
        got = read_torch(tmp_path / "file.pth")
        assert tracemalloc.get_traced_memory()[1] < 3 * (tmp_path / "file.pth").stat().st_size
    finally:
        tracemalloc.stop()
    assert_same(got, [np.arange(count, dtype=np.float32)] * 4)
