"""From photos to results on disk, by a fit or by a trained encoder; and one photo in memory."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxface.clips.frames import VIDEO_SUFFIXES
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.files.images import Photo, photo_focal, photo_name, read_image
from jaxface.files.inputs import IMAGE_SUFFIXES, collect_files
from jaxface.files.names import Owner, claim_names
from jaxface.files.progress import BatchReport
from jaxface.fitting.evidence import Calibration
from jaxface.fitting.first_look import onlooker_for
from jaxface.fitting.solver import SolveFaces, find_recognizer, sample_solver
from jaxface.models import load_face_model
from jaxface.photos.face_crops import preprocess_photo
from jaxface.photos.parsing import FIT_PARSER, create_parser
from jaxface.photos.prediction import PredictFaces, predict_faces
from jaxface.results.clip import fit_video
from jaxface.results.doubts import rivals_of_first
from jaxface.results.drawing import USUAL_DRAWING, DrawingOptions
from jaxface.results.fitted_photo import FittedPhoto
from jaxface.results.person import claim_person, fit_person
from jaxface.results.photos import check_is_no_file, process_photos, reconstructions_of
from jaxface.results.summary import add_clips

OWN = "jaxface's own"
"""What results say of the encoder that comes along."""


def fit_files(
    paths: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    same_person: bool = False,
    keep_strangers: bool = False,
    video: bool = False,
    model: str | None = None,
    checkpoint: str | os.PathLike | None = None,
    faces: str = "all",
    recognition: str | os.PathLike = "auto",
    calibration: str | os.PathLike | None = None,
    parser: str = FIT_PARSER,
    overwrite: bool = False,
    frame_rate: float | None = None,
    drawing: DrawingOptions = USUAL_DRAWING,
) -> tuple[BatchReport, list[Path]]:
    """Fits whatever it is given: photos one by one (`fit_photos`), one person's (`fit_person`), clips (`fit_video`).

    Args:
        paths: photos, folders, glob patterns; files with a video's suffix are clips; see `sort_inputs`.
        out: folder for the results; made if need be.
        same_person: all photos show one person.
        keep_strangers: with that, takes photos, too, that seem to show somebody else.
        video: everything is a clip, be it a folder of frames or an animated picture.
        model: name or path of the face model; None takes the checkpoint's, or "anny" without one.
        checkpoint: of single photos, an encoder to start from.
        faces: of single photos, "all" faces or the "largest" alone.
        recognition: network of the perceptual loss, see `fit_solver`.
        calibration: the detector's table, see `jaxface calibrate`; None takes the one that comes with jaxface.
        parser: what labels the parts: "jaxface" or "mediapipe".
        overwrite: makes results again that are there already.
        frame_rate: of clips, frames per second at equal steps; None takes the time that a file tells of each frame.
        drawing: how the faces are drawn and textured.

    Returns:
        What was done and what failed, and the HTML pages.

    Raises:
        InputError: when the options do not go together, or nothing could be done.
        MissingDependencyError: when a package is not installed that this needs.
    """
    check_is_no_file(Path(out))
    photos, clips = sort_inputs(paths, out, video=video)
    if checkpoint and (clips or same_person):
        raise InputError("--checkpoint starts the fit of single photos; leave it out with --same-person and clips")
    # All names before the first fit, photos' first.
    if same_person and photos:
        claim_person(Path(out), photos)
    else:
        claim_names(out, [Owner("photo", (photo,)) for photo in photos])
    clip_names = claim_names(out, [Owner("clip", (clip,)) for clip in clips])
    report = BatchReport(unit="photo" if photos else "clip")
    pages: list[Path] = []
    if same_person and photos:
        # Of the person's own texture the light is always taken off; those of the photos keep it.
        lit = dataclasses.replace(drawing, delight=False)
        report, pages = fit_person(
            photos,
            out,
            model=model or "anny",
            recognition=recognition,
            calibration=calibration,
            parser=parser,
            keep_strangers=keep_strangers,
            overwrite=overwrite,
            drawing=lit,
        )
    elif photos:
        report, pages = fit_photos(
            photos,
            out,
            model=model,
            checkpoint=checkpoint,
            faces=faces,
            recognition=recognition,
            calibration=calibration,
            parser=parser,
            overwrite=overwrite,
            drawing=drawing,
        )
    told = []
    for clip, name in zip(clips, clip_names, strict=True):
        with report.guard(clip):
            fitted, page = fit_video(
                clip,
                out,
                model=model or "anny",
                recognition=recognition,
                calibration=calibration,
                parser=parser,
                frame_rate=frame_rate,
                overwrite=overwrite,
                drawing=drawing,
            )
            report.done += fitted.done
            report.skipped += fitted.skipped
            report.incomplete += fitted.incomplete
            pages += page
        reason = report.reasons.get(str(clip))
        told.append({"clip": str(clip), **({"folder": name} if reason is None else {"reason": reason})})
    if told and Path(out).is_dir():
        add_clips(Path(out), told)
    return report, pages


def sort_inputs(
    patterns: Sequence[str | os.PathLike], out: str | os.PathLike, *, video: bool = False
) -> tuple[list[Path], list[Path]]:
    """The photos and the clips among what a user names.

    A folder stands for its photos, or, if it has none, for its videos. Nothing that jaxface wrote is taken.

    Args:
        patterns: photos, clips, folders, glob patterns.
        out: the folder for the results.
        video: everything is a clip, also a folder of frames; but a folder without pictures stands for its videos.

    Raises:
        InputError: when there is nothing but what jaxface wrote.
    """
    if not video:
        files = collect_files(patterns, instead=VIDEO_SUFFIXES, exclude=out)
        clips = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()]
        return [path for path in files if path not in clips], clips
    named = collect_files(patterns, exclude=out, whole_folders=True)
    clips = []
    for path in named:
        there = [file.suffix.lower() for file in path.iterdir()] if path.is_dir() else []
        only_videos = not IMAGE_SUFFIXES.intersection(there) and VIDEO_SUFFIXES.intersection(there)
        clips += collect_files([path], suffixes=VIDEO_SUFFIXES, exclude=out) if only_videos else [path]
    return [], clips


def fit_photos(
    patterns: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    model: str | None = None,
    checkpoint: str | os.PathLike | None = None,
    faces: str = "all",
    recognition: str | os.PathLike = "auto",
    calibration: str | os.PathLike | None = None,
    parser: str = FIT_PARSER,
    overwrite: bool = False,
    drawing: DrawingOptions = USUAL_DRAWING,
) -> tuple[BatchReport, list[Path]]:
    """Fits the faces of photos and writes the results (see `results.photo_files` and `results.photos.process_photos`).

    Nothing is drawn at random: the same photos give the same files.

    Args:
        patterns: photos, folders of photos, glob patterns.
        out: folder for the results; made if need be.
        model: name or path of the face model; None takes the checkpoint's, or "anny" without one.
        checkpoint: an encoder to start from; None starts from the answer of the network that comes with jaxface, or
            from the mean face where the face model is not the network's.
        faces: "all" faces of a photo, or the "largest" alone.
        recognition: network of the perceptual loss, see `fit_solver`.
        calibration: the detector's table, see `jaxface calibrate`; None takes the one that comes with jaxface.
        parser: what labels the parts: "jaxface" or "mediapipe".
        overwrite: makes results again that are there already.
        drawing: how the faces are drawn and textured.

    Returns:
        What was done and what failed, and the HTML pages: of each photo and, last, the overview if there is one.

    Raises:
        InputError: when the model, the checkpoint, the network or `out` cannot be used.
    """
    face_model, predict, solve, settings = _prepared(
        model, *(None if path is None else str(path) for path in (checkpoint, calibration)), str(recognition)
    )
    settings = {**settings, "parser": parser}
    return process_photos(
        patterns,
        out,
        face_model,
        predict=predict,
        solve=solve,
        parser=create_parser(parser),
        faces=faces,
        overwrite=overwrite,
        drawing=drawing,
        description="fit",
        settings=settings,
    )


def fit_photo(
    photo: Photo,
    *,
    model: str | None = None,
    checkpoint: str | os.PathLike | None = None,
    faces: str = "all",
    recognition: str | os.PathLike = "auto",
    calibration: str | os.PathLike | None = None,
    parser: str = FIT_PARSER,
    delight: bool = False,
    keep_glasses: bool = False,
) -> FittedPhoto:
    """Fits the faces of one photo; models and networks stay in memory for the next call.

        result = jaxface.fit_photo("portrait.jpg")
        result.faces[0].mesh().export("face.glb")
        result.save("results")

    Args:
        photo: a file, the bytes of one, a picture of Pillow, or an array [H, W], [H, W, 3] or [H, W, 4] with row 0 on
            top, RGB; see `files.images.read_image`.
        model: as for `fit_photos`, like the others.
        checkpoint: an encoder to start from.
        faces: "all" faces of the photo, the largest first, or the "largest" alone.
        recognition: network of the perceptual loss.
        calibration: the detector's table.
        parser: what labels the parts: "jaxface" or "mediapipe".
        delight: takes the photo's light off the texture.
        keep_glasses: leaves glasses in the texture.

    Raises:
        InputError: when the photo cannot be read or shows no face, or the model, the checkpoint or the network cannot
            be used.
    """
    pixels, focal = read_image(photo), photo_focal(photo)
    face_model, predict, solve, settings = _prepared(
        model, *(None if path is None else str(path) for path in (checkpoint, calibration)), str(recognition)
    )
    settings = {**settings, "parser": parser}
    found = preprocess_photo(pixels, face_model, parser=create_parser(parser), focal=focal)
    crops = found[: 1 if faces == "largest" else None]
    solved = solve([crop.sample for crop in crops], None if predict is None else predict(pixels, crops))
    reconstructions = reconstructions_of(solved, crops, rivals=rivals_of_first(found))
    return FittedPhoto(
        face_model,
        pixels,
        reconstructions,
        name=Path(photo_name(photo)).name,
        settings=settings,
        drawing=DrawingOptions(delight=delight, keep_glasses=keep_glasses),
    )


@functools.cache
def _prepared(
    model: str | None, checkpoint: str | None, calibration: str | None, recognition: str
) -> tuple[FaceModel, PredictFaces | None, SolveFaces, Mapping[str, str]]:
    """The face model, encoder and solver, and what a result says of them."""
    predict = None
    if checkpoint is None:
        face_model = load_face_model(model or "anny")
    else:
        predict, face_model = predict_faces(checkpoint, model=model)
    table = None if calibration is None else Calibration.load(calibration)
    network, recognizer = find_recognizer(recognition)
    solve = sample_solver(face_model, recognizer, table)
    settings = {
        "method": "fit",
        "face model": face_model.name,
        "start": checkpoint or ("mean face" if onlooker_for(face_model) is None else OWN),
        "recognition network": network,
    }
    if table is not None:
        settings["calibration"] = f"{calibration}: {table.made}"
    return face_model, predict, solve, settings


def reconstruct_photos(
    patterns: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    checkpoint: str | os.PathLike | None = None,
    model: str | os.PathLike | None = None,
    faces: str = "all",
    overwrite: bool = False,
    drawing: DrawingOptions = USUAL_DRAWING,
) -> tuple[BatchReport, list[Path]]:
    """Reconstructs the faces of photos with an encoder and writes the results.

    See `jaxface.results.photo_files` and `results.photos.process_photos`.

    Args:
        patterns: photos, folders of photos, glob patterns.
        out: folder for the results; made if need be.
        checkpoint: a training run's folder, or weights from elsewhere: see `networks.checkpoints.load_encoder`. None
            takes the encoder that comes with jaxface.
        model: name or path of the face model that the encoder was trained with; by default the one that the checkpoint
            names, which weights from elsewhere do not.
        faces: "all" faces of a photo, or the "largest" alone.
        overwrite: makes results again that are there already.
        drawing: how the faces are drawn and textured.

    Returns:
        What was done and what failed, and the HTML pages: of each photo and, last, the overview if there is one.

    Raises:
        InputError: when the checkpoint, the model or `out` cannot be used.
    """
    predict, face_model = predict_faces(checkpoint, model=model)
    settings = {"method": "encoder", "face model": face_model.name, "checkpoint": str(checkpoint or OWN)}
    return process_photos(
        patterns,
        out,
        face_model,
        predict=predict,
        faces=faces,
        overwrite=overwrite,
        drawing=drawing,
        description="reconstruct",
        settings=settings,
    )
