"""From photos to a folder of samples: detection, alignment, part masks.

python -m jaxface.preprocess PHOTOS... OUT
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxface import visualize
from jaxface.coefficients import vector_size
from jaxface.command_line import (
    BatchReport,
    atomic_folder,
    collect_files,
    file_digest,
    holds_another_photo,
    progress,
    run,
    unique_names,
)
from jaxface.data.alignment import CROP_SIZE, Alignment, align_face
from jaxface.data.detection import DetectedFace, detect_faces
from jaxface.data.folder import (
    DATASET_FILE,
    FolderSource,
    read_dataset_file,
    write_dataset_file,
    write_sample,
)
from jaxface.data.images import read_image
from jaxface.data.parsing import PARSERS, LabelFolder, Parser, create_parser, mediapipe_labels
from jaxface.data.sample import Sample, photo_sample
from jaxface.errors import InputError
from jaxface.face_model import FaceModel
from jaxface.formats import load_face_model
from jaxface.parts import PARSER_LABELS

CONTACT_SHEET = "contact_sheet.png"
_SHEET_FACES, _SHEET_COLUMNS = 48, 3
_PHOTO_FILE = "photo.json"


def preprocess_photo(
    image: UInt8[np.ndarray, "H W 3"],
    model: FaceModel,
    *,
    size: int = CROP_SIZE,
    parser: Parser = mediapipe_labels,
    path: str | os.PathLike | None = None,
) -> list[tuple[Sample, Alignment, DetectedFace]]:
    """Makes a sample of every face in a photo, the largest face first; faces that the parser does not see are left out.

    Args:
        image: the photo, RGB.
        model: gives the alignment's template and the length of the (zero) coefficients.
        size: side of the crops in pixels.
        parser: labels the parts (`jaxface.data.parsing`).
        path: the photo's file; label maps on disk are found by its name.

    Raises:
        InputError: when there is no face to be found, or none with labels.
        MissingDependencyError: when MediaPipe is not installed.
    """
    faces = detect_faces(image)
    if not faces:
        raise InputError("no face found; faces need about 32 pixels, and the eyes, nose and mouth in view")
    found = [(*make_sample(image, face, model, size=size, parser=parser, path=path), face) for face in faces]
    seen = [sample for sample in found if sample[0]["labels"].any()]
    if not seen:
        left, top, right, bottom = (round(float(edge)) for edge in faces[0].box)
        raise InputError(f"no part has a label where the face was found (x {left} to {right}, y {top} to {bottom})")
    return seen


def make_sample(
    image: UInt8[np.ndarray, "H W 3"],
    face: DetectedFace,
    model: FaceModel,
    *,
    size: int = CROP_SIZE,
    parser: Parser = mediapipe_labels,
    path: str | os.PathLike | None = None,
) -> tuple[Sample, Alignment]:
    """The aligned sample of one detected face, and where its crop lies in the photo.

    Landmarks outside the crop or the photo get the weight 0: the detector made them up. Arguments as for
    `preprocess_photo`.
    """
    crop, alignment = align_face(image, face.landmarks68, model, size=size)
    labels = parser(image, face, alignment, path=path)
    sample = photo_sample(crop, labels, face.landmarks68, alignment, coefficients=vector_size(model))
    return sample, alignment


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
        MissingDependencyError: when MediaPipe is not installed.
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
            found = preprocess_photo(read_image(path), face_model, size=size, parser=parse, path=path)
            if not (out / DATASET_FILE).exists():
                write_dataset_file(out, settings)
            _write_photo(out / name, path, found[: 1 if faces == "largest" else None])
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


def _write_photo(folder: Path, photo: Path, found: Sequence[tuple[Sample, Alignment, DetectedFace]]) -> None:
    with atomic_folder(folder) as partial:
        for index, (sample, alignment, face) in enumerate(found):
            details = {"photo": photo.name, "score": round(face.score, 4), "box": np.round(face.box, 2).tolist()}
            (partial / f"face_{index}").mkdir()
            write_sample(partial / f"face_{index}", sample, alignment, details)
        content = {"photo": photo.name, "sha256": file_digest(photo), "faces": len(found)}
        (partial / _PHOTO_FILE).write_text(json.dumps(content) + "\n")


def contact_sheet(source: FolderSource) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of up to 48 samples, evenly chosen: each crop beside its parts and landmarks."""
    cells, names = [], []
    for index in np.unique(np.linspace(0, len(source) - 1, min(len(source), _SHEET_FACES)).round().astype(int)):
        sample = source[index]
        known = sample["landmarks"][sample["landmark_weights"] > 0]
        parts = visualize.draw_labels(sample["image"], sample["labels"])
        radius = max(1.0, sample["image"].shape[0] / 224)
        cells.append([sample["image"], visualize.draw_landmarks(parts, known, radius=radius)])
        names.append(str(source.images[index].parent.relative_to(source.path)))
    starts = range(0, len(cells), _SHEET_COLUMNS)
    rows = [[picture for cell in cells[start : start + _SHEET_COLUMNS] for picture in cell] for start in starts]
    captions = ["  |  ".join(names[start : start + _SHEET_COLUMNS]) for start in starts]
    return visualize.grid(rows, captions=captions, cell=224)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.preprocess",
        description="Finds the faces in photos and writes, for each, an aligned crop, a map of its parts and its 68 "
        "landmarks: the folder that jaxface.train reads. Look at OUT/contact_sheet.png afterwards. Faces and landmarks "
        "always come from MediaPipe; the parts can come from its points too (the default), from the DML-CSR network, "
        "which sees hair, hands and glasses, or from label maps that you have.",
        epilog="example: python -m jaxface.preprocess holiday.jpg my_photos/ 'more/*.png' faces/   "
        "-- or, with label maps in CelebAMask-HQ's order: ... my_photos/ faces/ --labels celebamask --label-folder "
        "my_maps/   -- Run it again after adding photos: those done already are skipped. Exit code 0: all photos done; "
        "1: some failed; 2: nothing could be done.",
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="photos, folders of photos, or glob patterns")
    parser.add_argument("out", metavar="OUT", help="folder for the samples; made if it does not exist")
    parser.add_argument(
        "--size", type=_crop_size, default=CROP_SIZE, help="side of the crops in pixels, 32 to 2048 (default: 224)"
    )
    parser.add_argument(
        "--model", default="anny", help="face model that the crops are aligned to: a name or a file (default: anny)"
    )
    parser.add_argument(
        "--faces", choices=("all", "largest"), default="all", help="which faces of a photo to take (default: all)"
    )
    parser.add_argument(
        "--parser",
        choices=PARSERS,
        default="mediapipe",
        help="what finds the parts (default: mediapipe); dml_csr takes some 4 seconds a face on two CPU cores",
    )
    parser.add_argument(
        "--parser-weights",
        metavar="FILE",
        help="the PyTorch checkpoint of dml_csr (CelebAMask-HQ's 19 labels or LaPa's 11)",
    )
    parser.add_argument(
        "--labels",
        choices=tuple(PARSER_LABELS),
        help="take the parts from the label maps in --label-folder, whose values are in this order",
    )
    parser.add_argument(
        "--label-folder",
        metavar="DIR",
        help="label maps: for NAME.jpg the 8-bit, one-channel NAME.png of the same size; left and right are the "
        "subject's own",
    )
    parser.add_argument("--overwrite", action="store_true", help="make samples again that are there already")
    return parser


def _crop_size(text: str) -> int:
    if not text.isdecimal() or not 32 <= int(text) <= 2048:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 32 to 2048")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    report = preprocess_files(
        options.photos,
        options.out,
        model=options.model,
        size=options.size,
        faces=options.faces,
        overwrite=options.overwrite,
        parser=options.parser,
        parser_weights=options.parser_weights,
        labels=options.labels,
        label_folder=options.label_folder,
    )
    print(report.summary())
    if report.done:
        print(f"look at {Path(options.out) / CONTACT_SHEET}")
    return report.exit_code


if __name__ == "__main__":
    run(main)
