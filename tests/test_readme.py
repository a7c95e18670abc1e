"""The README's program runs as it is printed and says what it says; every command in README and docs is true."""

import argparse
import importlib
import re
import subprocess
import sys

import pytest

from jaxface.__main__ import list_commands
from jaxface.train import read_config
from toys.documents import PAGES, ROOT, mentioned_commands, shown_commands


@pytest.mark.slow
def test_the_program_with_prdl_alone():
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    program = next(text for text in programs if "prdl_loss" in text)
    assert set(re.findall(r"^(?:import|from) (\S+)", program, re.MULTILINE)) == {"jax", "jax.numpy", "jaxface.losses"}
    expected = [float(number) for number in re.findall(r"[\d.]+", program.split("# [")[1].split(";")[0])]
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    printed = [float(number) for number in re.findall(r"[\d.]+", run.stdout)]
    assert len(printed) == len(expected) == 4
    assert all(abs(a - b) < 0.1 for a, b in zip(printed, expected, strict=True))


class Parsed(Exception):
    """Raised in place of the work, once the arguments are understood."""


def check_command(words, monkeypatch):
    """Has the program that a line of shell names read its own arguments, and do nothing."""
    if words[:2] == ["python", "-m"]:
        assert words[2].startswith("jaxface.") or words[2] == "jaxface", words
        words = ["jaxface", *words[2].split(".")[1:], *words[3:]]
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(word for word in words[1:] if "=" not in word) <= {*targets}, words
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), words
        shown = (ROOT / words[1]).read_text()
        assert all(word in shown for word in words if word.startswith("--")), words
    elif words[0] == "jaxface" and len(words) > 1:
        assert words[1] in list_commands(), words
        if words[1] == "train":
            monkeypatch.setattr(sys, "argv", words[1:])  # where ml_collections looks for changes
            assert read_config(words[1:])
            return

        def parse_args(parser, arguments=None, original=argparse.ArgumentParser.parse_args):
            original(parser, arguments)
            raise Parsed

        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        try:
            with pytest.raises(Parsed):
                importlib.import_module(f"jaxface.{words[1]}").main(words[2:])
        except SystemExit as stop:
            assert stop.code == 0 and words[-1] == "--help", words


COMMANDS = [
    pytest.param(words, id=f"{page.name}: {' '.join(words)}") for page in PAGES for words in shown_commands(page)
]


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # how ml_collections reads config files
@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_takes_these_arguments(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert words[0] in ("cd", "git", "jaxface", "make", "pip", "python", "source"), f"what is {words[0]}?"
    check_command(words, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page, capsys):
    for command in mentioned_commands(page):
        words = command.split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
            continue
        name, options = (words[2].partition(".")[2], words[3:]) if words[0] == "python" else (words[1], words[2:])
        if name not in ("", "COMMAND", "X"):
            assert name in list_commands(), command
            given = [word.partition("=")[0] for word in options if word.startswith("--")]
            if name == "train":
                assert all(option.partition(".")[0] == "--config" for option in given), command
            elif given:
                with pytest.raises(SystemExit):
                    importlib.import_module(f"jaxface.{name}").main(["--help"])
                told = capsys.readouterr().out
                assert all(option in told for option in given), command


@pytest.mark.parametrize(
    "line", ["jaxface fitt a.jpg", "jaxface fit a.jpg --outt x", "make nonsense", "jaxface train --config.stepps=3"]
)
def test_a_wrong_command_is_found(line, monkeypatch):
    with pytest.raises((AssertionError, SystemExit, ValueError)):
        check_command(line.split(), monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())]
    inside = [link for link in links if link and "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []
