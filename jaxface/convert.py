"""Converts face models and network weights to jaxface's own files, and shows what a face model holds.

python -m jaxface.convert IN OUT
python -m jaxface.convert --info FILE
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxface.command_line import run
from jaxface.errors import InputError
from jaxface.face_model import FaceModel
from jaxface.formats import load_with_names, native
from jaxface.formats.annotations import with_annotation
from jaxface.formats.containers import SUFFIXES

_SAMPLES = 16
_CLOSE_MM = 0.01
_MILLIMETRES = 100.0  # per model unit


def convert_face_model(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    parts: str | os.PathLike | None = None,
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
    model, names = load_with_names(source)
    if parts is not None:
        model = with_annotation(model, parts)
    native.write_face_model(model, out, expression_names=names, basis_type=basis_type)
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
    distances = np.linalg.norm(difference, axis=-1) * _MILLIMETRES
    return float(distances.max()), float(distances.mean())


def show_face_model(source: str | os.PathLike, out: str | os.PathLike | None = None) -> str:
    """Describes a face model and draws it on a sheet of pictures.

    Args:
        source: a face model that `load_face_model` reads.
        out: the PNG to write; by default `<name of the source>_info.png` beside the source.

    Returns:
        A table to print.

    Raises:
        InputError: when the file cannot be read or the picture not be written.
    """
    from jaxface.model_sheet import contact_sheet, describe
    from jaxface.visualize import save_png

    model, names = load_with_names(source)
    path = Path(source)
    picture = Path(out) if out is not None else path.with_name(f"{path.stem}_info.png")
    save_png(picture, contact_sheet(model, expression_names=names))
    return f"{describe(model, expression_names=names)}\nsheet          {picture}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.convert",
        description="Converts face models (3DDFA-V3, Deep3D, FaceVerse, FLAME, ICT-FaceKit) to jaxface's own .npz or "
        ".safetensors, and weights of networks from PyTorch's files. With --info, shows what a face model holds.",
        epilog="examples: python -m jaxface.convert face_model.npy bfm.npz   |   python -m jaxface.convert "
        "net_recon.pth net_recon.safetensors   |   python -m jaxface.convert --info anny --out anny.png   -- "
        "Exit code 0: done; 2: not.",
    )
    parser.add_argument("source", metavar="IN", help="a face model (file, folder or name) or a file of weights")
    parser.add_argument(
        "target", metavar="OUT", nargs="?", help="file to write: .npz, .safetensors; for weights a folder"
    )
    parser.add_argument("--info", action="store_true", help="print a table of the face model IN and draw it")
    parser.add_argument("--out", metavar="PNG", help="where --info draws (default: beside the file)")
    parser.add_argument(
        "--parts", metavar="FILE", help="parts.npz of jaxface.annotate, to be merged into the face model"
    )
    parser.add_argument(
        "--dtype",
        choices=native.BASIS_TYPES,
        default="float32",
        help="what bases are stored as; the summary tells the error (default: float32)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.info:
        if options.target or options.parts:
            parser.error("--info takes one file and no --parts; name the picture with --out PNG")
        print(show_face_model(options.source, options.out))
        return 0
    if not options.target or options.out:
        parser.error("give IN and OUT (--out belongs to --info)")
    from jaxface.formats import weights

    if weights.is_weights(options.source):
        if options.parts:
            parser.error("--parts belongs to face models, and IN holds the weights of a network")
        print(weights.convert_weights(options.source, options.target))
    else:
        print(convert_face_model(options.source, options.target, parts=options.parts, basis_type=options.dtype))
    return 0


if __name__ == "__main__":
    run(main)
