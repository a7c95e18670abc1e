"""From photos to a dataset of samples that training reads: a folder per photo, or files of many samples."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from jaxface.core.errors import InputError
from jaxface.core.units import CROP_SIZE
from jaxface.files import visualize
from jaxface.files.atomic import make_folder
from jaxface.files.inputs import collect_keyed_files, share_of
from jaxface.files.progress import BatchReport, progress_bar
from jaxface.models import load_face_model
from jaxface.photos.alignment import Alignment, alignment_template, fit_alignment
from jaxface.photos.batches import Photo, prepare_photos
from jaxface.photos.detection import DetectedFace, detect_faces_in
from jaxface.photos.face_crops import FaceCrop, face_sample, seen_crops
from jaxface.photos.folder import FolderSource, read_dataset_file
from jaxface.photos.parsing import PARSERS, DmlCsrParser, LabelFolder, Parser, create_parser, jaxface_labels
from jaxface.photos.shard_writer import SAMPLES_PER_FILE
from jaxface.photos.shards import ShardSource, open_samples
from jaxface.photos.stores import Folders, Shards, Store, Write

CONTACT_SHEET = "contact_sheet.png"
"""Crops beside their parts, at the top of the folder, to look at; that of a share bears its number."""

FORMATS = {"folders": "jaxface", "shards": "jaxface shards"}
"""Name of a format -> what dataset.json calls it."""

_SHEET_FACES, _SHEET_COLUMNS = 48, 3


def preprocess_files(
    patterns: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    model: str = "anny",
    size: int = CROP_SIZE,
    faces: str = "all",
    overwrite: bool = False,
    parser: str = PARSERS[0],
    parser_weights: str | os.PathLike | None = None,
    labels: str | None = None,
    label_folder: str | os.PathLike | None = None,
    format: str = "folders",
    workers: int = 0,
    share: int = 1,
    shares: int = 1,
    samples_per_file: int = SAMPLES_PER_FILE,
) -> BatchReport:
    """Writes the samples of many photos (docs/folder_format.md, docs/large_datasets.md), and a contact sheet.

    A photo's samples appear in `out` all at once. Photos whose samples are there already are skipped.

    Args:
        patterns: photos, folders of photos, glob patterns.
        out: the dataset's folder; made if need be.
        model: name or path of the face model that gives the alignment's template.
        size: side of the crops in pixels.
        faces: "all" faces of a photo, or the "largest" alone.
        overwrite: makes samples again that are there already; in the format "folders".
        parser: what labels the parts, one of `parsing.PARSERS`.
        parser_weights: the file of the weights of "dml_csr".
        labels: instead of a parser, the order of the label maps in `label_folder`, a key of `parts.PARSER_LABELS`.
        label_folder: holds a PNG of the photo's name and size for every photo.
        format: "folders" has a folder per photo; "shards" has files of many samples.
        workers: processes that decode and write; 0 does all in this one. A program that asks for them is imported by
            them, so that its call belongs below `if __name__ == "__main__":`.
        share: which share of the photos to work on, 1 to `shares`.
        shares: so many machines, or calls, share the photos; each is given the same patterns and the same `out`, or
            one of its own.
        samples_per_file: at which a file of samples ends; what is not finished when a run is killed is done again.

    Returns:
        What was done and what failed; a bad photo is reported and does not stop the rest.

    Raises:
        InputError: when `out` cannot be used, or the parser's options or files cannot.
        MissingDependencyError: when ArrayRecord, for shards, is not installed.
    """
    out = Path(out)
    if shares < 1:
        raise InputError(f"the photos cannot be split into {shares} shares; at least 1")
    if not 1 <= share <= shares:
        raise InputError(f"there is no share {share} of {shares}; shares are numbered from 1 to {shares}")
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}; there are {', '.join(FORMATS)}")
    if format == "shards" and overwrite:
        raise InputError("samples in shards cannot be overwritten; name a new folder for the results")
    settings = {"format": FORMATS[format], "labels": "jaxface", "size": size, "model": str(model), "faces": faces}
    settings["parser"] = f"{labels} labels on disk" if labels else parser
    _check_out(out, settings)
    template = alignment_template(load_face_model(model))
    parse = create_parser(parser, weights=parser_weights, labels=labels, label_folder=label_folder)
    photos = _collect(patterns, out, parse)
    report = BatchReport()
    with contextlib.ExitStack() as stack:
        results: Store
        if format == "shards":
            results = stack.enter_context(contextlib.closing(Shards(out, settings, share, shares, samples_per_file)))
        else:
            results = Folders(out, settings, overwrite)
            photos = results.named(photos)  # those of all shares: each knows what names others use
        photos = [photo for photo in photos if share_of(photo.key, shares) == share]
        todo = [photo for photo in photos if not results.has(photo)]
        report.skipped = len(photos) - len(todo)
        bar = stack.enter_context(progress_bar(len(photos), initial=report.skipped, description="preprocess"))
        networked = parse is jaxface_labels or isinstance(parse, DmlCsrParser)  # in this process, once for all
        look = _Look(template, size, parse if networked else None)
        cut = _Cut(template, size, None if networked else parse, faces, results.write)
        for photo, result in stack.enter_context(
            contextlib.closing(prepare_photos(todo, look=look, finish=cut, workers=workers))
        ):
            with report.guard(photo.path):
                results.keep(photo, result)
                report.add_done(photo.path)
            bar.update()
        results.finish()
    sheet = out / contact_sheet_name(share, shares)
    if report.done or (report.skipped and not sheet.exists()):  # not there: a run was killed before it came to it
        try:
            picture = contact_sheet(open_samples(out, size=size))
        except InputError:
            if report.done:
                raise
            return report  # none of the photos shows a face
        visualize.save_png(sheet, picture)
    return report


def _collect(patterns: Sequence[str | os.PathLike], out: Path, parse: Parser) -> list[Photo]:
    found = collect_keyed_files(patterns, exclude=out)
    if isinstance(parse, LabelFolder):
        photos = set(_without_label_maps([path for path, _ in found], parse.folder))
        found = [(path, key) for path, key in found if path in photos]
    return [Photo(path, key) for path, key in found]


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
    if out.is_dir():
        make_folder(out)  # before hours of work: can it be written to?


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


@dataclasses.dataclass(frozen=True)
class _Look:
    """What this process does with a batch of photos: it finds the faces, and has a network label them if one shall."""

    template: Float[np.ndarray, "5 3"]
    size: int
    parser: Parser | None

    def __call__(self, images: Sequence[UInt8[np.ndarray, "H W 3"]], photos: Sequence[Photo]) -> list[Any]:
        found = detect_faces_in(images)
        return [self._finding(*one) for one in zip(images, photos, found, strict=True)]

    def _finding(self, image: np.ndarray, photo: Photo, faces: list[DetectedFace]) -> "_Finding | InputError":
        if self.parser is None:
            return _Finding(faces)
        try:
            alignments = [_align(image, face, self.template, self.size) for face in faces]
            found = zip(faces, alignments, strict=True)
            return _Finding(faces, [self.parser(image, *one, path=photo.path) for one in found])
        except InputError as error:
            return error


class _Finding(NamedTuple):
    faces: list[DetectedFace]
    labels: list[np.ndarray] | None = None  # None: still to be found


@dataclasses.dataclass(frozen=True)
class _Cut:
    """What a worker does with a photo: it cuts out the faces that were found, labels them, and writes them."""

    template: Float[np.ndarray, "5 3"]
    size: int
    parser: Parser | None
    faces: str
    write: Write

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], photo: Photo, finding: _Finding) -> Any:
        crops = []
        for number, face in enumerate(finding.faces):
            alignment = _align(image, face, self.template, self.size)
            if self.parser is None:
                assert finding.labels is not None
                labels = finding.labels[number]
            else:
                labels = self.parser(image, face, alignment, path=photo.path)
            sample = face_sample(alignment.crop_image(image), labels, face, alignment, coefficients=0)
            crops.append(FaceCrop(sample, alignment, face))
        crops = seen_crops(crops)
        return self.write(photo, crops[: 1 if self.faces == "largest" else None])


def _align(image: np.ndarray, face: DetectedFace, template: np.ndarray, size: int) -> Alignment:
    return fit_alignment(face.landmarks68, template, photo_size=image.shape[:2], size=size)


def contact_sheet_name(share: int = 1, shares: int = 1) -> str:
    """Name of the contact sheet in the dataset's folder."""
    return CONTACT_SHEET if shares == 1 else f"contact_sheet_{share:04d}_of_{shares:04d}.png"


def contact_sheet(source: FolderSource | ShardSource) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of up to 48 samples, evenly chosen: each crop beside its parts and landmarks."""
    cells, names = [], []
    for index in np.unique(np.linspace(0, len(source) - 1, min(len(source), _SHEET_FACES)).round().astype(int)):
        sample = source[index]
        known = sample["landmarks"][sample["landmark_weights"] > 0]
        parts = visualize.draw_labels(sample["image"], sample["labels"])
        radius = max(1.0, sample["image"].shape[0] / CROP_SIZE)
        cells.append([sample["image"], visualize.draw_landmarks(parts, known, radius=radius)])
        names.append(source.name(index))
    starts = range(0, len(cells), _SHEET_COLUMNS)
    rows = [[picture for cell in cells[start : start + _SHEET_COLUMNS] for picture in cell] for start in starts]
    captions = ["  |  ".join(names[start : start + _SHEET_COLUMNS]) for start in starts]
    return visualize.grid(rows, captions=captions, cell=CROP_SIZE)
