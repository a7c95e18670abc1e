"""Converts face models and network weights to jaxface's own files, and shows what a face model holds.

python -m jaxface.convert IN OUT
python -m jaxface.convert --info FILE
"""

import os
from pathlib import Path

import numpy as np

from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.units import MM_PER_UNIT
from jaxface.files.containers import SUFFIXES
from jaxface.models import native
from jaxface.models.annotations import with_annotation
from jaxface.models.registry import load_face_model

_SAMPLES = 16

_CLOSE_MM = 0.01


def convert_face_model(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    parts: str | os.PathLike[str] | None = None,
    basis_type: str = "float32",
) -> str:
    """Writes a face model in jaxface's own format.

    Args:
        source: a face model that `load_face_model` reads.
        out: the file to write, .npz or .safetensors.
        parts: an .npz with vertex indices per part (key: the part's name, or "part/" and the name), perhaps also
            landmarks/<scheme> and contours/<scheme>, as `jaxface.annotate` writes it. They take the place of the
            model's own of the same name.
        basis_type: what the bases are stored as, one of `native.BASIS_TYPES`.

    Returns:
        A summary to print.

    Raises:
        InputError: when a file cannot be read or written.
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise InputError(f"cannot write {out}: the name of a face model ends in {' or '.join(SUFFIXES)}")
    model = load_face_model(source)
    if parts is not None:
        model = with_annotation(model, parts)
    native.write_face_model(model, out, basis_type=basis_type)
    written = native.read_face_model(out)
    largest, mean = shape_error_mm(model, written)
    advice = "; --dtype int16 is closer in the same space" if largest > _CLOSE_MM and basis_type != "int16" else ""
    return (
        f"{source}: {model.name}, {len(model.mean_shape):,} vertices, bases as {basis_type}\n"
        f"largest error of a vertex over {_SAMPLES} random faces: {largest:.2g} mm (mean {mean:.2g} mm){advice}\n"
        f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)"
    )


def shape_error_mm(before: FaceModel, after: FaceModel, *, seed: int = 0) -> tuple[float, float]:
    """Largest and mean distance in mm between the vertices of random faces of two versions of a face model.

    Args:
        before: the face model.
        after: the same with rounded bases.
        seed: of the random coefficients, which are standard normal.
    """
    random = np.random.default_rng(seed)
    difference = np.zeros((_SAMPLES, *np.shape(before.mean_shape)))
    for name in ("identity_basis", "expression_basis"):
        bases = [np.asarray(getattr(model, name)) for model in (before, after)]
        coefficients = random.standard_normal((_SAMPLES, bases[0].shape[-1])).astype(np.float32)
        difference += np.einsum("nk,vck->nvc", coefficients, bases[1] - bases[0], optimize=True)
    distances = np.linalg.norm(difference, axis=-1) * MM_PER_UNIT
    return float(distances.max()), float(distances.mean())


def show_face_model(source: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> str:
    """Describes a face model and draws it on a sheet of pictures.

    Args:
        source: a face model that `load_face_model` reads.
        out: the PNG to write; by default `<name of the source>_info.png` beside the source.

    Returns:
        A table to print.

    Raises:
        InputError: when the file cannot be read or the picture not be written.
    """
    from jaxface.files.visualize import save_png
    from jaxface.models.sheet import contact_sheet, describe

    model = load_face_model(source)
    path = Path(source)
    picture = Path(out) if out is not None else path.with_name(f"{path.stem}_info.png")
    save_png(picture, contact_sheet(model))
    return f"{describe(model)}\nsheet          {picture}"
