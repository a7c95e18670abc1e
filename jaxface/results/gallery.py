"""The overview of a folder of results: a card per face, the photos that failed, and a contact sheet."""

import html
import json
import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from jaxface.files import visualize
from jaxface.files.atomic import atomic_write
from jaxface.files.own_results import RECORDS

PAGE, CONTACT_SHEET, CARD, DONE_FILE = "index.html", "contact_sheet.png", "card.jpg", RECORDS["photo"]
"""Names of files: overview of a folder, its contact sheet, small pictures of a face, record of a photo."""

CARD_CELL = 200
"""Side in pixels of each of a card's pictures."""

_CARD_PICTURES = ("crop", "overlay", "shape")

_SHEET_FACES, _SHEET_COLUMNS = 48, 4


def write_card(folder: Path) -> None:
    """Writes a face's card: its crop, overlay and shape side by side, small, from the pictures in its folder."""
    card = Image.new("RGB", (CARD_CELL * len(_CARD_PICTURES), CARD_CELL))
    for index, name in enumerate(_CARD_PICTURES):
        with Image.open(folder / f"{name}.png") as picture:
            small = picture.convert("RGB").resize((CARD_CELL, CARD_CELL), Image.Resampling.LANCZOS, reducing_gap=3.0)
        card.paste(small, (CARD_CELL * index, 0))
    card.save(folder / CARD, quality=88)


def write_overview(out: str | os.PathLike, failures: Mapping[str, str]) -> Path:
    """Writes index.html and contact_sheet.png for all results in a folder, of this run and of earlier ones.

    Args:
        out: the folder that holds the photos' folders.
        failures: photo -> what was wrong with it.

    Returns:
        The page. It loads nothing but the pictures beside it.
    """
    out = Path(out)
    faces = [face for record in sorted(out.glob(f"*/{DONE_FILE}")) for face in _faces(record)]
    if faces:
        visualize.save_png(out / CONTACT_SHEET, _contact_sheet(out, faces))
    with atomic_write(out / PAGE) as partial:
        partial.write_text(_page(faces, failures), encoding="utf-8")
    return out / PAGE


def _faces(record: Path) -> list[dict]:
    """The faces of one photo: photo, folder (relative to the overview), page, Part IoU."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        name = record.parent.name
        return [
            {
                "photo": content["photo"] if len(content["faces"]) == 1 else f"{content['photo']}, face {index}",
                "page": f"{name}/{PAGE}",
                "card": f"{name}/{face['folder']}/{CARD}",
                "part_iou": face["part_iou"],
                "doubts": face.get("doubts", []),
            }
            for index, face in enumerate(content["faces"], start=1)
            if (record.parent / face["folder"] / CARD).is_file()
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []  # not written by this program


def _contact_sheet(out: Path, faces: list[dict]) -> np.ndarray:
    """Up to 48 faces, evenly chosen."""
    chosen = np.unique(np.linspace(0, len(faces) - 1, min(len(faces), _SHEET_FACES)).round().astype(int))
    cells, names = [], []
    for index in chosen:
        with Image.open(out / faces[index]["card"]) as card:
            cells.append(np.split(np.asarray(card.convert("RGB")), len(_CARD_PICTURES), axis=1))
        names.append(f"{faces[index]['photo']}  ({_iou(faces[index])})")
    starts = range(0, len(cells), _SHEET_COLUMNS)
    rows = [[picture for cell in cells[start : start + _SHEET_COLUMNS] for picture in cell] for start in starts]
    captions = ["   |   ".join(names[start : start + _SHEET_COLUMNS]) for start in starts]
    return visualize.grid(rows, captions=captions, cell=CARD_CELL)


def _iou(face: dict) -> str:
    return "Part IoU unknown" if face["part_iou"] is None else f"Part IoU {face['part_iou']:.2f}"


def _doubts(face: dict) -> str:
    return f"<em>{html.escape('; '.join(face['doubts']))}</em>" if face["doubts"] else ""


def _page(faces: list[dict], failures: Mapping[str, str]) -> str:
    cards = "\n".join(
        f'<a class="card" href="{urllib.parse.quote(face["page"])}">'
        f'<img src="{urllib.parse.quote(face["card"])}" loading="lazy" width="{3 * CARD_CELL}" height="{CARD_CELL}" '
        f'alt="photo, overlay and shape">'
        f"<b>{html.escape(face['photo'])}</b><span>{_iou(face)}</span>{_doubts(face)}"
        f'<i><i style="width:{100 * (face["part_iou"] or 0):.0f}%"></i></i></a>'
        for face in faces
    )
    reasons = "\n".join(
        f"<li><b>{html.escape(photo)}</b> {html.escape(reason)}</li>" for photo, reason in failures.items()
    )
    number = f"{len(failures)} photo{'' if len(failures) == 1 else 's'} could not be done"
    link = f'<p><a href="#failed">{number}</a></p>' if failures else ""
    failed = f'<h2 id="failed">{number}</h2>\n<ul>\n{reasons}\n</ul>' if failures else ""
    count = f"{len(faces)} face{'' if len(faces) == 1 else 's'}"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{count}: jaxface</title>
<style>
  :root {{ --paper: #f4f3f1; --card: #fff; --ink: #1d1e22; --quiet: #6c6e76; --line: #e3e1dd; --accent: #c4553b; }}
  @media (prefers-color-scheme: dark) {{
    :root {{ --paper: #15161a; --card: #1e2025; --ink: #eceae6; --quiet: #9a9ca5; --line: #31343b; --accent: #f08a6c; }}
  }}
  body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px;
         background: var(--paper); color: var(--ink); }}
  h1 {{ font-size: 24px; margin: 0 0 10px; }} p a {{ color: var(--accent); }}
  h2 {{ font-size: 17px; margin: 32px 0 8px; }}
  main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 16px; }}
  .card {{ display: grid; grid-template: auto 1fr auto / 1fr auto; overflow: hidden;
          background: var(--card); color: inherit; text-decoration: none;
          border: 1px solid var(--line); border-radius: 14px; }}
  .card:hover, .card:focus-visible {{ border-color: var(--accent); }}
  .card img {{ grid-column: 1 / 3; width: 100%; height: auto; display: block; }}
  .card b {{ padding: 8px 12px; font-weight: 600; overflow-wrap: anywhere; }}
  .card span {{ padding: 8px 12px; color: var(--quiet); white-space: nowrap; }}
  .card em {{ grid-column: 1 / 3; padding: 0 12px 8px; color: var(--accent); font-style: normal; font-size: 13px; }}
  .card > i {{ grid-column: 1 / 3; height: 4px; background: var(--line); }}
  .card > i > i {{ display: block; height: 100%; background: var(--accent); }}
  li {{ margin: 4px 0; overflow-wrap: anywhere; }} li b {{ font-weight: 600; }}
</style>
<h1>{count}</h1>
{link}
<main>
{cards}
</main>
{failed}
</html>
"""
