"""The program `jaxface`: lists the commands, and starts one."""

import ast
import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jaxface.core.version import __version__


def list_commands() -> dict[str, str]:
    """Name -> the first line about it: of each module beside this one, whose text is read but not run."""
    paths = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("_"))
    told = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in paths}
    return {name: text.partition("\n")[0] for name, text in told.items()}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs `jaxface COMMAND ...` and exits; the same as `python -m jaxface.COMMAND ...`.

    Args:
        arguments: the command's name and what follows; those of the command line by default.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    commands = list_commands()
    if name in ("-h", "--help"):
        print(_overview(commands))
        sys.exit(0)
    if name == "--version":
        print(f"jaxface {__version__}")
        sys.exit(0)
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"error: there is no command {name!r}{hint}\n\n{_overview(commands)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"jaxface {name}", *rest]
    _start(name)


def _overview(commands: dict[str, str]) -> str:
    lines = [f"  {name:13}{told}" for name, told in commands.items()]
    return "\n".join(["usage: jaxface COMMAND ...    (jaxface COMMAND --help tells more)", "", *lines])


def _start(name: str) -> NoReturn:
    from jaxface.core.errors import needs_extra
    from jaxface.files.command_line import run  # which loads JAX: the list of commands need not wait for it

    def load_and_run() -> None:
        # Training imports its extra at once; the others import theirs where they need it.
        with needs_extra("train", f"jaxface {name}"):
            command = importlib.import_module(f"jaxface.{name}")
        command.console()

    run(load_and_run)


if __name__ == "__main__":
    main()
