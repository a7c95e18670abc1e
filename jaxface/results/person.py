"""Fits one person to several photos: they share identity and albedo, and one mesh with one texture comes of them.

Up to 16 photos are fitted together; with identity and albedo held, the others follow. From a photo with several faces
the one is taken that is most like those of the other photos, by the recognition network; without one, the largest.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxface.core.cameras import Camera
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.files.atomic import atomic_folder
from jaxface.files.images import photo_focal, read_image
from jaxface.files.inputs import collect_files, content_digest
from jaxface.files.names import PERSON, Owner, claim_names
from jaxface.files.progress import BatchReport, progress
from jaxface.fitting.descent import SolvedFace
from jaxface.fitting.evidence import Calibration, Evidence, evidence_for, people_prior
from jaxface.fitting.one_person import CHUNK, fit_known_person, fit_same_person
from jaxface.fitting.priors import Prior
from jaxface.models import load_face_model
from jaxface.networks.face_recognition import FaceRecognizer
from jaxface.photos.face_crops import FaceCrop, preprocess_photo
from jaxface.photos.parsing import FIT_PARSER, Parser, create_parser
from jaxface.photos.samples import Sample, stack_samples
from jaxface.results.drawing import USUAL_DRAWING, DrawingOptions, DrawnFace
from jaxface.results.gallery import PAGE, write_overview
from jaxface.results.person_files import earlier_person, write_person
from jaxface.results.person_texture import delighted_face, merge_aligned, texture_and_trust
from jaxface.results.photos import check_is_no_file, is_done, reconstructions_of, tell_doubts, write_results
from jaxface.results.same_face import choose_faces, distances_to_others, find_strangers, least_distance_of_strangers
from jaxface.results.summary import add_photos

DESCRIPTION = "one person in several photos"
"""What pages say was done."""

JOINT = 16
"""Photos that are fitted together."""

TEXTURE_PHOTOS = 8
"""Photos that the texture comes from, at most."""


@dataclasses.dataclass(frozen=True)
class PhotoOfPerson:
    """A photo and the faces found in it.

    Attributes:
        path: its file.
        name: of its results' folder.
        crops: its faces, the largest first.
    """

    path: Path
    name: str
    crops: Sequence[FaceCrop]


def fit_person(
    patterns: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    model: str = "anny",
    recognition: str | os.PathLike = "auto",
    calibration: str | os.PathLike | None = None,
    parser: str = FIT_PARSER,
    keep_strangers: bool = False,
    overwrite: bool = False,
    drawing: DrawingOptions = USUAL_DRAWING,
) -> tuple[BatchReport, list[Path]]:
    """Fits one person to photos and writes what each gives (`results.photo_files`), and the person (`person_files`).

    A person whose results are there, made from the same photos with the same settings, is skipped. After an
    interruption the faces are found and fitted again, and what was written of the photos stays.

    Args:
        patterns: photos, folders of photos, glob patterns; all of one person.
        out: folder for the results; made if need be.
        model: name or path of the face model.
        recognition: network that tells the person from others in the photos, and of the perceptual loss; see
            `fitting.solver.fit_solver`.
        calibration: the detector's table, see `jaxface calibrate`; None takes the one that comes with jaxface.
        parser: what labels the parts: "jaxface" or "mediapipe".
        keep_strangers: takes photos, too, that show somebody else by the recognition network's account.
        overwrite: makes results again that are there already.
        drawing: sizes of pictures and textures; of the person's own texture, the light is always taken off.

    Returns:
        What was done and what failed, and the HTML pages written.

    Raises:
        InputError: when the model, the network or `out` cannot be used.
    """
    out = Path(out)
    check_is_no_file(out)
    face_model, prior, recognizer, evidence = load_for_person(model, recognition, calibration)
    settings = settings_of_joint_fit("fit, one person", face_model, recognition, recognizer, calibration, parser)
    settings |= drawing.told()
    if keep_strangers:
        settings["strangers"] = "kept"
    paths = collect_files(patterns, exclude=out)
    own, names = claim_person(out, paths)
    digests = {path: content_digest(path) for path in paths}
    if not overwrite and (earlier := earlier_person(out / own, list(digests.items()), settings)) is not None:
        return _as_before(out, earlier, paths)
    report = BatchReport()
    photos = _with_faces(paths, names, face_model, create_parser(parser), report)
    if not photos:
        return report, []
    faces, features = choose_faces([photo.crops for photo in photos], recognizer)
    if recognizer is not None and features is not None and not keep_strangers:
        known = _without_strangers(photos, features, least_distance_of_strangers(recognizer), report)
        photos, faces, features = [photos[i] for i in known], [faces[i] for i in known], features[known]
    chosen = [photo.crops[face] for photo, face in zip(photos, faces, strict=True)]
    joint = joint_photos(chosen)
    samples = [crop.sample for crop in chosen]
    solved = fit_photos_of_person(face_model, samples, joint, prior, recognizer=recognizer, evidence=evidence)
    distances = None if features is None else distances_to_others(features)
    together = hashlib.sha256("".join(str(digests[photo.path]) for photo in photos).encode()).hexdigest()
    told = settings | {"fitted with": f"{len(photos)} photos, {together[:12]}"}
    textures, pages, written = [], [], []
    drawn: DrawnFace | None = None
    for index, photo in progress(list(enumerate(photos)), description="write"):
        with report.guard(photo.path):
            image = read_image(photo.path)
            one = reconstructions_of([solved[index]], [chosen[index]])[0]
            about = {"photo": photo.path.name, "sha256": digests[photo.path], "settings": told}
            if content_digest(photo.path) != digests[photo.path]:
                raise InputError(f"{photo.path}: the file changed while it was fitted; run the command again")
            if not overwrite and is_done(out / photo.name, photo.path, told):
                report.skipped += 1
            else:
                with atomic_folder(out / photo.name) as folder:
                    doubts = write_results(
                        folder, face_model, image, [one], about, description=DESCRIPTION, drawing=drawing
                    )
                tell_doubts(photo.path, doubts)
                report.add_done(photo.path)
            if index in joint[:TEXTURE_PHOTOS]:
                drawn = delighted_face(face_model, one, image, options=drawing)
                textures.append(texture_and_trust(face_model, drawn))
            pages.append(out / photo.name / PAGE)
            written.append(
                {
                    "file": photo.path.name,
                    "sha256": digests[photo.path],
                    "folder": photo.name,
                    "role": "joint" if index in joint else "known",
                    "faces": len(photo.crops),
                    "distance": None if distances is None else round(float(distances[index]), 4),
                }
            )
    if drawn is not None:
        texture, vector = merge_aligned(textures), solved[joint[0]].vector
        left_out = [
            {"file": path.name, "sha256": digests[path], "reason": report.reasons[str(path)]}
            for path in paths
            if str(path) in report.reasons
        ]
        write_person(
            out / own, face_model, vector, drawn, texture, photos=written, left_out=left_out, settings=settings
        )
    add_photos(
        out,
        done=[(photo.path, photo.name) for photo in photos if str(photo.path) not in report.reasons],
        reasons=report.reasons,
    )
    if len(photos) + len(report.failures) > 1:
        pages.append(write_overview(out, report.reasons))
    return report, pages


def claim_person(out: Path, paths: Sequence[Path]) -> tuple[str, list[str]]:
    """Names of the folders of a person and of each photo, which are other ones than those of the photos by themselves.

    Raises:
        InputError: when `out` cannot be made or written to.
    """
    (own,) = claim_names(out, [Owner(PERSON, tuple(paths))])
    return own, claim_names(out, [Owner(f"photo of {own}", (path,)) for path in paths])


def _as_before(out: Path, record: Mapping[str, Any], paths: Sequence[Path]) -> tuple[BatchReport, list[Path]]:
    """What a run reports that finds everything done: photos that could not be used are named again."""
    report = BatchReport(skipped=len(record["photos"]))
    for one in record["left_out"]:
        with report.guard(next(path for path in paths if path.name == one["file"])):
            raise InputError(one["reason"])
    return report, [out / photo["folder"] / PAGE for photo in record["photos"]]


def _with_faces(
    paths: Sequence[Path], names: Sequence[str], model: FaceModel, parser: Parser, report: BatchReport
) -> list[PhotoOfPerson]:
    photos = []
    for path, name in progress(list(zip(paths, names, strict=True)), description="detect"):
        with report.guard(path):
            crops = preprocess_photo(read_image(path), model, parser=parser, focal=photo_focal(path))
            photos.append(PhotoOfPerson(path, name, crops))
    return photos


def _without_strangers(
    photos: Sequence[PhotoOfPerson], features: np.ndarray, apart: float, report: BatchReport
) -> list[int]:
    strangers = find_strangers(features, apart=apart)
    known = [index for index in range(len(photos)) if index not in strangers]
    others = distances_to_others(features[known]) if strangers else np.zeros(0)
    for index, distance in strangers.items():
        with report.guard(photos[index].path):
            raise InputError(
                f"left out, it seems to show another person than the other photos (recognition distance "
                f"{distance:.2f}, of the others {others.min():.2f} to {others.max():.2f}); --keep-strangers takes it"
            )
    return known


def settings_of_joint_fit(
    method: str,
    model: FaceModel,
    recognition: str | os.PathLike,
    recognizer: FaceRecognizer | None,
    calibration: str | os.PathLike | None,
    parser: str,
) -> dict[str, str]:
    """What results say of how they were made; by these they are skipped the next time."""
    network = "off" if recognizer is None else "dlib" if str(recognition) == "auto" else str(recognition)
    settings = {"method": method, "face model": model.name, "recognition network": network, "parser": parser}
    return settings if calibration is None else settings | {"calibration": str(calibration)}


def load_for_person(
    model: str, recognition: str | os.PathLike, calibration: str | os.PathLike | None = None
) -> tuple[FaceModel, Prior, FaceRecognizer | None, Evidence]:
    """Loads the face model, its prior, the recognition network and what points are worth, as `jaxface.fit` does.

    Raises:
        InputError: when the model or the network cannot be used.
    """
    from jaxface.fitting import solver  # which imports this module

    face_model = load_face_model(model)
    table = None if calibration is None else Calibration.load(calibration)
    solver.fit_solver(face_model, recognition="off", calibration=table)  # checks that the model will do
    evidence = evidence_for(face_model, dense=True, calibration=table)
    return face_model, people_prior(face_model, table), solver.find_recognizer(str(recognition))[1], evidence


def joint_photos(chosen: Sequence[FaceCrop]) -> list[int]:
    """The photos to fit together, the best first: up to JOINT, those with the most pixels of the face."""
    # A crop of 224 that was enlarged knows no more than the photo did; beyond that, more pixels hardly help.
    detail = [min(1.0, 1 / crop.alignment.scale) * float((crop.sample["labels"] > 0).mean()) for crop in chosen]
    return [int(index) for index in np.argsort(-np.asarray(detail), kind="stable")[:JOINT]]


def fit_photos_of_person(
    model: FaceModel,
    samples: Sequence[Sample],
    joint: Sequence[int],
    prior: Prior,
    *,
    recognizer: FaceRecognizer | None = None,
    evidence: Evidence | None = None,
) -> list[SolvedFace]:
    """The faces of all samples, with one identity and albedo.

    Args:
        model: the face model.
        samples: crops of one person.
        joint: indices of those that identity and albedo are fitted to; the others follow.
        prior: of the model's coefficients.
        recognizer: network of the perceptual loss.
        evidence: what the detector's points are worth; see `fit_faces`.
    """
    camera = Camera().resized(samples[0]["image"].shape[0])
    together = stack_samples([samples[i] for i in joint])
    known = fit_same_person(model, together, camera, prior, recognizer=recognizer, evidence=evidence)
    faces = dict(zip(joint, known, strict=True))
    others = [index for index in range(len(samples)) if index not in faces]
    for first in progress(range(0, len(others), CHUNK), description="fit", unit="chunk") if others else ():
        rows = others[first : first + CHUNK]
        batch = stack_samples([samples[i] for i in rows])
        fitted = fit_known_person(model, batch, known[0].vector, camera, prior, evidence=evidence)
        faces |= dict(zip(rows, fitted, strict=True))
    return [faces[index] for index in range(len(samples))]
