"""`jaxface COMMAND` and `python -m jaxface.COMMAND`: one list, one way to run, one line for a missing extra."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import jaxface
from jaxface.__main__ import list_commands, main
from jaxface.core.errors import MissingDependencyError, needs_extra

COMMANDS = ["annotate", "calibrate", "convert", "demo", "evaluate", "fit", "preprocess", "reconstruct", "train"]


def exit_code_of(arguments) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_every_command_says_in_one_line_what_it_does(capsys):
    commands = list_commands()
    assert list(commands) == COMMANDS
    for name, told in commands.items():
        assert told.endswith(".") and told[0].isupper(), f"{name}: {told}"
    assert exit_code_of(["--help"]) == exit_code_of([]) == 0
    helps = capsys.readouterr().out
    assert helps.count("usage: jaxface COMMAND") == 2 and all(helps.count(told) == 2 for told in commands.values())


def test_the_list_waits_for_no_library():
    """Not a time, which depends on what else the machine does: about 0.1 s of the second that is allowed."""
    program = "import sys; from jaxface.__main__ import list_commands; list_commands(); print('numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


@pytest.mark.parametrize(("name", "hint"), [("recontruct", "; did you mean reconstruct?"), ("xyz", "\n")])
def test_an_unknown_command_shows_the_list(name, hint, capsys):
    assert exit_code_of([name]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: there is no command '{name}'{hint}") and "\n  preprocess " in errors


def test_programs_on_photos_begin_in_silence():
    """Without protobuf, which warned at every run of what MediaPipe had asked of it."""
    program = "import sys, jaxface.fit, jaxface.preprocess; print('google.protobuf' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("False\n", "")


def test_the_version(capsys):
    assert exit_code_of(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxface {jaxface.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_started_with_what_follows_its_name(name, monkeypatch):
    started = []

    def console():
        started.append(sys.argv)
        sys.exit(7)

    monkeypatch.setattr(importlib.import_module(f"jaxface.{name}"), "console", console)
    monkeypatch.setattr(sys, "argv", ["jaxface", name, "--seed", "1"])
    assert exit_code_of(None) == 7 and started == [[f"jaxface {name}", "--seed", "1"]]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["convert"], ["train", "--config", "nonsense"]])
def test_both_ways_are_the_same(arguments):
    name, *rest = arguments
    ways = (["-m", "jaxface", name], ["-m", f"jaxface.{name}"])
    one, other = (subprocess.run([sys.executable, *way, *rest], capture_output=True, text=True) for way in ways)
    assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)
    assert one.returncode == 2 and "Traceback" not in one.stderr and one.stderr


def test_a_missing_extra_is_named():
    with pytest.raises(MissingDependencyError) as raised, needs_extra("photo", "the figure"):
        import there_is_no_such_package.part  # noqa: F401
    assert str(raised.value) == "the figure needs there_is_no_such_package; run: pip install 'jaxface[photo]'"
    with pytest.raises(ModuleNotFoundError), needs_extra("photo", "the figure"):
        import jaxface.no_such_room  # noqa: F401  # a bug of ours is none of a missing extra


@pytest.mark.slow
def test_names_have_their_types_for_a_user(tmp_path):
    """Without the TYPE_CHECKING imports in jaxface/__init__.py all of these would be Any."""
    program = tmp_path / "program.py"
    program.write_text(
        "import jaxface\n"
        "from jaxface import Camera, fit_photo, load_face_model\n"
        "reveal_type(fit_photo('a.jpg'))\n"
        "reveal_type(load_face_model('anny'))\n"
        "reveal_type(jaxface.Coefficients.zeros(load_face_model('anny')))\n"
        "reveal_type(Camera().resized(64))\n"
        "reveal_type(jaxface.losses.prdl_loss)\n"
        "jaxface.nonsense\n"
    )
    root = Path(jaxface.__file__).parents[1]
    cache = root / ".pytest_cache" / "mypy"
    options = ["--config-file=", "--ignore-missing-imports", "--cache-dir", str(cache)]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *options, program.name],
        cwd=tmp_path, env={"MYPYPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    revealed = [line.partition('Revealed type is "')[2] for line in result.stdout.splitlines() if "Revealed" in line]
    types = ["results.fitted_photo.FittedPhoto", "core.face_models.FaceModel", "core.coefficients.Coefficients"]
    types += ["core.cameras.Camera"]
    assert revealed[:-1] == [f'jaxface.{name}"' for name in types], result.stdout
    assert revealed[-1].startswith("def (")
    assert 'program.py:8: error: Module has no attribute "nonsense"' in result.stdout
