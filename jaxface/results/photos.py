"""From photos on disk to results on disk: the loop that `jaxface.fit` and `jaxface.reconstruct` share.

OUT/<photo>/                what `jaxface.results.photo_files` lists, and
    done.json               photo, sha256 of its file, settings, jaxface's version (by these it is skipped), measures
    face_<i>/card.jpg       crop, overlay and shape, small, for the overview
OUT/summary.json            of the last run: done and skipped [{photo, folder}], failed [{photo, reason}]
OUT/index.html              overview of all faces in OUT, and of what failed in the last run; with two photos or more
OUT/contact_sheet.png       up to 48 of the faces

How the work is shared is told in `jaxface.results.photo_queue`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.version import __version__
from jaxface.files.atomic import atomic_folder, atomic_write, make_folder
from jaxface.files.images import photo_focal, read_image
from jaxface.files.inputs import collect_files, file_digest, holds_another_photo, unique_names
from jaxface.files.progress import BatchReport, progress_bar
from jaxface.fitting.descent import SolvedFace
from jaxface.fitting.solver import SolveFaces
from jaxface.photos.face_crops import FaceCrop, preprocess_photo
from jaxface.photos.parsing import Parser, jaxface_labels
from jaxface.photos.prediction import PredictFaces
from jaxface.results.drawing import USUAL_DRAWING, DrawingOptions, Reconstruction
from jaxface.results.gallery import DONE_FILE, PAGE, write_card, write_overview
from jaxface.results.photo_files import write_photo
from jaxface.results.photo_queue import PhotoWithFaces, work_through

SUMMARY = "summary.json"
"""What the last run did, skipped and failed at."""


def process_photos(
    patterns: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    model: FaceModel,
    *,
    predict: PredictFaces | None = None,
    solve: SolveFaces | None = None,
    parser: Parser = jaxface_labels,
    faces: str = "all",
    overwrite: bool = False,
    drawing: DrawingOptions = USUAL_DRAWING,
    description: str,
    settings: Mapping[str, str],
) -> tuple[BatchReport, list[Path]]:
    """Reads photos, finds their faces, solves them and writes the results, one folder per photo.

    A photo's folder appears whole or not at all. A bad photo is reported and does not stop the rest. Photos whose
    results are there, made from the same content with the same settings, are skipped. On Ctrl-C, what is solved is
    still written; the same call then goes on from there, and ends with the same files. `out` also gets summary.json
    and, unless it holds one photo alone, an overview: index.html and contact_sheet.png.

    Args:
        patterns: photos, folders of photos, glob patterns.
        out: folder for the results; made if need be.
        model: the face model.
        predict: predict(photo, crops) -> a coefficient vector per face.
        solve: solve(samples, the vectors of `predict` or None) -> a face per sample; the samples may come
            from several photos. Without it, the vectors of `predict` are the result.
        parser: labels the parts.
        faces: "all" faces of a photo, or the "largest" alone.
        overwrite: makes results again that are there already.
        drawing: how the faces are drawn and textured.
        description: what is done, for the progress bar and the page.
        settings: told in every result.

    Returns:
        What was done and what failed, and the HTML pages: of each photo with results and, last, the overview if there
        is one.

    Raises:
        InputError: when `out` is a file or cannot be written to.
    """
    out = _writable_folder(out)
    paths = collect_files(patterns, exclude=out)
    names = unique_names(paths, occupied=lambda name, path: holds_another_photo(out / name, path, record=DONE_FILE))
    jobs, made_with = list(zip(paths, names, strict=True)), {**settings, "faces": faces}
    if drawing.delight:
        made_with["texture"] = "without the photo's light"
    todo = [job for job in jobs if overwrite or not _is_done(out / job[1], job[0], made_with)]
    report = BatchReport(skipped=len(jobs) - len(todo))

    def find(job: tuple[Path, str]) -> PhotoWithFaces:
        path, name = job
        photo = _read(path)
        crops = preprocess_photo(photo, model, parser=parser, focal=photo_focal(path))[
            : 1 if faces == "largest" else None
        ]
        return PhotoWithFaces(path, name, file_digest(path), crops, None if predict is None else predict(photo, crops))

    def write(photo: PhotoWithFaces, faces: Sequence[SolvedFace]) -> None:
        if file_digest(photo.path) != photo.digest:
            raise InputError(f"{photo.path}: the file changed while its faces were fitted; run the command again")
        record = {"photo": photo.path.name, "sha256": photo.digest, "settings": made_with}
        pixels, reconstructions = _read(photo.path), reconstructions_of(faces, photo.crops)
        with atomic_folder(out / photo.name) as folder:
            write_results(folder, model, pixels, reconstructions, record, description=description, drawing=drawing)

    with progress_bar(len(jobs), initial=report.skipped, description=description) as bar:
        work_through(todo, find, solve, write, report, bar)
    there = [(path, name) for path, name in jobs if str(path) not in report.reasons]
    _write_summary(out / SUMMARY, there, todo, report)
    pages = [out / name / PAGE for _, name in there]
    if there and len(list(out.glob(f"*/{DONE_FILE}"))) + len(report.failures) > 1:
        pages.append(write_overview(out, report.reasons))
    return report, pages


def write_results(
    folder: Path,
    model: FaceModel,
    photo: UInt8[np.ndarray, "H W 3"],
    reconstructions: Sequence[Reconstruction],
    record: Mapping,
    *,
    description: str,
    drawing: DrawingOptions = USUAL_DRAWING,
) -> None:
    """Fills an empty folder with what `outputs.write_photo` writes, cards for the overview, and `DONE_FILE`.

    Args:
        folder: the folder.
        model: the face model.
        photo: the original photo.
        reconstructions: its faces.
        record: photo (file name), sha256 (of the file; None if there is none), settings.
        description: what was done, for the page.
        drawing: how the faces are drawn and textured.

    Raises:
        InputError: when a vector is not finite.
    """
    if not all(np.isfinite(one.vector).all() for one in reconstructions):
        raise InputError("the fit did not converge: it ended with numbers that are not finite")
    count = f"{len(reconstructions)} face{'' if len(reconstructions) == 1 else 's'}"
    _, all_measures = write_photo(
        folder,
        model,
        photo,
        reconstructions,
        photo_name=record["photo"],
        subtitle=f"{count}, {description}",
        settings={name: value for name, value in record["settings"].items() if name != "faces"},
        drawing=drawing,
    )
    results = []
    for index, measures in enumerate(all_measures):
        write_card(folder / f"face_{index}")
        numbers = {name: measures[name] for name in ("part_iou", "landmark_error_interocular")}
        numbers = {name: round(value, 4) if np.isfinite(value) else None for name, value in numbers.items()}
        results.append({"folder": f"face_{index}", **numbers})
    content = {**record, "jaxface": __version__, "faces": results}
    (folder / DONE_FILE).write_text(json.dumps(content, indent=1) + "\n")


def _is_done(folder: Path, photo: Path, made_with: Mapping[str, str]) -> bool:
    """Whether a folder holds the results of this photo, by name and content, made with these settings."""
    try:
        record = json.loads((folder / DONE_FILE).read_text())
        same = (record["photo"], record["settings"], record["jaxface"]) == (photo.name, made_with, __version__)
        return same and record["sha256"] == file_digest(photo)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _writable_folder(out: str | os.PathLike) -> Path:
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out names the folder for the results")
    make_folder(out)
    return out


def _read(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    try:
        return read_image(path)
    except InputError:
        if path.suffix.lower() in (".heic", ".heif") and path.is_file() and path.stat().st_size:
            raise InputError(f"{path}: HEIC pictures cannot be read; save it as JPEG or PNG first") from None
        raise


def _write_summary(path: Path, there: Sequence[tuple[Path, str]], todo: Sequence, report: BatchReport) -> None:
    """What this run did: done and skipped [{photo, folder}], failed [{photo, reason}]."""
    new = set(todo)
    lists: dict[str, list[dict[str, str]]] = {"done": [], "skipped": []}
    for job in there:
        lists["done" if job in new else "skipped"].append({"photo": str(job[0]), "folder": job[1]})
    failed = [{"photo": photo, "reason": reason} for photo, reason in report.reasons.items()]
    with atomic_write(path) as partial:
        partial.write_text(json.dumps({**lists, "failed": failed}, indent=1) + "\n", encoding="utf-8")


def reconstructions_of(
    faces: Sequence[SolvedFace], crops: Sequence[FaceCrop], *, label: str = "Face"
) -> list[Reconstruction]:
    """Joins solved faces with the crops that they belong to; labels count from 1."""
    pairs = enumerate(zip(faces, crops, strict=True), start=1)
    return [
        Reconstruction(
            face.vector,
            crop.sample,
            crop.alignment,
            f"{label} {index}",
            stretch=face.stretch,
            covariance=face.covariance,
        )
        for index, (face, crop) in pairs
    ]
