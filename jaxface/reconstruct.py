"""Reconstructs the faces of photos with an encoder, by default the one that comes with jaxface.

python -m jaxface.reconstruct PHOTO...

Your own serve as well (--checkpoint outputs/quickstart), and the published ones of 3DDFA-V3 and Deep3D: --checkpoint
net_recon.pth --model face_model.npy.
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from jaxface.files.command_line import add_photo_arguments, print_summary, run
from jaxface.results.reconstruction import reconstruct_photos


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.reconstruct",
        description="Turns photos into 3D faces with an encoder, in one pass: textured meshes (OBJ, GLB), "
        "pictures, coefficients, and a page to look at in a browser, offline. jaxface.fit takes longer and fits "
        "closer.",
        epilog="example: python -m jaxface.reconstruct portrait.jpg --out results   -- Stop it "
        "with Ctrl-C; the same command goes on from there, and skips what is done. Exit code 0: all photos done; "
        "1: some failed; 2: nothing could be done.",
    )
    add_photo_arguments(parser, out="outputs/reconstruct")
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="folder of a training run (jaxface.train), or weights of 3DDFA-V3 or Deep3D (net_recon.pth, "
        ".safetensors); "
        "default: the encoder that comes with jaxface",
    )
    parser.add_argument(
        "--model",
        help="face model that the encoder was trained with: a name or a file, such as face_model.npy (default: the one "
        "that the encoder names)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    return print_summary(
        *reconstruct_photos(
            options.photos,
            options.out,
            checkpoint=options.checkpoint,
            model=options.model,
            faces=options.faces,
            overwrite=options.overwrite,
        )
    )


def console() -> NoReturn:
    """The command as a program: `jaxface reconstruct` and `python -m jaxface.reconstruct`."""
    run(main, keep_programs=True, wait_for_threads=False)


if __name__ == "__main__":
    console()
