"""What a clip leaves on disk.

OUT/<clip>/index.html       offline page: the film, what trembles, links
OUT/<clip>/track.json       coefficients, camera and landmarks of every frame; see `track_record`
OUT/<clip>/animation.glb    the person's mesh; expressions as blendshapes, played with the head's motion
OUT/<clip>/overlay.mp4      frame, face drawn over it, shape, side by side (overlay.gif without PyAV)
OUT/<clip>/angles.png       pitch, yaw and roll, as fitted and smooth (with Matplotlib)
"""

import dataclasses
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.spatial.transform
from jaxtyping import Array, Float, UInt8
from PIL import Image
from tqdm import tqdm

from jaxface.clips.frames import Clip
from jaxface.clips.smoothing import jitter
from jaxface.clips.track import Track, frame_landmarks, jitter_of
from jaxface.core import cameras
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import LAST_COLUMNS, Coefficients
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face
from jaxface.core.units import CROP_SIZE
from jaxface.core.version import __version__
from jaxface.files import visualize
from jaxface.files.atomic import atomic_folder
from jaxface.files.inputs import content_digest
from jaxface.files.own_results import RECORDS
from jaxface.photos.alignment import Alignment
from jaxface.photos.samples import Sample
from jaxface.render import render_face
from jaxface.results.clip_film import Picture, write_film
from jaxface.results.drawing import USUAL_DRAWING, DrawingOptions, Reconstruction
from jaxface.results.person_files import write_animated_person
from jaxface.results.person_texture import delighted_face, merge_aligned, texture_and_trust
from jaxface.results.photo_files import projection_matrix

SCHEMA = "jaxface track 1"
"""What track.json says of itself."""

TRACK_FILE = RECORDS["clip"]
"""Coefficients, camera and landmarks of every frame."""

PANEL_HEIGHT = 400
"""Of the film, in pixels, at most."""

TEXTURE_FRAMES = 4
"""Key frames that the mesh's texture is taken from."""


def earlier_result(folder: Path, clip: Clip, settings: Mapping[str, str]) -> Mapping[str, Any] | None:
    """What track.json of a folder tells of its clip, if it was made from this one with these settings."""
    try:
        record = json.loads((folder / TRACK_FILE).read_text())
        told, made_with = record["clip"], (record["settings"], record["jaxface"])
        same = told["file"] == clip.path.name and made_with == (settings, __version__)
        return told if same and told["sha256"] == content_digest(clip.path) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_clip(
    folder: Path,
    model: FaceModel,
    clip: Clip,
    track: Track,
    samples: Sequence[Sample | None],
    *,
    settings: Mapping[str, str],
    digest: str | None = None,
    drawing: DrawingOptions = USUAL_DRAWING,
) -> Path:
    """Writes everything about a clip; the folder appears whole or not at all. Returns its page.

    Args:
        folder: where to.
        model: the face model.
        clip: read once more, for its frames.
        track: the solution.
        samples: the crops that it was fitted to.
        settings: told in the results.
        digest: of the clip's content, see `files.inputs.content_digest`.
        drawing: sizes of pictures and texture; the light is always taken off.
    """
    key_frames = [index for index in track.key_frames if samples[index] is not None][:: _step(track.key_frames)]
    with atomic_folder(folder) as partial:
        textures = []

        def film() -> Iterator[Picture]:
            frames = tqdm(
                clip.frames(), desc="draw", unit="frame", total=len(samples), dynamic_ncols=True, disable=None
            )
            for index, ((_, frame), _) in enumerate(zip(frames, samples, strict=False)):
                if frame is None:  # unreadable: the film stands still
                    continue
                if index in key_frames:
                    one = Reconstruction(track.vectors[index], samples[index], track.windows[index], f"Frame {index}")  # type: ignore[arg-type]
                    drawn = delighted_face(model, one, frame, options=drawing)
                    textures.append(texture_and_trust(model, drawn))
                yield track.times[index], _panels(model, track.vectors[index], track.windows[index], frame)

        film_file = write_film(partial / "overlay", film(), frame_rate=track.frame_rate, count=len(samples))
        rotation, translation = head_motion(track)
        write_animated_person(
            partial / "animation.glb",
            model,
            track.vectors,
            merge_aligned(textures),
            times=track.times,
            rotation=rotation,
            translation=translation,
        )
        record = track_record(model, clip, track, samples, settings=settings, digest=digest)
        (partial / TRACK_FILE).write_text(json.dumps(record, allow_nan=False) + "\n")
        plotted = _plot_angles(partial / "angles.png", track)
        (partial / "index.html").write_text(_page(clip, record, film_file, plotted), encoding="utf-8")
    return folder / "index.html"


def _step(key_frames: Sequence[int]) -> int:
    return -(-len(key_frames) // TEXTURE_FRAMES)


def track_record(
    model: FaceModel,
    clip: Clip,
    track: Track,
    samples: Sequence[Sample | None],
    *,
    settings: Mapping[str, str],
    digest: str | None = None,
) -> dict[str, Any]:
    """What track.json holds; schema "jaxface track 1".

    schema, jaxface (version), face_model, settings;
    clip {file, sha256 (see `files.inputs.content_digest`), frame_rate (on average), frames, height, width, problems
    (what could not be read, a message each)};
    identity, albedo: of the person; key_frames: what they come from; missing: frames without the face, bridged;
    jitter {before, after, detector}: root mean square second difference of the 68 landmarks in pixels of the 224 crop
    (landmarks_px) and of the angles (angles_degrees); seconds_per_frame: of the fit;
    frames: per frame time (seconds since the first frame, by the file's own clock), found, weight (what it counted in
    the smoothing), expression, angles (pitch, yaw, roll; radians) and translation (model units) relative to the frame's
    alignment {scale, offset_x, offset_y, size, photo_size}, light [3 channels][9 bands], matrix (3 x 4: (X, Y, Z, 1) of
    model space before the pose, 1 unit = 10 cm, to (x w, y w, w) in pixels of the frame, y down) and landmarks68
    [68][2] in pixels of the frame.
    """
    landmarks = frame_landmarks(model, track.vectors, track.windows)
    coefficients = Coefficients.from_vector(track.vectors, model)
    frames = []
    for index, window in enumerate(track.windows):
        one = jax.tree.map(lambda values, index=index: np.asarray(values)[index : index + 1], coefficients)
        camera = window.photo_camera(Camera().resized(window.size))
        frames.append(
            {
                "time": round(float(track.times[index]), 6),
                "found": bool(track.found[index]),
                "weight": round(float(track.weights[index]), 4),
                **{name: _rounded(getattr(one, name)[0]) for name in ("expression", "angles", "light", "translation")},
                "alignment": window.to_dict(),
                "matrix": projection_matrix(one, camera).tolist(),
                "landmarks68": _rounded(landmarks[index], 3),
            }
        )
    height, width = track.windows[0].photo_size
    return {
        "schema": SCHEMA,
        "jaxface": __version__,
        "clip": {
            "file": clip.path.name,
            "sha256": digest,
            "frame_rate": track.frame_rate,
            "frames": len(frames),
            "height": height,
            "width": width,
            "problems": list(clip.problems),
        },
        "face_model": model.name,
        "settings": dict(settings),
        "identity": _rounded(np.asarray(coefficients.identity)[0]),
        "albedo": _rounded(np.asarray(coefficients.albedo)[0]),
        "key_frames": list(track.key_frames),
        "missing": np.flatnonzero(~track.found).tolist(),
        "jitter": _without_nan(jitter_of(model, track) | {"detector": _detector_jitter(track, samples)}),
        "seconds_per_frame": round(track.seconds_per_frame, 3),
        "frames": frames,
    }


def _rounded(values: np.ndarray, digits: int = 6) -> list:
    return np.asarray(values, np.float64).round(digits).tolist()


def _without_nan(measures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    return {
        name: {key: round(value, 4) if np.isfinite(value) else None for key, value in values.items()}
        for name, values in measures.items()
    }


def _detector_jitter(track: Track, samples: Sequence[Sample | None]) -> dict[str, float]:
    """Of the landmarks that the fit was given, where three frames in a row have them."""
    scale = np.median([window.scale * CROP_SIZE / window.size for window in track.windows])
    points = np.full((len(samples), 68, 2), np.nan)
    for index, (sample, window) in enumerate(zip(samples, track.windows, strict=True)):
        if sample is not None:
            points[index] = scale * window.to_photo(sample["landmarks"])
    return {"landmarks_px": jitter(points, times=track.times)}


def head_motion(track: Track) -> tuple[Float[np.ndarray, "F 4"], Float[np.ndarray, "F 3"]]:
    """The head's pose in one frame of reference for the whole clip: that of its middle (median) window.

    A window that lies elsewhere, or is larger, stands for a head that is elsewhere, or farther away. The rotation is as
    each window shows it.

    Returns:
        Unit quaternions (x, y, z, w) without jumps of sign, and translations in model units; both to be applied to
        model space, y up, z towards the viewer.
    """
    size, camera = track.windows[0].size, Camera().resized(track.windows[0].size)
    angles, places = (track.vectors[:, LAST_COLUMNS[kind]].astype(np.float64) for kind in ("angles", "translation"))
    x, y, z = places.T
    depth = camera.distance - z
    crop = np.stack([camera.center[0] + camera.focal * x / depth, camera.center[1] - camera.focal * y / depth], axis=-1)
    origins = np.stack([window.to_photo(point) for window, point in zip(track.windows, crop, strict=True)])
    focals = np.array([camera.focal / window.scale for window in track.windows])
    focal, center = np.median(focals), np.median([window.to_photo(np.full(2, size / 2)) for window in track.windows], 0)
    depth = depth * focal / focals
    sideways = (origins - center) * [1, -1] * depth[:, None] / focal
    translation = np.column_stack([sideways, camera.distance - depth])
    matrices = np.asarray(cameras.rotation_matrix(angles.astype(np.float32)), np.float64)
    quaternions = scipy.spatial.transform.Rotation.from_matrix(matrices).as_quat()
    flips = np.cumprod(np.concatenate([[1.0], np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1.0, 1.0)]))
    return quaternions * flips[:, None], translation


def _panels(
    model: FaceModel, vector: Float[np.ndarray, "K"], window: Alignment, frame: UInt8[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame, the face in its colours over it, and its shape, side by side; sides are even, as codecs want them."""
    height, width = frame.shape[:2]
    factor = min(1.0, PANEL_HEIGHT / height)
    size = (max(2, 2 * round(factor * height / 2)), max(2, 2 * round(factor * width / 2)))
    small = np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.LANCZOS))
    scale = window.scale / (size[0] / height)
    shrunk = dataclasses.replace(window, scale=scale, photo_size=size)
    camera = shrunk.photo_camera(Camera().resized(window.size))
    colors, normals, seen = (np.asarray(array)[0] for array in _draw(model, vector[None], camera))
    overlay = visualize.overlay(small, np.clip(colors, 0, 1), seen)
    return np.concatenate([small, overlay, visualize.clay(normals, seen, background=small)], axis=1)


@jax.jit
def _draw(model: FaceModel, vector: Float[Array, "1 K"], camera: Camera):
    face = decode_face(model, Coefficients.from_vector(vector, model), camera)
    view = render_face(face, model.triangles, image_size=camera.image_size)
    return view.draw(face.colors), view.draw(face.normals), view.seen


def _plot_angles(path: Path, track: Track) -> bool:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    times, angles = track.times, LAST_COLUMNS["angles"]
    for column, (name, color) in enumerate((("pitch", "tab:blue"), ("yaw", "tab:orange"), ("roll", "tab:green"))):
        before, after = (np.degrees(vectors[:, angles])[:, column] for vectors in (track.raw, track.vectors))
        axes.plot(times, before, color=color, alpha=0.4, linewidth=1)
        axes.plot(times, after, color=color, label=name)
    axes.set(xlabel="seconds", ylabel="degrees")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path)
    return True


def _page(clip: Clip, record: Mapping[str, Any], film: str, plotted: bool) -> str:
    def cell(values: Mapping[str, float | None], key: str) -> str:
        value = values.get(key)
        return "<td></td>" if value is None else f"<td>{value:.3f}</td>"

    jitters, missing = record["jitter"], record["missing"]
    names = {"detector": "landmarks of the detector", "before": "fitted", "after": "smooth"}
    rows = "".join(
        f"<tr><th>{title}</th>{cell(jitters[name], 'landmarks_px')}{cell(jitters[name], 'angles_degrees')}</tr>"
        for name, title in names.items()
    )
    shown = (
        f'<video src="{film}" controls loop autoplay muted></video>'
        if film.endswith("mp4")
        else f'<img src="{film}" alt="the film">'
    )
    gaps = (
        f"{len(missing)} without the face, bridged: {', '.join(map(str, missing))}" if missing else "all with the face"
    )
    problems = "".join(f" <b>{html.escape(problem)}.</b>" for problem in record["clip"]["problems"])
    plot = '<img src="angles.png" alt="pitch, yaw and roll over time">' if plotted else ""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(clip.path.name)}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2em auto; padding: 0 1em; color: #222 }}
video, img {{ max-width: 100%; border-radius: 6px }} th {{ text-align: left; font-weight: normal }}
td, th {{ padding: 2px 18px 2px 0 }} td {{ font-variant-numeric: tabular-nums }} small {{ color: #666 }}
</style>
<h1>{html.escape(clip.path.name)}</h1>
<p>{len(record["frames"])} frames, {record["clip"]["frame_rate"]:.4g} per second on average; {gaps}.{problems}
Frame, face, shape:</p>
{shown}
<p><a href="animation.glb">animation.glb</a> &middot; <a href="track.json">track.json</a></p>
<table><tr><th>Jitter<td>landmarks, px of the 224 crop<td>angles, degrees</tr>{rows}</table>
<p><small>Root mean square second difference from frame to frame. Smooth curves do not lag behind.</small></p>
{plot}
</html>
"""
