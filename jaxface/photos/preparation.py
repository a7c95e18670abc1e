"""From photos to a folder of samples that training reads."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxface.core.errors import InputError
from jaxface.core.units import CROP_SIZE
from jaxface.files import visualize
from jaxface.files.atomic import atomic_folder
from jaxface.files.images import read_image
from jaxface.files.inputs import collect_files, file_digest, holds_another_photo, unique_names
from jaxface.files.progress import BatchReport, progress
from jaxface.models import load_face_model
from jaxface.photos.face_crops import FaceCrop, preprocess_photo
from jaxface.photos.folder import DATASET_FILE, FolderSource, read_dataset_file, write_dataset_file, write_sample
from jaxface.photos.parsing import LabelFolder, create_parser

CONTACT_SHEET = "contact_sheet.png"
"""Crops beside their parts, at the top of the folder, to look at."""

_SHEET_FACES, _SHEET_COLUMNS = 48, 3

_PHOTO_FILE = "photo.json"


def preprocess_files(
    patterns: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    model: str = "anny",
    size: int = CROP_SIZE,
    faces: str = "all",
    overwrite: bool = False,
    parser: str = "mediapipe",
    parser_weights: str | os.PathLike | None = None,
    labels: str | None = None,
    label_folder: str | os.PathLike | None = None,
) -> BatchReport:
    """Writes the samples of many photos in the folder format (docs/folder_format.md), and a contact sheet.

    A photo's samples appear in `out` all at once. Photos whose samples are there already are skipped.

    Args:
        patterns: photos, folders of photos, glob patterns.
        out: the dataset's folder; made if need be.
        model: name or path of the face model that gives the alignment's template.
        size: side of the crops in pixels.
        faces: "all" faces of a photo, or the "largest" alone.
        overwrite: makes samples again that are there already.
        parser: what labels the parts: "mediapipe" or "dml_csr".
        parser_weights: the file of the weights of "dml_csr".
        labels: instead of a parser, the order of the label maps in `label_folder`, a key of `parts.PARSER_LABELS`.
        label_folder: holds a PNG of the photo's name and size for every photo.

    Returns:
        What was done and what failed; a bad photo is reported and does not stop the rest.

    Raises:
        InputError: when `out` cannot be used, or the parser's options or files cannot.
    """
    out = Path(out)
    settings = {"format": "jaxface", "labels": "jaxface", "size": size, "model": str(model), "faces": faces}
    settings["parser"] = f"{labels} labels on disk" if labels else parser
    _check_out(out, settings)
    face_model = load_face_model(model)
    paths = collect_files(patterns, exclude=out)
    parse = create_parser(parser, weights=parser_weights, labels=labels, label_folder=label_folder)
    if isinstance(parse, LabelFolder):
        paths = _without_label_maps(paths, parse.folder)
    names = unique_names(paths, occupied=lambda name, path: holds_another_photo(out / name, path, record=_PHOTO_FILE))
    report = BatchReport()
    for path, name in progress(list(zip(paths, names, strict=True)), description="preprocess"):
        with report.guard(path):
            if (out / name).exists() and not overwrite:
                report.skipped += 1
                continue
            crops = preprocess_photo(read_image(path), face_model, size=size, parser=parse, path=path)
            if not (out / DATASET_FILE).exists():
                write_dataset_file(out, settings)
            _write_photo(out / name, path, crops[: 1 if faces == "largest" else None])
            report.done += 1
    if report.done:
        visualize.save_png(out / CONTACT_SHEET, contact_sheet(FolderSource(out, size=size)))
    return report


def _check_out(out: Path, settings: dict) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; the last argument names the folder for the results")
    there = read_dataset_file(out)
    if out.is_dir() and not there and any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out}: holds other files; name a new folder for the results")
    if there:
        there = {"parser": "mediapipe"} | there  # folders made when there was no other
    changed = [name for name in settings if there and there.get(name) != settings[name]]
    if changed:
        before = ", ".join(f"{name} {there.get(name)!r}" for name in changed)
        raise InputError(f"{out}: was made with {before}; use the same options or another folder")


def _without_label_maps(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The photos alone, where label maps lie among them; each photo has a label map of its own."""
    photos = [path for path in paths if path.suffix.lower() != ".png" or path.parent.resolve() != folder.resolve()]
    if not photos:
        raise InputError(f"{folder}: is --label-folder, whose .png files are label maps; no photos are left")
    first: dict[str, Path] = {}
    for path in photos:
        if (other := first.setdefault(path.stem, path)) != path:
            raise InputError(
                f"{other} and {path} would share the label map {folder / path.stem}.png; run them apart, each with its "
                "own --label-folder"
            )
    return photos


def _write_photo(folder: Path, photo: Path, crops: Sequence[FaceCrop]) -> None:
    with atomic_folder(folder) as partial:
        for index, crop in enumerate(crops):
            details: dict[str, Any] = {"photo": photo.name}
            if crop.face is not None:
                details |= {"score": round(crop.face.score, 4), "box": np.round(crop.face.box, 2).tolist()}
            (partial / f"face_{index}").mkdir()
            write_sample(partial / f"face_{index}", crop.sample, crop.alignment, details)
        content = {"photo": photo.name, "sha256": file_digest(photo), "faces": len(crops)}
        (partial / _PHOTO_FILE).write_text(json.dumps(content) + "\n")


def contact_sheet(source: FolderSource) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of up to 48 samples, evenly chosen: each crop beside its parts and landmarks."""
    cells, names = [], []
    for index in np.unique(np.linspace(0, len(source) - 1, min(len(source), _SHEET_FACES)).round().astype(int)):
        sample = source[index]
        known = sample["landmarks"][sample["landmark_weights"] > 0]
        parts = visualize.draw_labels(sample["image"], sample["labels"])
        radius = max(1.0, sample["image"].shape[0] / CROP_SIZE)
        cells.append([sample["image"], visualize.draw_landmarks(parts, known, radius=radius)])
        names.append(str(source.images[index].parent.relative_to(source.path)))
    starts = range(0, len(cells), _SHEET_COLUMNS)
    rows = [[picture for cell in cells[start : start + _SHEET_COLUMNS] for picture in cell] for start in starts]
    captions = ["  |  ".join(names[start : start + _SHEET_COLUMNS]) for start in starts]
    return visualize.grid(rows, captions=captions, cell=CROP_SIZE)
