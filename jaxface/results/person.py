"""Fits one person to several photos: they share identity and albedo, and one mesh with one texture comes of them.

Up to 16 photos are fitted together; with identity and albedo held, the others follow. From a photo with several faces
the one is taken that is most like those of the other photos, by the recognition network; without one, the largest.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from jaxface.core.cameras import Camera
from jaxface.core.face_models import FaceModel
from jaxface.core.units import to_float
from jaxface.files.atomic import atomic_folder
from jaxface.files.images import photo_focal, read_image
from jaxface.files.inputs import collect_files, file_digest, holds_another_photo, unique_names
from jaxface.files.progress import BatchReport, progress
from jaxface.fitting.descent import SolvedFace
from jaxface.fitting.evidence import Calibration, Evidence, evidence_for, people_prior
from jaxface.fitting.one_person import CHUNK, fit_known_person, fit_same_person
from jaxface.fitting.priors import Prior
from jaxface.models import load_face_model
from jaxface.networks.face_recognition import FaceRecognizer, recognition_features
from jaxface.photos.face_crops import FaceCrop, preprocess_photo
from jaxface.photos.parsing import FIT_PARSER, create_parser
from jaxface.photos.samples import Sample, stack_samples
from jaxface.results.drawing import USUAL_DRAWING, DrawingOptions, DrawnFace
from jaxface.results.gallery import DONE_FILE, PAGE, write_overview
from jaxface.results.person_files import PERSON_FOLDER, check_person_folder, write_person
from jaxface.results.person_texture import delighted_face, merge_aligned, texture_and_trust
from jaxface.results.photos import reconstructions_of, write_results

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
    drawing: DrawingOptions = USUAL_DRAWING,
) -> tuple[BatchReport, list[Path]]:
    """Fits one person to photos and writes what each gives (`results.photo_files`), and the person (`person_files`).

    Args:
        patterns: photos, folders of photos, glob patterns; all of one person.
        out: folder for the results; made if need be.
        model: name or path of the face model.
        recognition: network that tells the person from others in the photos, and of the perceptual loss; see
            `fitting.solver.fit_solver`.
        calibration: the detector's table, see `jaxface calibrate`; None takes the one that comes with jaxface.
        parser: what labels the parts: "jaxface" or "mediapipe".
        drawing: sizes of pictures and textures; of the person's own texture, the light is always taken off.

    Returns:
        What was done and what failed, and the HTML pages written.

    Raises:
        InputError: when the model, the network or `out` cannot be used.
    """
    out = Path(out)
    check_person_folder(out)
    face_model, prior, recognizer, evidence = load_for_person(model, recognition, calibration)
    settings, parse = {"method": "fit, one person", "face model": face_model.name}, create_parser(parser)
    report, photos = BatchReport(), []
    paths = collect_files(patterns, exclude=out)
    names = unique_names(paths, occupied=lambda name, path: _is_occupied(out, name, path))
    for path, name in progress(list(zip(paths, names, strict=True)), description="detect"):
        with report.guard(path):
            image = read_image(path)
            photos.append(
                PhotoOfPerson(path, name, preprocess_photo(image, face_model, parser=parse, focal=photo_focal(path)))
            )
    if not photos:
        return report, []
    faces, distances = choose_faces(photos, recognizer)
    chosen = [photo.crops[face] for photo, face in zip(photos, faces, strict=True)]
    joint = joint_photos(chosen)
    samples = [crop.sample for crop in chosen]
    solved = fit_photos_of_person(face_model, samples, joint, prior, recognizer=recognizer, evidence=evidence)
    records = [
        {
            "file": photo.path.name,
            "folder": photo.name,
            "role": "joint" if index in joint else "known",
            "faces": len(photo.crops),
            "distance": None if distances is None else round(float(distances[index]), 4),
        }
        for index, photo in enumerate(photos)
    ]
    textures, pages, written = [], [], []
    drawn: DrawnFace | None = None
    for index, photo in progress(list(enumerate(photos)), description="write"):
        with report.guard(photo.path):
            image = read_image(photo.path)
            one = reconstructions_of([solved[index]], [chosen[index]])[0]
            about = {"photo": photo.path.name, "sha256": file_digest(photo.path), "settings": settings}
            with atomic_folder(out / photo.name) as folder:
                write_results(
                    folder, face_model, image, [one], about, description="one person in several photos", drawing=drawing
                )
            if index in joint[:TEXTURE_PHOTOS]:
                drawn = delighted_face(face_model, one, image, options=drawing)
                textures.append(texture_and_trust(face_model, drawn, one.sample))
            pages.append(out / photo.name / PAGE)
            written.append(records[index])
            report.add_done(photo.path)
    if drawn is not None:
        texture, vector = merge_aligned(textures), solved[joint[0]].vector
        write_person(out / PERSON_FOLDER, face_model, vector, drawn, texture, photos=written, settings=settings)
    if len(photos) + len(report.failures) > 1:
        pages.append(write_overview(out, report.reasons))
    return report, pages


def _is_occupied(out: Path, name: str, path: Path) -> bool:
    return name.lower() == PERSON_FOLDER or holds_another_photo(out / name, path, record=DONE_FILE)


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


def choose_faces(
    photos: Sequence[PhotoOfPerson], recognizer: FaceRecognizer | None
) -> tuple[list[int], Float[np.ndarray, "N"] | None]:
    """Which face of each photo is the person's, and how far its recognition features are from the mean of the others'.

    Args:
        photos: at least one.
        recognizer: None takes the largest face of each photo.
    """
    if recognizer is None:
        return [0] * len(photos), None
    features = [_features([crop.sample for crop in photo.crops], recognizer) for photo in photos]
    return choose_by_features(features)


def choose_by_features(features: Sequence[Float[np.ndarray, "_ C"]]) -> tuple[list[int], Float[np.ndarray, "N"]]:
    """Of each photo the face whose features lie nearest to the mean of the other photos' chosen ones.

    Photos with a single face decide first, if there are any; else the largest faces do.

    Args:
        features: per photo those of its faces, the largest first.

    Returns:
        The index of the face per photo, and its distance to the mean of the others.
    """
    single = np.array([len(faces) == 1 for faces in features])
    known = single if single.any() else np.ones(len(features), bool)
    chosen = [0] * len(features)
    for _ in range(5):
        for index, faces in enumerate(features):
            others = [features[i][chosen[i]] for i in np.flatnonzero(known).tolist() if i != index]
            if others:
                chosen[index] = int(np.linalg.norm(faces - np.mean(others, axis=0)[None], axis=1).argmin())
        known = np.ones(len(features), bool)
    picked = np.stack([faces[face] for faces, face in zip(features, chosen, strict=True)])
    count = len(picked)
    others = (picked.sum(0)[None] - picked) / max(count - 1, 1)
    return chosen, np.linalg.norm(picked - others, axis=1) if count > 1 else np.zeros(1)


def _features(samples: Sequence[Sample], recognizer: FaceRecognizer) -> Float[np.ndarray, "N C"]:
    # One by one: photos hold different numbers of faces, and each number would be compiled anew.
    batches = [stack_samples([sample]) for sample in samples]
    return np.concatenate([np.asarray(_one_feature(batch, recognizer)) for batch in batches])


@jax.jit
def _one_feature(batch, recognizer: FaceRecognizer):
    image = to_float(batch["image"])
    return recognition_features(image, batch["landmarks"], recognizer, weights=batch["landmark_weights"])


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
