"""Hostile pickles: nothing that they ask for is done, and small ones do not fill the memory."""

import collections
import importlib
import os
import pickle
import subprocess
import time
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

from jaxface.core.errors import InputError
from jaxface.files.pickles import read_pickle


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


COMMAND, CODE = "touch ran", "open('ran', 'w')"

CALLS = {
    "os.system": Call(os.system, COMMAND),
    "os.popen": Call(os.popen, COMMAND),
    "subprocess.Popen": Call(subprocess.Popen, ["touch", "ran"]),
    "eval": Call(eval, CODE),
    "exec": Call(exec, CODE),
    "open": Call(open, "ran", "w"),
    "import": Call(__import__, "this"),
    "importlib": Call(importlib.import_module, "this"),
    "getattr chain": Call(Call(getattr, Call(importlib.import_module, "os"), "system"), COMMAND),
    "globals": Call(globals),
    "map": Call(list, Call(map, eval, [CODE])),
    "pickle in a pickle": Call(pickle.loads, pickle.dumps(Call(os.system, COMMAND))),
    "numpy.load": Call(np.load, "ran"),
    "numpy.save": Call(np.save, "ran", [1]),
    "scipy's io": Call(sp.save_npz, "ran", sp.eye(2)),
    "defaultdict": Call(collections.defaultdict, Call(eval, CODE)),
    "defaultdict that calls": Call(collections.defaultdict, eval),
    "partial": Call(Call(importlib.import_module("functools").partial, eval, CODE)),
    "attrgetter": Call(importlib.import_module("operator").attrgetter("system"), os),
    "in a key": {Call(eval, CODE): 1},
    "in an array": np.array([Call(eval, CODE)], object),
    "without a call": [os.system],
    "type": Call(type, "name", (), {}),
    "bytearray of a length": Call(bytearray, 10**12),
    "complex of text": Call(complex, "1", 2.0),
    "slice of calls": slice(Call(eval, CODE)),
}


@pytest.fixture
def nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    yield tmp_path / "files" / "file.pkl"
    assert not (tmp_path / "ran").exists()


def test_the_payload_is_live(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(CALLS["os.system"]))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused(nothing_runs, name, protocol):
    try:
        nothing_runs.write_bytes(pickle.dumps(CALLS[name], protocol))
    except (TypeError, pickle.PicklingError, AttributeError):
        pytest.skip("Python does not write this one")
    with pytest.raises(InputError, match=r"not data|does not need|something other|another way"):
        read_pickle(nothing_runs)


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def stacked(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


DTYPE = b"cnumpy\ndtype\n" + text("O8") + b"\x89\x88\x87R"
DTYPE_STATE = b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
FLOATS = (
    b"cnumpy\ndtype\n"
    + text("f8")
    + b"\x89\x88\x87R(K\x03"
    + text("<")
    + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
NEW_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
RUN = b"(" + text("touch ran") + b"tR"
PROGRAMS = {
    "INST": b"(S'touch ran'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\n" + text("touch ran") + b"o.",
    "NEWOBJ": b"csubprocess\nPopen\n(" + text("touch ran") + b"t\x81.",
    "NEWOBJ_EX": b"csubprocess\nPopen\n)}\x92.",
    "GLOBAL": b"cos\nsystem\n" + RUN + b".",
    "STACK_GLOBAL": b"\x80\x04" + stacked("os", "system") + RUN + b".",
    "dotted name": b"\x80\x04" + stacked("os", "path.os.system") + RUN + b".",
    "dotted name of an allowed one": b"\x80\x04" + stacked("numpy", "dtype.__class__.__base__") + b".",
    "dotted module": b"\x80\x04" + stacked("numpy.core.multiarray._reconstruct", "__globals__") + b".",
    "name that is not text": b"\x80\x04" + text("os") + b"K\x01\x93.",
    "dunder of an allowed one": b"ccollections\nOrderedDict\n}" + text("__setstate__") + b"cos\nsystem\nsb.",
    "extension registry": b"\x82\x01" + RUN + b".",
    "extension registry 4": b"\x84\x01\x00\x00\x00.",
    "persistent identifier": b"Pos.system\n.",
    "persistent identifier from the stack": text("os.system") + b"Q.",
    "memo": b"cos\nsystem\nq\x010h\x01" + RUN + b".",
    "memo of a part that is replaced": NEW_ARRAY + b"q\x01cos\nsystem\nq\x010" + RUN + b".",
    "buffer from outside": b"\x97.",
    "calls a value": text("os.system") + RUN + b".",
    "calls with a list": b"ccollections\nOrderedDict\n]R.",
    "reconstructs a function": b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
    "reconstructs from another base": b"ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nc__builtin__\nlist\n]tR.",
    "reconstructs with arguments": b"ccopy_reg\n__newobj__\n(cargparse\nNamespace\nK\x01tR.",
    "array of another class": b"cnumpy.core.multiarray\n_reconstruct\n(cargparse\nNamespace\nK\x00\x85C\x01btR.",
    "array that is a function": b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\nK\x00\x85C\x01btR.",
    "array of pointers": NEW_ARRAY + b"(K\x01K\x01\x85" + DTYPE + DTYPE_STATE + b"\x89C\x08AAAAAAAAtb.",
    "array in itself": NEW_ARRAY + b"q\x01(K\x01K\x01\x85" + DTYPE + DTYPE_STATE + b"\x89](h\x01etb.",
    "array larger than its content": NEW_ARRAY + b"(K\x01\x8a\x05\x00\x00\x00\x00\x10\x85" + FLOATS + b"\x89C\x00tb.",
    "array of negative length": NEW_ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + FLOATS + b"\x89C\x00tb.",
    "array without state": NEW_ARRAY + b".",
    "array filled twice": NEW_ARRAY + b"(K\x01K\x01\x85" + FLOATS + b"\x89C\x08AAAAAAAAtq\x01bh\x01b.",
    "type of an object": b"cnumpy\ndtype\n(cos\nsystem\ntR.",
    "type of text that is code": b"cnumpy\ndtype\n(" + text("f8,f8") + b"tR.",
    "type with metadata": DTYPE + DTYPE_STATE[:-2] + b"}" + text("a") + b"K\x01stb.",
    "type with fields": DTYPE + b"(K\x03" + text("|") + b"N" + text("a") + b"\x85}J\x10\x00\x00\x00K\x01K?tb.",
    "type without state": DTYPE + b".",
    "type whose state is a number": DTYPE + b"K\x03b.",
    "scalar that is an object": b"cnumpy.core.multiarray\nscalar\n" + DTYPE + DTYPE_STATE + b"]\x86R.",
    "attributes of a list": b"]}b.",
    "attributes of a dictionary": b"}}" + text("__class__") + b"Nsb.",
    "appends to an array": NEW_ARRAY + b"K\x01a.",
    "sets items of a list": b"]K\x00K\x01s.",
    "unhashable key": b"}]K\x01s.",
    "key of tuples": b"}" + b")" + b"2\x86" * 40 + b"K\x01s.",
    "huge integer key": b"}\x8a\x09" + b"\x01" * 9 + b"K\x01s.",
    "huge integer": b"\x8b\x00\x10\x00\x00" + b"\x01" * 4096 + b".",
    "huge decimal integer": b"I" + b"9" * 100_000 + b"\n.",
    "bytes that are not there": b"\x8e" + (2**60).to_bytes(8, "little") + b"abc.",
    "text that is not there": b"X\xff\xff\xff\x7fabc.",
    "string of negative length": b"T\xff\xff\xff\xffabc.",
    "list in itself": b"]q\x00h\x00a.",
    "dictionary in itself": b"}q\x00K\x00h\x00s.",
    "tuple in itself": b"]q\x00h\x00\x85a.",
    "deep nesting": b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep nesting of tuples": b")" + b"\x85" * 100_000 + b".",
    "deep nesting by parts": b"](]q\x00" + b"]h\x00aq\x00" * 200 + b"e.",
    "billion laughs": b"]q\x00" + b"](h\x00h\x00eq\x00" * 60 + b".",
    "too few on the stack": b"K\x01\x86.",
    "mark that is not there": b"K\x01t.",
    "nothing": b".",
    "nothing at all": b"",
    "without an end": b"K\x01",
    "two objects": b"K\x01.K\x02.",
    "protocol of the future": b"\x80\x06K\x01.",
    "not a pickle": b"PK\x03\x04",
    "encodes in another way": b"c_codecs\nencode\n(" + text("a") + text("rot13") + b"tR.",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_hostile_programs_are_refused(nothing_runs, name):
    nothing_runs.write_bytes(PROGRAMS[name])
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"file\.pkl") as error:
        read_pickle(nothing_runs)
    assert time.perf_counter() - start < 20
    assert "\n" not in str(error.value)


def test_messages_name_what_was_refused_and_nothing_else(nothing_runs):
    nothing_runs.write_bytes(b"\x80\x04" + stacked("os\n\x1b[2J", "system" * 100) + RUN + b".")
    with pytest.raises(InputError, match=r"refers to os\\n\\x1b\[2J\.systemsystem") as error:
        read_pickle(nothing_runs)
    assert str(error.value).isprintable() and len(str(error.value)) < 600


NUMBERS = b"".join(b"M" + number.to_bytes(2, "little") for number in range(10_000))


def repeated(first: bytes, again: bytes) -> bytes:
    """A list of what `first` makes, and `again` 200,000 times."""
    return b"](" + first + again * 200_000 + b"e."


EXPANSIONS = {
    "encodes one text often": repeated(
        text("a" * 60_000) + b"q\x01", b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"
    ),
    "shows one list often": repeated(b"(" + b"K\x01" * 10_000 + b"lq\x01", b"h\x01"),
    "makes one set often": repeated(b"(" + NUMBERS + b"lq\x01", b"cbuiltins\nset\nh\x01\x85R"),
    "copies one array often": repeated(
        b"cnumpy\ndtype\n"
        + text("f8")
        + b"\x85R(K\x03"
        + text(">")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbq\x01"
        b"B\x00\x00\x10\x00" + bytes(2**20) + b"q\x02",
        b"cnumpy.core.numeric\n_frombuffer\n(h\x02h\x01J\x00\x00\x02\x00\x85" + text("C") + b"tR",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPANSIONS)
def test_small_files_do_not_fill_the_memory(nothing_runs, name):
    nothing_runs.write_bytes(EXPANSIONS[name])
    size = nothing_runs.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"makes far more|repeats its content"):
            read_pickle(nothing_runs)
        assert tracemalloc.get_traced_memory()[1] < 20 * size + 2**27
    finally:
        tracemalloc.stop()


def test_a_long_chain_of_arrays_of_objects_is_refused(nothing_runs):
    # NumPy frees it by recursion: 100,000 of them end the process.
    link = b"cnumpy.core.numeric\n_frombuffer\n(](h\x00eh\x01K\x01\x85" + text("C") + b"tRq\x00"
    nothing_runs.write_bytes(DTYPE + DTYPE_STATE + b"q\x01Nq\x00" + link * 10_000 + b".")
    with pytest.raises(InputError, match="directly in another"):
        read_pickle(nothing_runs)


def test_too_many_instructions(nothing_runs, monkeypatch):
    monkeypatch.setattr("jaxface.files._pickle_machine.MAX_INSTRUCTIONS", 1000)
    nothing_runs.write_bytes(b"N0" * 1000 + b"N.")
    with pytest.raises(InputError, match="1,000 instructions"):
        read_pickle(nothing_runs)
