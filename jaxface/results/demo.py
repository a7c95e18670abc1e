"""The two portraits that installed packages carry, reconstructed by an encoder and by a fit, side by side.

    python -m jaxface.demo --out outputs/demo

writes OUT/index.html, OUT/side_by_side.png and, per portrait, what `jaxface.results.photo_files` lists. The portraits
are NASA's of Eileen Collins (scikit-image's `astronaut`) and the U.S. Navy's of Grace Hopper (matplotlib's sample):
both in the public domain.
"""

import html
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxface.core.errors import missing_extra
from jaxface.core.face_models import FaceModel
from jaxface.files import visualize
from jaxface.files.atomic import atomic_folder, atomic_write
from jaxface.files.images import read_image
from jaxface.files.progress import progress
from jaxface.fitting.descent import SolvedFace
from jaxface.fitting.solver import fit_solver
from jaxface.photos.face_crops import preprocess_photo
from jaxface.photos.prediction import predict_faces
from jaxface.results.drawing import DrawnFace, face_pictures, turned_views
from jaxface.results.gallery import PAGE
from jaxface.results.photo_files import write_photo
from jaxface.results.photos import reconstructions_of
from jaxface.results.reconstruction import OWN

PORTRAITS = {
    "astronaut": ("skimage", "data/astronaut.png", "scikit-image"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "matplotlib"),
}
"""Name -> the package that carries the picture, its path there, and what to install for it."""

TITLES = ("photo", "encoder", "fit", "shape", "turned, textured", "parts")
"""Of the columns of the side-by-side picture."""

CELL = 320
"""Side of one picture in it, in pixels."""


def portrait_paths() -> dict[str, Path]:
    """Name -> file of each portrait, inside the package that carries it.

    Raises:
        MissingDependencyError: when a package or its file is not there.
    """
    paths = {}
    for name, (package, file, distribution) in PORTRAITS.items():
        spec = importlib.util.find_spec(package)
        path = Path(spec.origin).parent / file if spec and spec.origin else None
        if path is None or not path.is_file():
            raise missing_extra("photo", f"the demo's portrait {name}", distribution)
        paths[name] = path
    return paths


def run_demo(checkpoint: str | os.PathLike | None, out: str | os.PathLike) -> Path:
    """Reconstructs the portraits with an encoder and fits them, and writes everything to `out`.

    Args:
        checkpoint: a training run's folder, or the folder `checkpoints` in it; None takes the encoder that comes with
            jaxface.
        out: folder for the results; made if need be.

    Returns:
        The page to open.

    Raises:
        InputError: when the checkpoint or `out` cannot be used.
        MissingDependencyError: when a portrait's package, or Flax, is not installed.
    """
    out = Path(out)
    predict, model = predict_faces(checkpoint)
    fit = fit_solver(model)
    rows, captions = [], []
    for name, path in progress(list(portrait_paths().items()), description="demo", unit="portrait"):
        photo = read_image(path)
        crops = preprocess_photo(photo, model)[:1]
        encoded = reconstructions_of([SolvedFace(vector) for vector in predict(photo, crops)], crops, label="Encoder")
        fitted = reconstructions_of(fit(photo, crops), crops, label="Fit")
        settings = {"face model": model.name, "encoder": str(checkpoint or OWN)}
        with atomic_folder(out / name) as folder:
            drawn, measures = write_photo(
                folder,
                model,
                photo,
                [*fitted, *encoded],
                photo_name=path.name,
                subtitle="fit and encoder",
                settings=settings,
            )
        rows.append(_row(model, *drawn))
        captions.append(f"{name}: {_caption('fit', measures[0])}; {_caption('encoder', measures[1])}")
    visualize.save_png(out / "side_by_side.png", visualize.grid(rows, titles=TITLES, captions=captions, cell=CELL))
    with atomic_write(out / PAGE) as page:
        page.write_text(_page(captions), encoding="utf-8")
    return out / PAGE


def _row(model: FaceModel, fitted: DrawnFace, encoded: DrawnFace) -> list[UInt8[np.ndarray, "S S 3"]]:
    pictures = face_pictures(fitted)
    textured, _ = turned_views(model, fitted, yaw=np.radians(30))
    return [
        pictures["Photo"],
        face_pictures(encoded)["Overlay"],
        pictures["Overlay"],
        pictures["Shape"],
        textured,
        pictures["Parts"],
    ]


def _caption(method: str, measures: dict) -> str:
    error = 100 * measures["landmark_error_interocular"]
    return f"{method} Part IoU {measures['part_iou']:.2f}, landmarks {error:.1f} % of the eye distance"


def _page(captions: Sequence[str]) -> str:
    items = "".join(
        f'<li><a href="{name}/{PAGE}">{name}</a>{html.escape(caption.removeprefix(name))}</li>'
        for name, caption in zip(PORTRAITS, captions, strict=True)
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>jaxface demo</title>
<style>
  body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 20px; color: #1d1e22; }}
  img {{ width: 100%; height: auto; border-radius: 12px; border: 1px solid #e3e1dd; }} a {{ color: #c4553b; }}
</style>
<h1>jaxface demo</h1>
<p>Two public-domain portraits: what the encoder saw at a glance, and what the fit made of it. The names lead to pages
on which the meshes turn under the mouse.</p>
<ul>{items}</ul>
<img src="side_by_side.png" alt="photo, encoder, fit, shape, turned view and parts of both portraits">
</html>
"""
