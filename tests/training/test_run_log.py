import json

import pytest

from jaxface.core.errors import InputError
from jaxface.training.run_log import RunLog


def _steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_after_the_resumed_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = RunLog(tmp_path, step=0, total=9)
    for step in (1, 2, 3, 4):
        log.write(step, {"loss": 1 / step})
    log.close()
    first = path.read_text().splitlines(keepends=True)
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # killed in the middle of a line
    log = RunLog(tmp_path, step=2, total=9)
    assert path.read_text() == "".join(first[:2])
    log.write(3, {"loss": 0.1})
    log.close()
    assert _steps(path) == [1, 2, 3]
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".tmp"] == []


def test_changes_are_kept_for_the_steps_that_were_made_with_them(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    for steps, rate in ((range(1, 3), None), (range(3, 5), 0.5), (range(3, 4), 0.1), (range(3, 5), 0.1)):
        log = RunLog(tmp_path, step=steps[0] - 1, total=9)
        log.changed(steps[0] - 1, {} if rate is None else {"optimizer.learning_rate": (1.0, rate)})
        for step in steps:
            log.write(step, {"loss": 1})
        log.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 2, 3, 4]
    assert records[2] == {"step": 2, "changed": {"optimizer.learning_rate": [1.0, 0.1]}}
    assert "Changed: optimizer.learning_rate was 1.0, is 0.5" in capsys.readouterr().out


def test_numbers_that_json_does_not_know(tmp_path):
    log = RunLog(tmp_path, step=0, total=1)
    log.write(1, {"loss": float("nan"), "prdl": float("inf"), "vertex": 2.0})
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None, "prdl": None, "vertex": 2}


def test_other_processes_write_nothing(tmp_path, capsys):
    log = RunLog(tmp_path, step=0, total=2, enabled=False)
    log.write(1, {"loss": 1.0})
    log.say("hello")
    log.advance()
    log.close()
    assert not list(tmp_path.iterdir()) and capsys.readouterr() == ("", "")


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 3}\n')
    with pytest.raises(InputError, match="is not a metrics file"):
        RunLog(tmp_path, step=0, total=1)
    assert path.read_text() == '{"epoch": 3}\n'
