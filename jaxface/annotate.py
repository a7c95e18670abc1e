"""Finds the parts and landmarks of a face model from parsed pictures of it.

python -m jaxface.annotate MODEL --out parts.npz
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxface.annotation.annotator import VIEWS, annotate_file, render_views
from jaxface.core.errors import InputError
from jaxface.core.parts import PARSER_LABELS
from jaxface.files.command_line import keep_compiled, run
from jaxface.photos.parsing import PARSERS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.annotate",
        description="Finds the eight parts and 68 landmarks of a face model: draws random faces of it, has a face "
        "parser label the pictures, and lets every vertex vote. Writes vertex indices (OUT), a picture of them (OUT "
        "with .png) and figures (OUT with .json). Look at the picture, mend by hand with --edit.",
        epilog="example: python -m jaxface.annotate FaceXModel/ --out parts.npz   "
        "-- with a parser of your own: (1) --render-only pictures/  (2) label pictures/view_*.png into labels/ under "
        "the same names  (3) --renders pictures/ --label-folder labels/ --labels bisenet --out parts.npz. "
        "Exit code 0: done; 2: nothing could be done.",
    )
    parser.add_argument("model", metavar="MODEL", help="face model: a name or a file")
    parser.add_argument("--out", type=Path, help="file for the annotation, .npz")
    parser.add_argument("--views", type=_count, default=VIEWS, help=f"number of pictures (default: {VIEWS})")
    parser.add_argument("--seed", type=int, default=0, help="of the random faces (default: 0)")
    parser.add_argument("--parser", choices=PARSERS, default="mediapipe", help="face parser (default: mediapipe)")
    parser.add_argument("--parser-weights", metavar="FILE", help="PyTorch checkpoint of the parser dml_csr")
    parser.add_argument("--render-only", type=Path, metavar="DIR", help="write the pictures for another parser; stop")
    parser.add_argument("--renders", type=Path, metavar="DIR", help="the folder that --render-only wrote")
    parser.add_argument("--label-folder", metavar="DIR", help="label maps of those pictures, under the same names")
    parser.add_argument("--labels", choices=tuple(PARSER_LABELS), help="what the values of those label maps mean")
    parser.add_argument("--edit", type=Path, metavar="EDITS.npz", help="edits by hand that are merged in")
    parser.add_argument(
        "--save-model", type=Path, metavar="FILE.npz", help="write the face model with its annotation as well"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 9999:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 9999")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.out is None) == (options.render_only is None):
        parser.error("give either --out FILE.npz or --render-only DIR")
    if (options.renders is None) != (options.label_folder is None):
        parser.error("--renders DIR and --label-folder DIR belong together")
    for path in (options.out, options.save_model):
        if path is not None and path.suffix != ".npz":
            raise InputError(f"{path}: the result is an .npz file; let its name end so")
    keep_compiled()
    if options.render_only is not None:
        count = render_views(options.model, options.render_only, views=options.views, seed=options.seed)
        print(f"{count} pictures in {options.render_only}")
        return 0
    report = annotate_file(
        options.model,
        options.out,
        views=options.views,
        seed=options.seed,
        parser=options.parser,
        parser_weights=options.parser_weights,
        labels=options.labels,
        label_folder=options.label_folder,
        renders=options.renders,
        edits=options.edit,
        save_model=options.save_model,
    )
    _print_report(report)
    print(f"look at {options.out.with_suffix('.png')}")
    return 0


def _print_report(report: Mapping[str, Any]) -> None:
    for part, values in report["parts"].items():
        overlap = report["iou_with_the_models_own_parts"].get(part)
        known = f", IoU with the model's own {overlap['area']:.3f} of the area" if overlap else ""
        print(f"{part:11} {values['vertices']:6} vertices, {values['agreement']:.0%} of the votes{known}")
    if report["missing_parts"]:
        print(f"not found: {', '.join(report['missing_parts'])}; add them by hand (--edit)")


def console() -> NoReturn:
    """The command as a program: `jaxface annotate` and `python -m jaxface.annotate`."""
    run(main)


if __name__ == "__main__":
    console()
