"""Writes the pages of the API reference into docs/api/, one per module, and finds public names that nobody documented.

conf.py calls `write_pages` before each build; tests/test_docs.py calls `undocumented`. Public is what has no leading
underscore, in modules that have none. Everything is read from the source: nothing here has to know the modules.
"""

import ast
import importlib
import itertools
import re
import shutil
import types
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "jaxface"
API = DOCS / "api"


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """The public modules of a package and of all below it: full name -> file."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        if not any(part.startswith("_") for part in parts):
            found[".".join(parts)] = path
    return found


def rooms() -> list[str]:
    """The rooms in reading order, as the table in architecture.md lists them."""
    return re.findall(r"^\| `(\w+)/` ", (DOCS / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE)


def undocumented(name: str, path: Path) -> Iterator[str]:
    """The public names of a module, and the module itself, that say nothing about themselves."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        yield name
    yield from _undocumented(name, tree.body)
    described = dict(constants(source))
    yield from (f"{name}.{constant}" for constant, text in described.items() if not text)


def _undocumented(owner: str, body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            name = f"{owner}.{node.name}"
            if not ast.get_docstring(node) and not any("overload" in ast.unparse(one) for one in node.decorator_list):
                yield name
            if isinstance(node, ast.ClassDef):
                yield from _undocumented(name, node.body)
                text = ast.get_docstring(node) or ""
                fields = (one.target.id for one in node.body if isinstance(one, ast.AnnAssign))
                yield from (f"{name}.{field}" for field in fields if not re.search(rf"\b{field}\b", text))


def constants(source: str) -> Iterator[tuple[str, str]]:
    """The public constants of a module with what is said of them: a string below, or a comment above or beside.

    Short names of types say what they are and may go without: of them the text is what they stand for.
    """
    body, lines = ast.parse(source).body, source.splitlines()
    for node, following in zip(body, [*body[1:], None], strict=True):
        below = following.value if isinstance(following, ast.Expr) else None
        if isinstance(below, ast.Constant) and isinstance(below.value, str):
            text = below.value
        elif isinstance(node, ast.Assign) and _is_type(node.value):
            text = f"The type `{ast.unparse(node.value)}`."
        else:
            text = _comment(lines, node.lineno, node.end_lineno or node.lineno)
        yield from ((name, text) for name in targets(node))


def _is_type(value: ast.expr) -> bool:
    made = isinstance(value, ast.Call) and ast.unparse(value.func) in ("ParamSpec", "TypeVar")
    return made or isinstance(value, ast.Subscript)


def targets(node: ast.stmt) -> list[str]:
    """The public names that a statement gives values to."""
    annotated = [node.target] if isinstance(node, ast.AnnAssign) else []
    assigned = node.targets if isinstance(node, ast.Assign) else annotated
    names = [name.id for target in assigned for name in ast.walk(target) if isinstance(name, ast.Name)]
    return [name for name in names if not name.startswith("_") and not isinstance(assigned[0], ast.Subscript)]


def _comment(lines: list[str], first: int, last: int) -> str:
    """The comment beside the first or last of some lines (counted from 1), else the one directly above them."""
    for line in (lines[first - 1], lines[last - 1]):
        beside = re.search(r"  # (?!fmt:|type:|noqa)(.*)", line)
        if beside:
            return beside.group(1)
    above = []
    while first > 1 and lines[first - 2].startswith("# "):
        first -= 1
        above.insert(0, lines[first - 1][2:])
    return " ".join(above)


def write_pages() -> None:
    """Writes docs/api/ anew: index, one page per room, one per module.

    Raises:
        ValueError: when public names are undocumented, or architecture.md has other rooms than there are.
    """
    files = modules()
    silent = [one for name, path in files.items() for one in undocumented(name, path)]
    if silent:
        raise ValueError("undocumented public names:\n  " + "\n  ".join(silent))
    folders = [name.split(".")[1] for name, path in files.items() if name.count(".") == 1 and path.stem == "__init__"]
    if sorted(rooms()) != sorted(folders):
        raise ValueError(f"the table in architecture.md has the rooms {rooms()}, jaxface has {folders}")
    commands = [name for name in files if name.count(".") == 1 and name.split(".")[1] not in folders]
    shutil.rmtree(API, ignore_errors=True)
    API.mkdir()
    tops = ["jaxface", *(f"jaxface.{room}" for room in rooms()), *commands]
    for name in files:
        below = name if name in tops[1:] else "none"
        children = {one: file for one, file in files.items() if one.startswith(f"{below}.")}
        (API / f"{name}.rst").write_text(_page(name, files[name], children), encoding="utf-8")
    introduction = "Rooms in reading order, foundations first, then the commands. Public: no underscore in front."
    index = [*_title("API reference"), introduction, "", *_contents({name: files[name] for name in tops})]
    (API / "index.rst").write_text("\n".join(index), encoding="utf-8")


def _title(text: str) -> list[str]:
    return [text, "=" * len(text), ""]


def _contents(files: dict[str, Path]) -> list[str]:
    """Links to the pages of modules, each with the first line of its documentation, and Sphinx's tree of them."""
    links = []
    for name, path in files.items():
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        links += [f"- :doc:`{name} <{name}>` -- {_escaped(first)}"]
    entries = (f"   {name.rpartition('.')[2]} <{name}>" for name in files)
    return [*links, "", ".. toctree::", "   :hidden:", "", *entries, ""]


def _page(name: str, path: Path, children: dict[str, Path]) -> str:
    source = path.read_text(encoding="utf-8")
    options = ["   :members:", "   :member-order: bysource", "   :ignore-module-all:", ""]
    page = [*_title(name), f".. automodule:: {name}", *options]
    exported = ", ".join(f":py:obj:`~{one}`" for one in _exported(name, source))
    if exported:
        page += [f"To import from ``{name}`` itself: {exported}.", ""]
    for constant, text in constants(source):
        page += [f".. py:data:: {constant}", f"   :module: {name}", "", f"   {_escaped(' '.join(text.split()))}", ""]
    return "\n".join(page + ([".. rubric:: Modules", "", *_contents(children)] if children else []))


def _exported(name: str, source: str) -> list[str]:
    """The full names of what a package hands on from its modules."""
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    homes = {(alias.asname or alias.name): f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    module = importlib.import_module(name)
    found = []
    for exported in getattr(module, "__all__", ()):
        value = getattr(module, exported)
        defined = isinstance(value, type | types.FunctionType) and f"{value.__module__}.{value.__qualname__}"
        home = value.__name__ if isinstance(value, types.ModuleType) else defined or homes.get(exported, name)
        if not home.startswith(f"{name}.{exported}"):
            found.append(home)
    return found


SECTION = re.compile(r"(Args|Attributes|Example|Examples|Note|Raises|References|Returns|Yields):$")


def plain_text(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText that shows it as it was written.

    The docstrings are plain text with Google's sections and names in backticks. What is indented or aligned in columns
    (code, tables, trees of files) becomes a literal block; `|`, `*` and `_` mean themselves.
    """
    result: list[str] = []
    section = False
    for paragraph in _paragraphs(lines):
        first, indented = paragraph[0], paragraph[0].startswith(" ")
        section = bool(SECTION.match(first)) or (section and indented)
        bulleted = re.match(r"([-*]|\d+\.) ", first)
        drawn = indented or any(re.search(r"\S {3,}\S", line) for line in paragraph)
        hanging = not bulleted and any(line.startswith(" ") for line in paragraph)
        if re.match("(Returns|Yields):$", first) and len(paragraph) > 1:
            paragraph[1] = re.sub(r"^( *)", r"\1: ", paragraph[1])  # or napoleon takes what precedes a colon for a type
        if not section and (drawn or hanging):
            result += ["::", "", *(f"    {line}" for line in paragraph), ""]
        else:
            result += [*(_escaped(line) for line in paragraph), ""]
    return result


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    for blank, group in itertools.groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            yield list(group)


def _escaped(line: str) -> str:
    """With `|`, `*` and a last `_` as themselves outside backticks; a star may begin a list."""
    pieces = re.split(r"(`[^`]*`)", line)
    pieces[::2] = [re.sub(r"(?!^\* )[|*]|_(?!\w)", r"\\\g<0>", piece) for piece in pieces[::2]]
    return "".join(pieces)
