"""Reads pickles without running them: a small machine for the instructions that data needs.

A pickle is a program: it names functions of any module, and Python's own reader imports and calls them. Here a name is
only looked up in a table of jaxface's own functions. Nothing is imported, no attribute is read or set, and nothing
outside that table is called, whatever the file says.

What a hostile file could still do is use up time and memory. So the number of instructions is bounded, what functions
make counts against an allowance in proportion to the file's size, keys of dictionaries are such that hashing them is
cheap, and the result may not hold itself, nest deeply, or grow without measure when its shared parts are copied.
"""

import codecs
import re
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pickletools import opcodes
from typing import IO, Any, NoReturn

import numpy as np
import scipy.sparse as sp

from jaxface.files._untrusted import ALLOWANCE, ALLOWANCE_PER_BYTE, Refused, check_content, hashable

# Nine million take 8 seconds, measured on two shared cores. Dictionaries of arrays take thousands.
MAX_INSTRUCTIONS = 10_000_000


# Python 2 had one type for text and bytes. What is longer than this is an array's content, and stays bytes.
LONGEST_TEXT = 2**16


@dataclass(frozen=True)
class Global:
    """Stands for a name that the file may refer to.

    Attributes:
        name: "module.name", for messages.
        call: makes a value of the arguments, or None if it may not be called.
        build: makes a value of the state of an object of this class, or None if it is not such a class.
    """

    name: str
    call: Callable | None = None
    build: Callable[[Any], Any] | None = None


@dataclass(eq=False)
class Unbuilt:
    """An object before its state has been read."""

    name: str
    build: Callable[[Any], Any]
    memo_keys: list[int] = field(default_factory=list)


def read_object(
    file: IO[bytes],
    find_global: Callable[[str, str], Any],
    *,
    size: int,
    load_persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Reads one pickled object and leaves `file` behind it.

    Args:
        file: at the start of the pickle.
        find_global: (module, name) -> `Global`, or a plain value; raises `Refused` for what it does not know.
        size: bytes of the whole file, to which time and memory are held in proportion.
        load_persistent: identifier -> the value that the file stores elsewhere.

    Returns:
        Nested lists, tuples, dictionaries and sets of numbers, text, bytes, arrays and sparse matrices.

    Raises:
        Refused: when the pickle asks for something that is not data, or for too much.
        ValueError: (or TypeError, LookupError, ArithmeticError) when it is malformed.
    """
    machine = _Machine(file, find_global, size, load_persistent)
    value = machine.run()
    check_content(value, machine.full_allowance)
    return value


def create(cls: Any, arguments: Any = ()) -> Unbuilt:
    """An object of a class, without its state."""
    if not isinstance(cls, Global) or cls.build is None:
        raise Refused(f"makes an object of {getattr(cls, 'name', 'something')}, which is not a class of data")
    if arguments:
        raise Refused(f"makes an object of {cls.name} with arguments, which data does not need")
    return Unbuilt(f"an unfinished {cls.name}", cls.build)


class _Machine:
    def __init__(self, file: IO[bytes], find_global: Callable, size: int, load_persistent: Callable | None):
        self.file = file
        self.size = size
        self.find_global = find_global
        self.load_persistent = load_persistent
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.instructions_left = MAX_INSTRUCTIONS
        self.full_allowance = self.allowance = ALLOWANCE_PER_BYTE * size + ALLOWANCE

    def run(self) -> Any:
        instructions = _instructions(self)
        read = self.file.read
        while (code := read(1)) != b".":
            if code not in instructions:
                raise ValueError("it is cut off" if not code else f"{code!r} is not an instruction of pickles")
            self.instructions_left -= 1
            if self.instructions_left < 0:
                raise Refused(
                    f"is a pickle of more than {MAX_INSTRUCTIONS:,} instructions; store arrays in their place"
                )
            instructions[code]()
        return self.pop()

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.size:
            raise ValueError("it is cut off")
        content = self.file.read(count)
        if len(content) < count:
            raise ValueError("it is cut off")
        return content

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        line = self.file.readline()
        if line[-1:] != b"\n":
            raise ValueError("it is cut off")
        return line[:-1]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise ValueError("it takes more from the stack than is there")
        return self.stack.pop()

    def top(self, kind: type | tuple[type, ...]) -> Any:
        if not self.stack or type(self.stack[-1]) not in (kind if isinstance(kind, tuple) else (kind,)):
            raise ValueError("it fills something that is not a container")
        return self.stack[-1]

    def mark(self) -> None:
        self.outer_stacks.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list:
        if not self.outer_stacks:
            raise ValueError("it takes more from the stack than is there")
        items, self.stack = self.stack, self.outer_stacks.pop()
        return items

    def pop_or_unmark(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_to_mark()

    def duplicate(self) -> None:
        self.stack += self.stack[-1:]

    def push_tuple(self, count: int) -> None:
        self.push(tuple(reversed([self.pop() for _ in range(count)])))

    def put(self, key: int) -> None:
        value = self.pop()
        if isinstance(value, Unbuilt):
            value.memo_keys.append(key)
        self.memo[key] = value
        self.push(value)

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise ValueError("it refers to an earlier value that is not there")
        self.push(self.memo[key])

    def append(self, items: list) -> None:
        self.top(list).extend(items)

    def set_items(self, items: list) -> None:
        container = self.top((dict, OrderedDict))
        for key, value in _pairs(items):
            container[key] = value

    def add_items(self, items: list) -> None:
        self.top(set).update(hashable(item) for item in items)

    def empty_set(self) -> None:
        self.instructions_left -= 4  # it takes that much more memory than other values
        self.push(set())

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or function.call is None:
            raise Refused(f"calls {getattr(function, 'name', 'something')}, which data does not need")
        if not isinstance(arguments, tuple):
            raise ValueError("it calls a function without a tuple of arguments")
        self.push(self.pay_for(function.call(*arguments)))

    def create(self, options: dict | None = None) -> None:
        arguments, cls = self.pop(), self.pop()
        self.push(create(cls, arguments or options))

    def create_with_options(self) -> None:
        self.create(self.pop())

    def create_from_mark(self) -> None:
        cls, *arguments = self.pop_to_mark()
        self.push(create(cls, arguments))

    def create_named(self) -> None:
        cls = self.named(self.line().decode(), self.line().decode())
        self.push(create(cls, self.pop_to_mark()))

    def build(self) -> None:
        state, value = self.pop(), self.pop()
        if isinstance(value, Unbuilt):
            built = self.pay_for(value.build(state))
            for key in value.memo_keys:
                if self.memo[key] is value:
                    self.memo[key] = built
            value = built
        elif type(value) is not OrderedDict:  # its attributes, such as PyTorch's _metadata, are not content
            raise Refused("sets attributes of something that has none")
        self.push(value)

    def pay_for(self, value: Any) -> Any:
        self.allowance -= sys.getsizeof(value)
        if isinstance(value, np.ndarray):
            self.allowance -= value.nbytes
        if sp.issparse(value):
            self.allowance -= value.data.nbytes + 8 * (value.nnz + max(value.shape))
        if self.allowance < 0:
            raise Refused("makes far more of its content than there is in the file")
        return value

    def named(self, module: Any, name: Any) -> Any:
        if type(module) is not str or type(name) is not str:
            raise ValueError("it names something without text")
        return self.find_global(module, name)

    def push_named(self) -> None:
        self.push(self.named(self.line().decode(), self.line().decode()))

    def push_named_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(self.named(module, name))

    def push_persistent(self, identifier: Any) -> None:
        if self.load_persistent is None:
            raise Refused("refers to an object outside of the file, as only PyTorch's files do")
        self.push(self.load_persistent(identifier))

    def check_protocol(self) -> None:
        if self.number("<B") > 5:
            raise Refused("is a pickle of a protocol that is newer than 5")

    def refuse(self, name: str) -> NoReturn:
        raise Refused(f"uses the pickle instruction {name}, which data does not need")


_FIXED = {"BININT": "<i", "BININT1": "<B", "BININT2": "<H", "BINFLOAT": ">d"}

_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_UNUSED = ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER")


def _integer(content: bytes) -> int:
    if len(content) > 1024:
        raise Refused("holds an integer of more than 8,192 bits")
    return int.from_bytes(content, "little", signed=True)


def _byte_string(content: bytes) -> str | bytes:
    return content.decode("latin1") if len(content) <= LONGEST_TEXT else content


# What Python 2 writes; codecs would warn about other escapes.
_ESCAPED = re.compile(rb"""(?:[^\\]++|\\(?:[\\'"nrt]|x[0-9a-f]{2}))*+""")


def _quoted(line: bytes) -> str | bytes:
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1] or not _ESCAPED.fullmatch(line[1:-1]):
        raise ValueError("it holds a string that is not quoted as it should")
    return _byte_string(codecs.escape_decode(line[1:-1])[0])  # type: ignore[attr-defined]


def _decimal(line: bytes) -> int:
    if len(line) > 2048:
        raise Refused("holds an integer of more than 2,048 digits")
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.removesuffix(b"L"))


_text = partial(str, encoding="utf-8", errors="surrogatepass")


# Instruction -> the number before it that tells its length, and what is made of its content.
_SIZED: dict[str, tuple[str, Callable[[bytes], Any]]] = {
    "LONG1": ("<B", _integer),
    "LONG4": ("<i", _integer),
    "SHORT_BINSTRING": ("<B", _byte_string),
    "BINSTRING": ("<i", _byte_string),
    "SHORT_BINBYTES": ("<B", bytes),
    "BINBYTES": ("<I", bytes),
    "BINBYTES8": ("<Q", bytes),
    "BYTEARRAY8": ("<Q", bytearray),
    "SHORT_BINUNICODE": ("<B", _text),
    "BINUNICODE": ("<I", _text),
    "BINUNICODE8": ("<Q", _text),
}

_LINES: dict[str, Callable[[bytes], Any]] = {
    "INT": _decimal,
    "LONG": _decimal,
    "FLOAT": float,
    "STRING": _quoted,
    "UNICODE": lambda line: str(line, "raw-unicode-escape"),
}


def _instructions(machine: _Machine) -> dict[bytes, Callable[[], None]]:
    m = machine
    steps: dict[str, Callable[[], Any]] = {
        "NONE": partial(m.push, None),
        "NEWTRUE": partial(m.push, True),
        "NEWFALSE": partial(m.push, False),
        "EMPTY_LIST": lambda: m.push([]),
        "EMPTY_DICT": lambda: m.push({}),
        "EMPTY_SET": m.empty_set,
        "LIST": lambda: m.push(m.pop_to_mark()),
        "TUPLE": lambda: m.push(tuple(m.pop_to_mark())),
        "DICT": lambda: m.push(dict(_pairs(m.pop_to_mark()))),
        "FROZENSET": lambda: m.push(frozenset(hashable(item) for item in m.pop_to_mark())),
        "APPEND": lambda: m.append([m.pop()]),
        "APPENDS": lambda: m.append(m.pop_to_mark()),
        "SETITEM": lambda: m.set_items([m.pop(), m.pop()][::-1]),
        "SETITEMS": lambda: m.set_items(m.pop_to_mark()),
        "ADDITEMS": lambda: m.add_items(m.pop_to_mark()),
        "MARK": m.mark,
        "POP": m.pop_or_unmark,
        "POP_MARK": m.pop_to_mark,
        "DUP": m.duplicate,
        "MEMOIZE": lambda: m.put(len(m.memo)),
        "PUT": lambda: m.put(_decimal(m.line())),
        "BINPUT": lambda: m.put(m.number("<B")),
        "LONG_BINPUT": lambda: m.put(m.number("<I")),
        "GET": lambda: m.get(_decimal(m.line())),
        "BINGET": lambda: m.get(m.number("<B")),
        "LONG_BINGET": lambda: m.get(m.number("<I")),
        "GLOBAL": m.push_named,
        "STACK_GLOBAL": m.push_named_from_stack,
        "REDUCE": m.call,
        "BUILD": m.build,
        "NEWOBJ": m.create,
        "NEWOBJ_EX": m.create_with_options,
        "OBJ": m.create_from_mark,
        "INST": m.create_named,
        "PERSID": lambda: m.push_persistent(m.line().decode("ascii")),
        "BINPERSID": lambda: m.push_persistent(m.pop()),
        "PROTO": m.check_protocol,
        "FRAME": lambda: m.number("<Q"),
    }

    def push_number(form: str) -> None:
        m.push(m.number(form))

    def push_line(make: Callable[[bytes], Any]) -> None:
        m.push(make(m.line()))

    def push_sized(form: str, make: Callable[[bytes], Any]) -> None:
        m.push(make(m.take(m.number(form))))

    steps |= {name: partial(push_number, form) for name, form in _FIXED.items()}
    steps |= {name: partial(m.push_tuple, count) for name, count in _TUPLES.items()}
    steps |= {name: partial(push_line, make) for name, make in _LINES.items()}
    steps |= {name: partial(m.refuse, name) for name in _UNUSED}
    steps |= {name: partial(push_sized, form, make) for name, (form, make) in _SIZED.items()}
    return {op.code.encode("latin1"): steps[op.name] for op in opcodes if op.name in steps}


def _pairs(items: list) -> Iterator[tuple[Any, Any]]:
    if len(items) % 2:
        raise ValueError("a dictionary has a key without a value")
    return zip(map(hashable, items[::2]), items[1::2], strict=True)
