"""Errors as one line, atomic output, input files, batch reports."""

import collections
import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.files import command_line, inputs
from jaxface.files.atomic import DiskFullError, atomic_folder, atomic_write
from jaxface.files.command_line import keep_compiled, run
from jaxface.files.inputs import (
    collect_files,
    collect_keyed_files,
    content_digest,
    file_digest,
    share_of,
)
from jaxface.files.progress import BatchReport


def exit_code(main) -> int:
    with pytest.raises(SystemExit) as stopped:
        run(main)
    return stopped.value.code


def test_run_prints_a_users_mistake_as_one_line(capsys):
    def main():
        raise InputError("photo.jpg: no such file")

    assert exit_code(main) == 2
    assert capsys.readouterr().err == "error: photo.jpg: no such file\n"


def test_run_exits_130_on_interruption(capsys):
    def main():
        raise KeyboardInterrupt

    assert exit_code(main) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_interrupted_program_need_not_wait_for_its_threads():
    program = """
import threading, time
from jaxface.files.command_line import keep_compiled, run

def main():
    threading.Thread(target=time.sleep, args=(600,)).start()
    print("last words")
    raise KeyboardInterrupt

run(main, wait_for_threads=False)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "last words\n", "interrupted\n")


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1)])
def test_run_passes_the_exit_code_on(result, code):
    assert exit_code(lambda: result) == code


def test_run_does_not_hide_bugs():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_atomic_write_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "new" / "mesh.obj"
    with atomic_write(path) as partial:
        assert partial.suffix == ".obj"
        partial.write_text("old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_write_into_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*mesh"), atomic_write(tmp_path / "file" / "mesh.obj") as _:
        pass


def test_atomic_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "face"
    (tmp_path / ".face.partial").mkdir()  # of a run that was killed
    (tmp_path / ".face.partial" / "junk").write_text("")
    for name in ("first", "second"):
        with atomic_folder(path) as partial:
            (partial / name).write_text(name)
        assert [file.name for file in path.iterdir()] == [name]
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as partial:
        (partial / "third").write_text("")
        raise ZeroDivisionError
    assert [file.name for file in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]


def test_collect_files(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "deep/c.webp", "deep/.cache/d.jpg", "out/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = collect_files([tmp_path / "b.jpg", tmp_path], exclude=tmp_path / "out")
    assert [str(path.relative_to(tmp_path)) for path in found] == ["b.jpg", "a.PNG", str(Path("deep/c.webp"))]
    assert collect_files([f"{tmp_path}/*.txt"]) == [tmp_path / "notes.txt"]  # named by the user: any suffix
    bracket = tmp_path / "me [1].jpg"
    bracket.write_text("")
    assert collect_files([bracket]) == [bracket]


def test_collect_files_keeps_what_is_missing_for_the_reader_to_report(tmp_path):
    (tmp_path / "empty").mkdir()
    patterns = [tmp_path / "nothing.jpg", tmp_path / "*.jpg", tmp_path / "empty"]
    assert collect_files(patterns) == patterns


def test_keys_do_not_depend_on_where_a_folder_lies(tmp_path):
    for place in ("here", "elsewhere/deep"):
        for name in ("b.jpg", "deep/c.webp"):
            (tmp_path / place / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place / name).write_text("")
        found = collect_keyed_files([tmp_path / place])
        assert [key for _, key in found] == ["b.jpg", "deep/c.webp"]
        assert [path for path, _ in found] == collect_files([tmp_path / place])
    assert collect_keyed_files([tmp_path / "here" / "deep" / "*"])[0][1] == "c.webp"


def test_content_of_files_and_folders(tmp_path):
    file = tmp_path / "take" / "0.png"
    assert content_digest(file) is None and content_digest(file.parent) is None
    file.parent.mkdir()
    file.write_bytes(b"pixels")
    assert content_digest(file) == file_digest(file) == hashlib.sha256(b"pixels").hexdigest()
    before = content_digest(file.parent)
    (file.parent / ".DS_Store").touch()
    assert content_digest(file.parent) == before
    file.rename(file.with_name("1.png"))
    assert content_digest(file.parent) != before


def test_content_that_cannot_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    (tmp_path / "x").touch()
    monkeypatch.setattr(inputs, "file_digest", refuse)
    assert content_digest(tmp_path / "x") is None and content_digest(tmp_path) is None


def test_shares_are_even_and_the_same_everywhere():
    keys = [f"person {number // 9}/{number}.jpg" for number in range(8000)]
    counts = collections.Counter(share_of(key, 8) for key in keys)
    assert sorted(counts) == list(range(1, 9)) and all(abs(count - 1000) < 120 for count in counts.values())
    assert [share_of(key, 8) for key in ("a.jpg", "b/a.jpg", "\udcff.jpg")] == [3, 1, 1]  # on any machine, for ever
    assert {share_of(key, 1) for key in keys} == {1}


def test_batch_report_goes_on_after_a_bad_input(capsys):
    report = BatchReport()
    with report.guard("a.jpg"):
        report.add_done("a.jpg")
    with report.guard("b.jpg"):
        raise InputError("no face found")
    with report.guard("c.jpg"):
        raise InputError("c.jpg: damaged")
    assert report.failures == ["b.jpg: no face found", "c.jpg: damaged"]
    assert report.reasons == {"b.jpg": "no face found", "c.jpg": "damaged"}
    assert capsys.readouterr().err == "done: a.jpg\nskipped: b.jpg: no face found\nskipped: c.jpg: damaged\n"
    assert report.summary() == "1 photo done, 2 failed"
    assert report.exit_code == 1


def test_a_terminal_has_its_bar_instead_of_lines(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    report = BatchReport()
    report.add_done("a.jpg")
    assert report.done == 1 and capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", [MissingDependencyError, DiskFullError])
def test_batch_report_stops_where_no_other_file_would_fare_better(kind):
    with pytest.raises(kind), BatchReport().guard("a.jpg"):
        raise kind("install it")


def test_a_full_disk_is_told_from_a_bad_name(tmp_path):
    with pytest.raises(DiskFullError, match=r"cannot write .*x\.txt: No space left"), atomic_write(tmp_path / "x.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(InputError) as raised, atomic_write(tmp_path / ("x" * 300)) as partial:
        partial.write_text("")
    assert not isinstance(raised.value, DiskFullError)


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "same.json"
    with atomic_write(path, lasting=True) as one, atomic_write(path, lasting=True) as other:
        one.write_text("of a")
        other.write_text("of b")
    assert path.read_text() == "of a" and list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_folder_do_not_meet(tmp_path):
    path = tmp_path / "face"
    with atomic_folder(path) as one, atomic_folder(path) as other:
        (one / "of a").touch()
        (other / "of b").touch()
    assert [file.name for file in path.iterdir()] == ["of a"] and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (BatchReport(done=2), 0),
        (BatchReport(skipped=2), 0),
        (BatchReport(done=1, failures=["a"]), 1),
        (BatchReport(skipped=1, failures=["a"]), 1),
        (BatchReport(failures=["a"]), 2),
        (BatchReport(done=2, incomplete=["a"]), 1),
        (BatchReport(done=1, incomplete=["a"], failures=["b"]), 1),
    ],
)
def test_exit_codes(report, code):
    assert report.exit_code == code


def test_compiled_code_is_kept_where_the_user_wants_it(tmp_path, monkeypatch):
    before, seconds = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "elsewhere"))
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
        keep_compiled()
        assert jax.config.jax_compilation_cache_dir == before
        assert jax.config.jax_persistent_cache_min_compile_time_secs == seconds
        monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        keep_compiled()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxface")
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


SURROUNDINGS = {
    "no home": ({"HOME": None}, "Could not determine home directory"),
    "home is a file": ({"HOME": "file"}, "Not a directory"),
    "cache is a file": ({"XDG_CACHE_HOME": "file"}, "Not a directory"),
    "named cache is a file": ({"JAX_COMPILATION_CACHE_DIR": "file"}, "File exists"),
    "read-only": ({"XDG_CACHE_HOME": "folder"}, "Read-only file system"),
    "another user's": ({"XDG_CACHE_HOME": "folder"}, "belongs to another user"),
}


@pytest.mark.parametrize("case", SURROUNDINGS)
def test_without_a_cache_programs_work_and_say_so_in_one_line(tmp_path, monkeypatch, capsys, case):
    before, seconds = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    changes, message = SURROUNDINGS[case]
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "jaxface").mkdir(parents=True)
    for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in changes.items():
        if value is not None:
            monkeypatch.setenv(name, str(tmp_path / value))

    def fail(*_, **__):
        raise (RuntimeError("Could not determine home directory.") if case == "no home" else OSError(30, message))

    if case == "no home":
        monkeypatch.setattr(command_line.Path, "home", fail)
    elif case == "read-only":  # for whom everything may be written, only a file system says no
        monkeypatch.setattr(command_line.tempfile, "TemporaryFile", fail)
    elif case == "another user's":
        monkeypatch.setattr(command_line.os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    try:
        jax.config.update("jax_compilation_cache_dir", "before")
        keep_compiled()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
    error = capsys.readouterr().err
    assert error.startswith("note: what is compiled is not kept") and message in error and error.count("\n") == 1


def start(code, *arguments, **environment):
    """A Python program of its own: what it prints, in bytes."""
    return subprocess.run(
        [sys.executable, *(["-c", code] if code else arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_that_a_terminal_cannot_show_are_shown_otherwise(encoding):
    code = (
        "import sys\n"
        "from jaxface.files.command_line import print_summary, run\n"
        "from jaxface.files.progress import BatchReport\n"
        "name = 'b\\u00fcro/\\u65e5\\u672c/\\udcff.jpg'\n"
        "print(name, file=sys.stderr)\n"
        "run(lambda: print_summary(BatchReport(done=1, failures=[name + ': no face']), [name]))"
    )
    done = start(code, PYTHONIOENCODING=encoding)
    assert done.returncode == 1 and b"Traceback" not in done.stderr, done.stderr
    lines = done.stdout.decode(encoding).splitlines()
    name = "b\u00fcro/" if encoding != "ascii" else r"b\xfcro/"
    rest = "\u65e5\u672c/" if encoding == "utf-8" else r"\u65e5\u672c/"
    assert lines[-1] == name + rest + r"\udcff.jpg"


@pytest.mark.parametrize("platforms", ["cuda", "nonsense", "nonsense,cpu"])
def test_platforms_that_are_not_there_are_told_in_one_line(tmp_path, monkeypatch, capsys, platforms):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)

    def missing():
        raise AssertionError  # as JAX says without a plug-in for "cuda"

    monkeypatch.setattr(command_line.jax, "devices", missing)
    assert command_line.exit_code_of(keep_compiled) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: JAX_PLATFORMS={platforms} ") and "JAX_PLATFORMS=cpu" in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "reconstruct", "preprocess", "evaluate", "convert", "demo"])
def test_commands_say_so(tmp_path, command):
    arguments = {"demo": [], "evaluate": ["a", "--checkpoint", "b"], "fit": ["a.jpg"], "reconstruct": ["a.jpg"]}
    given = arguments.get(command, ["a.jpg", str(tmp_path / "out.npz")])
    done = start("", "-m", "jaxface", command, *given, JAX_PLATFORMS="nonsense")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: JAX_PLATFORMS=nonsense ") and done.stderr.count(b"\n") == 1
