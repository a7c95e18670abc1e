"""The control mesh at rest: the neutral head that identities and expressions move."""

import dataclasses

import mouth
import numpy as np
from geometry import (
    UNITS,
    Control,
    build_control,
    close_lips,
    neutral,
    real_people,
    rest_offset,
    sphere_bulges,
)
from people_files import MakeHuman
from source import Source

FLIP = np.array([-1.0, 1.0, 1.0])


def control_mesh(source: Source, files: MakeHuman) -> tuple[Control, np.ndarray]:
    """The control mesh, and the base mesh's vertices [N, 3] at the mean of real people."""
    points = neutral(source)
    table, groups = source.mirror(len(points)), source.base()[2]
    pieces = [mouth.teeth(files, points, table, groups), mouth.tongue(files, points, table)]
    return build_control(source, points, pieces), points + real_people(source)


def resting(source: Source, files: MakeHuman) -> tuple[Control, np.ndarray]:
    """The control mesh and its neutral shape [C, 3]."""
    control, points = control_mesh(source, files)
    upper, lower = points[control.kept[control.lids[0].T]]
    control = dataclasses.replace(control, bulges=sphere_bulges(upper, lower))
    rest = control.assemble(points)
    rest = rest + rest_offset(control, rest)
    jaw = control.assemble(source.target(f"{UNITS}jawOpen.target", len(points)))
    rest = rest - 0.035 * jaw  # the source leaves the lips a millimetre apart
    rest = rest + close_lips(control, rest)
    return control, (rest + rest[control.mirror] * FLIP) / 2


def face_mask(control: Control) -> np.ndarray:
    """The control vertices [C] that people are aligned and told apart by: all but the inside of the mouth."""
    return ~(control.regions["cavity"] | control.regions["mouth"])
