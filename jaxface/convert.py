"""Converts face models and network weights to jaxface's own files and to ONNX, and shows what a face model holds.

python -m jaxface.convert IN OUT
python -m jaxface.convert --info FILE
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from jaxface.core.errors import needs_extra
from jaxface.files.command_line import check_platforms, run
from jaxface.models import native
from jaxface.models.conversion import convert_face_model, show_face_model
from jaxface.networks.weight_files import is_weights


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.convert",
        description="Converts face models (3DDFA-V3, Deep3D, Basel, FaceVerse, FLAME, ICT-FaceKit) to jaxface's own "
        ".npz or .safetensors, weights of networks from PyTorch's files, and encoders to ONNX. With --info, shows what "
        "a face model holds.",
        epilog="examples: python -m jaxface.convert face_model.npy bfm.npz   |   python -m jaxface.convert "
        "net_recon.pth net_recon.safetensors   |   python -m jaxface.convert outputs/quickstart quickstart.onnx   |   "
        "python -m jaxface.convert --info anny --out anny.png   -- Exit code 0: done; 2: not.",
    )
    parser.add_argument("source", metavar="IN", help="a face model (file, folder or name), or a network's weights")
    parser.add_argument(
        "target", metavar="OUT", nargs="?", help="file to write: .npz, .safetensors, .onnx; for weights a folder"
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
    check_platforms()
    if options.info:
        if options.target or options.parts:
            parser.error("--info takes one file and no --parts; name the picture with --out PNG")
        print(show_face_model(options.source, options.out))
        return 0
    if not options.target or options.out:
        parser.error("give IN and OUT (--out belongs to --info)")
    if is_weights(options.source) or options.target.endswith(".onnx"):
        if options.parts:
            parser.error("--parts belongs to face models, and IN holds the weights of a network")
        with needs_extra("train", "the conversion of a network's weights"):
            from jaxface.networks.conversion import convert_weights
        print(convert_weights(options.source, options.target))
    else:
        print(convert_face_model(options.source, options.target, parts=options.parts, basis_type=options.dtype))
    return 0


def console() -> NoReturn:
    """The command as a program: `jaxface convert` and `python -m jaxface.convert`."""
    run(main)


if __name__ == "__main__":
    console()
