"""OUT/summary.json: what the last run over photos did, what earlier ones did, and the clips.

{"done": [{photo, folder}], "skipped": [{photo, folder}], "failed": [{photo, reason}],
 "earlier": {"done": [{photo, folder}], "failed": [{photo, reason}]},
 "clips": [{clip, folder} or {clip, reason}]}
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxface.files.atomic import atomic_write, folder_lock

SUMMARY = "summary.json"
"""Its name."""

Entry = dict[str, str]


def add_photos(
    out: Path,
    *,
    done: Sequence[tuple[Path, str]],
    skipped: Sequence[tuple[Path, str]] = (),
    reasons: Mapping[str, str],
) -> None:
    """Tells of a run over photos; what the file told of other photos moves to "earlier", if it still holds.

    Args:
        out: the folder of results.
        done: photos and the names of their folders.
        skipped: likewise, of those whose results were there.
        reasons: photo -> what is wrong with it.

    Raises:
        InputError: when the file cannot be written.
    """
    last: dict[str, list[Entry]] = {
        "done": [{"photo": str(path), "folder": name} for path, name in done],
        "skipped": [{"photo": str(path), "folder": name} for path, name in skipped],
        "failed": [{"photo": photo, "reason": reason} for photo, reason in reasons.items()],
    }
    here = {_place(entry["photo"]) for entries in last.values() for entry in entries}
    folders = {entry["folder"] for entry in last["done"] + last["skipped"]}

    def add(before: dict[str, Any]) -> dict[str, Any]:
        past = before.get("earlier", {})
        there = [*past.get("done", []), *before.get("done", []), *before.get("skipped", [])]
        failed = [*past.get("failed", []), *before.get("failed", [])]
        earlier = {
            "done": [one for one in there if one["folder"] not in folders and (out / one["folder"]).is_dir()],
            "failed": [one for one in failed if _place(one["photo"]) not in here and Path(one["photo"]).exists()],
        }
        return {**last, "earlier": earlier, "clips": before.get("clips", [])}

    _update(out, add)


def add_clips(out: Path, clips: Sequence[Entry]) -> None:
    """Tells of clips, each {clip, folder} or {clip, reason}, in place of what the file told of them.

    Raises:
        InputError: when the file cannot be written.
    """
    here = {_place(entry["clip"]) for entry in clips}

    def add(before: dict[str, Any]) -> dict[str, Any]:
        others = [entry for entry in before.get("clips", []) if _place(entry["clip"]) not in here]
        nothing: dict[str, Any] = {"done": [], "skipped": [], "failed": [], "earlier": {"done": [], "failed": []}}
        return {**nothing, **before, "clips": [*others, *clips]}

    _update(out, add)


def _place(path: str) -> str:
    return os.path.abspath(path)


def _update(out: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with folder_lock(out):  # of runs at the same time, one after the other
        path = out / SUMMARY
        try:
            content = change(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # none, or none of ours
            content = change({})
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
