"""Fits a face to a clip: python -m jaxface.fit, for a folder of frames, an animated picture or a video.

One face is found in every frame and cut out through a window that moves smoothly (`jaxface.clips.tracking`), fitted as
one person and smoothed in time (`jaxface.clips.track`), and written (`jaxface.results.clip_files`).
"""

import os
from pathlib import Path

from jaxface.clips.frames import open_clip
from jaxface.clips.track import CUTOFF, track_face
from jaxface.clips.tracking import cut_samples, follow_face, smooth_windows
from jaxface.core.errors import InputError
from jaxface.files.inputs import content_digest
from jaxface.files.names import Owner, claim_names
from jaxface.files.progress import BatchReport
from jaxface.photos.parsing import FIT_PARSER, create_parser
from jaxface.results.clip_files import earlier_result, write_clip
from jaxface.results.drawing import USUAL_DRAWING, DrawingOptions
from jaxface.results.gallery import PAGE
from jaxface.results.person import load_for_person, settings_of_joint_fit
from jaxface.results.photos import writable_folder


def fit_video(
    path: str | os.PathLike,
    out: str | os.PathLike,
    *,
    model: str = "anny",
    recognition: str | os.PathLike = "auto",
    calibration: str | os.PathLike | None = None,
    parser: str = FIT_PARSER,
    frame_rate: float | None = None,
    cutoff: float = CUTOFF,
    overwrite: bool = False,
    drawing: DrawingOptions = USUAL_DRAWING,
) -> tuple[BatchReport, list[Path]]:
    """Fits one face to a clip and writes the results (see `jaxface.results.clip_files`).

    Args:
        path: a folder with a picture per frame, an animated GIF, WebP or PNG, or a video.
        out: folder for the results, in OUT/<clip>.
        model: name or path of the face model.
        recognition: network of the perceptual loss of the key frames, see `fitting.solver.fit_solver`.
        calibration: the detector's table, see `jaxface calibrate`; None takes the one that comes with jaxface.
        parser: what labels the parts: "jaxface" or "mediapipe".
        frame_rate: frames per second, at equal steps; None takes the time that the file tells of each frame.
        cutoff: in Hz: quicker motion of the head is smoothed away; 0 leaves all as it was fitted.
        overwrite: makes results again that are there already, from the same clip with the same settings.
        drawing: sizes of pictures and texture.

    Returns:
        What was done or skipped, and the HTML page written. Of a clip that cannot be read whole, what can be is fitted,
        and the report says what is missing.

    Raises:
        InputError: when the clip, the model or `out` cannot be used, or no frame shows a face.
        MissingDependencyError: when PyAV is not installed, for a video.
    """
    if cutoff < 0:
        raise InputError(f"the cutoff is a frequency in Hz, 0 for no smoothing; it cannot be {cutoff}")
    clip = open_clip(path, frame_rate=frame_rate)
    out = writable_folder(out)
    folder = out / claim_names(out, [Owner("clip", (clip.path,))])[0]
    face_model, prior, recognizer, evidence = load_for_person(model, recognition, calibration)
    settings = settings_of_joint_fit("video", face_model, recognition, recognizer, calibration, parser)
    settings |= {"cutoff": f"{cutoff:g} Hz", **drawing.told()}
    if frame_rate is not None:
        settings["frame rate"] = f"{frame_rate:g}"
    if not overwrite and (told := earlier_result(folder, clip, settings)) is not None:
        report = BatchReport(skipped=1, unit="clip")
        if told["problems"]:
            report.add_incomplete(clip.path, "; ".join(told["problems"]))
        return report, [folder / PAGE]
    digest = content_digest(clip.path)
    followed = follow_face(clip)
    windows = smooth_windows(followed, face_model)
    samples = cut_samples(clip, followed, windows, face_model, parser=create_parser(parser))
    if not any(samples):
        raise InputError(f"{clip.path}: no part of the face could be told in any frame")
    track = track_face(
        face_model,
        samples,
        windows,
        prior,
        times=followed.times,
        cutoff=cutoff,
        recognizer=recognizer,
        evidence=evidence,
    )
    if content_digest(clip.path) != digest:
        raise InputError(f"{clip.path}: the clip changed while it was fitted; run the command again")
    page = write_clip(folder, face_model, clip, track, samples, settings=settings, digest=digest, drawing=drawing)
    report = BatchReport(unit="clip")
    report.add_done(clip.path)
    if clip.problems:
        count = len(followed.times)
        left = f"{count} frame{'' if count == 1 else 's'}, {followed.times[-1]:.2f} s, could be fitted"
        report.add_incomplete(clip.path, "; ".join([*clip.problems, left]))
    return report, [page]
