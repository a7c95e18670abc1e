"""From photos on disk to results on disk: the loop that `jaxface.fit` and `jaxface.reconstruct` share.

OUT/<photo>/                what `jaxface.results.photo_files` lists, and
    done.json               photo, sha256 of its file, settings, jaxface's version (by these it is skipped), measures
    face_<i>/card.jpg       crop, overlay and shape, small, for the overview
OUT/summary.json            what this run and earlier ones did, see `results.summary`
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
from jaxface.files.atomic import atomic_folder, make_folder
from jaxface.files.images import photo_focal, read_image
from jaxface.files.inputs import collect_files, file_digest
from jaxface.files.names import Owner, claim_names
from jaxface.files.progress import BatchReport, progress_bar, tell
from jaxface.fitting.descent import SolvedFace
from jaxface.fitting.solver import SolveFaces
from jaxface.photos.face_crops import FaceCrop, preprocess_photo
from jaxface.photos.parsing import Parser, jaxface_labels
from jaxface.photos.prediction import PredictFaces
from jaxface.results.doubts import rivals_of_first
from jaxface.results.drawing import USUAL_DRAWING, DrawingOptions, Reconstruction
from jaxface.results.gallery import DONE_FILE, PAGE, write_card, write_overview
from jaxface.results.photo_files import write_photo
from jaxface.results.photo_queue import PhotoWithFaces, work_through
from jaxface.results.summary import add_photos


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
    out = writable_folder(out)
    paths = collect_files(patterns, exclude=out)
    names = claim_names(out, [Owner("photo", (path,)) for path in paths])
    jobs, made_with = list(zip(paths, names, strict=True)), {**settings, "faces": faces, **drawing.told()}
    if drawing.delight:
        made_with["texture"] = "without the photo's light"
    todo = [job for job in jobs if overwrite or not is_done(out / job[1], job[0], made_with)]
    report = BatchReport(skipped=len(jobs) - len(todo))

    def find(job: tuple[Path, str]) -> PhotoWithFaces:
        path, name = job
        photo = read_image(path)
        found = preprocess_photo(photo, model, parser=parser, focal=photo_focal(path))
        crops = found[: 1 if faces == "largest" else None]
        initial = None if predict is None else predict(photo, crops)
        return PhotoWithFaces(path, name, file_digest(path), crops, initial, rivals_of_first(found))

    def write(photo: PhotoWithFaces, faces: Sequence[SolvedFace]) -> None:
        if file_digest(photo.path) != photo.digest:
            raise InputError(f"{photo.path}: the file changed while its faces were fitted; run the command again")
        record = {"photo": photo.path.name, "sha256": photo.digest, "settings": made_with}
        pixels, reconstructions = read_image(photo.path), reconstructions_of(faces, photo.crops, rivals=photo.rivals)
        with atomic_folder(out / photo.name) as folder:
            doubts = write_results(
                folder, model, pixels, reconstructions, record, description=description, drawing=drawing
            )
        tell_doubts(photo.path, doubts)

    with progress_bar(len(jobs), initial=report.skipped, description=description) as bar:
        work_through(todo, find, solve, write, report, bar)
    there = [(path, name) for path, name in jobs if str(path) not in report.reasons]
    new = set(todo)
    add_photos(
        out,
        done=[job for job in there if job in new],
        skipped=[job for job in there if job not in new],
        reasons=report.reasons,
    )
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
) -> list[list[str]]:
    """Fills an empty folder with what `outputs.write_photo` writes, cards for the overview, and `DONE_FILE`.

    Args:
        folder: the folder.
        model: the face model.
        photo: the original photo.
        reconstructions: its faces.
        record: photo (file name), sha256 (of the file; None if there is none), settings.
        description: what was done, for the page.
        drawing: how the faces are drawn and textured.

    Returns:
        What speaks against trusting each face, see `results.doubts`.

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
        results.append({"folder": f"face_{index}", **numbers, "doubts": measures["doubts"]})
    content = {**record, "jaxface": __version__, "faces": results}
    (folder / DONE_FILE).write_text(json.dumps(content, indent=1) + "\n")
    return [result["doubts"] for result in results]


def tell_doubts(path: Path, doubts: Sequence[Sequence[str]]) -> None:
    """Says on one line of stderr what speaks against trusting the faces of a photo; nothing where nothing does."""
    told = [f"face {index}: {'; '.join(one)}" for index, one in enumerate(doubts, start=1) if one]
    if told:
        tell(f"doubtful: {path}: {' | '.join(told) if len(doubts) > 1 else told[0].partition(': ')[2]}")


def is_done(folder: Path, photo: Path, made_with: Mapping[str, str]) -> bool:
    """Whether a folder holds the results of this photo, by name and content, made with these settings."""
    try:
        record = json.loads((folder / DONE_FILE).read_text())
        same = (record["photo"], record["settings"], record["jaxface"]) == (photo.name, made_with, __version__)
        return same and record["sha256"] == file_digest(photo)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def writable_folder(out: str | os.PathLike) -> Path:
    """The folder for results, made if need be.

    Raises:
        InputError: when it is a file or cannot be written to.
    """
    out = Path(out)
    check_is_no_file(out)
    make_folder(out)
    return out


def check_is_no_file(out: Path) -> None:
    """Makes sure that a folder for results can be one.

    Raises:
        InputError: when it is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out names the folder for the results")


def reconstructions_of(
    faces: Sequence[SolvedFace], crops: Sequence[FaceCrop], *, label: str = "Face", rivals: int = 0
) -> list[Reconstruction]:
    """Joins solved faces with the crops that they belong to; labels count from 1. The rivals are those of the first."""
    pairs = enumerate(zip(faces, crops, strict=True), start=1)
    return [
        Reconstruction(
            face.vector,
            crop.sample,
            crop.alignment,
            f"{label} {index}",
            stretch=face.stretch,
            covariance=face.covariance,
            rivals=rivals if index == 1 else 0,
        )
        for index, (face, crop) in pairs
    ]
