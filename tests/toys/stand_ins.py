"""Synthetic files with the keys, shapes and number types of the licensed face models: a head-like shape, random bases.

Every maker takes the number of vertices; at the default size the files are as large as the real ones.
"""

import math

import numpy as np
import pytest
import scipy.io

BFM_VERTICES, BFM_TRIANGLES = 35_709, 70_789
FACEVERSE = {0: (25_000, 120, 64, 200), 1: (25_000, 150, 74, 251), 2: (28_632, 150, 52, 251), 3: (20_000, 150, 52, 251)}
FACEVERSE[4] = (20_000, 156, 177, 251)


def head(vertices, random):
    """A tube like a head, in model units: positions [V, 3] from top to bottom, triangles [T, 3] seen from outside."""
    columns = max(4, math.isqrt(vertices))
    row, column = np.divmod(np.arange(vertices), columns)
    polar = np.pi * (row + 1) / (row[-1] + 2)
    around = 2 * np.pi * column / columns
    x, y, z = np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)
    nose = 0.25 * np.exp(-((x / 0.15) ** 2) - ((y / 0.2) ** 2)) * (z > 0)
    mean = np.stack([0.75 * x, y, 0.8 * z + nose], -1) + random.normal(0, 1e-3, (vertices, 3))
    below = np.arange(vertices - columns)
    right = np.where(column[below] == columns - 1, below - columns + 1, below + 1)
    triangles = np.stack(
        [np.stack([below, below + columns, right], -1), np.stack([right, below + columns, right + columns], -1)], 1
    ).reshape(-1, 3)
    return mean, triangles[(triangles < vertices).all(-1)]


def basis(random, vertices, count, scale):
    deviations = scale / np.sqrt(1 + np.arange(count, dtype=np.float32))  # later coefficients matter less
    return random.standard_normal((3 * vertices, count), np.float32) * deviations[None].astype(np.float32)


def three_ddfa_v3(vertices=BFM_VERTICES, *, seed=0, dtype=np.float32):
    """The dictionary in 3DDFA-V3's face_model.npy."""
    random = np.random.default_rng(seed)
    mean, triangles = head(vertices, random)
    triangles = triangles[:BFM_TRIANGLES]

    def some(count):
        return random.integers(0, vertices, count)

    # One vertex of the outline per line, and others beside it; some of them on two lines.
    lines = np.array_split(random.permutation(vertices)[: max(33, vertices // 4)], 33)
    parallel = [list(map(int, line)) + [int(lines[(index + 1) % 33][0])] for index, line in enumerate(lines)]
    right, left = np.flatnonzero(mean[:, 0] < 0), np.flatnonzero(mean[:, 0] > 0)
    annotation = [random.choice(side, max(2, vertices // 60)) for side in (right, left, right, left)]
    annotation += [some(max(2, vertices // 40)) for _ in range(4)]
    return {
        "u": mean.reshape(-1, 1).astype(dtype),
        "id": basis(random, vertices, 80, 0.02).astype(dtype, copy=False),
        "exp": basis(random, vertices, 64, 0.02).astype(dtype, copy=False),
        "u_alb": random.uniform(60, 220, (3 * vertices, 1)).astype(dtype),
        "alb": basis(random, vertices, 80, 3.0).astype(dtype, copy=False),
        "point_buf": np.full((vertices, 8), len(triangles), np.int64),
        "tri": triangles.astype(np.int64),
        "uv_coords": np.concatenate([random.random((vertices, 2)), np.zeros((vertices, 1))], 1).astype(np.float32),
        "ldm68": some(68),
        "ldm106": some(106),
        "ldm134": some(134),
        "annotation": annotation,
        "annotation_tri": [triangles[: len(part)] for part in annotation],
        "parallel": parallel,
    }


def deep3d(vertices=BFM_VERTICES, *, seed=0):
    """The variables in Deep3DFaceRecon's BFM_model_front.mat: float64, indices from 1."""
    random = np.random.default_rng(seed)
    mean, triangles = head(vertices, random)
    triangles = triangles[:BFM_TRIANGLES]
    return {
        "meanshape": (mean + [[0.1, -0.2, 0.3]]).reshape(1, -1),
        "meantex": random.uniform(60, 220, (1, 3 * vertices)),
        "idBase": basis(random, vertices, 80, 0.02).astype(np.float64),
        "exBase": basis(random, vertices, 64, 0.02).astype(np.float64),
        "texBase": basis(random, vertices, 80, 3.0).astype(np.float64),
        "tri": (triangles + 1).astype(np.uint32),
        "point_buf": np.full((vertices, 8), len(triangles) + 1, np.uint32),
        "tri_mask2": (triangles[: 3 * len(triangles) // 4] + 1).astype(np.uint32),
        "keypoints": random.integers(1, vertices + 1, (1, 68)).astype(np.uint16),
        "frontmask2_idx": np.arange(1, 3 * vertices // 4)[:, None].astype(np.uint16),
        "skinmask": (random.random((1, vertices)) < 0.5).astype(np.uint8),
    }


def basel_2009(vertices=53_490, *, coefficients=199, seed=0):
    """The variables in Basel's 01_MorphableModel.mat: micrometres, indices from 1, corners run clockwise."""
    random = np.random.default_rng(seed)
    mean, triangles = head(vertices, random)
    return {
        "shapeMU": (mean * 1e5).astype(np.float32).reshape(-1, 1),
        "shapePC": basis(random, vertices, coefficients, 1e-3),
        "shapeEV": np.linspace(2e6, 1e6, coefficients, dtype=np.float32)[:, None],
        "texMU": random.uniform(60, 220, (3 * vertices, 1)).astype(np.float32),
        "texPC": basis(random, vertices, coefficients, 1e-2),
        "texEV": np.linspace(300, 100, coefficients, dtype=np.float32)[:, None],
        "tl": (triangles[:, ::-1] + 1).astype(np.float64),
        "segbin": np.zeros((vertices, 4), np.uint8),
    }


def basel_2017(vertices=28_588, *, coefficients=(199, 100, 199), seed=0):
    """The datasets in Basel's model2017-1_face12_nomouth.h5: millimetres, indices from 0, triangles as columns."""
    random = np.random.default_rng(seed)
    mean, triangles = head(vertices, random)
    means = [100 * mean.ravel(), random.normal(0, 0.1, 3 * vertices), random.uniform(0.2, 0.9, 3 * vertices)]
    content = {"shape/representer/cells": triangles.T.astype(np.uint32)}
    for name, start, count, spread in zip(
        ("shape", "expression", "color"), means, coefficients, (9, 9, 1), strict=True
    ):
        content[f"{name}/model/mean"] = start.astype(np.float32)
        content[f"{name}/model/pcaBasis"] = basis(random, vertices, count, 0.03)
        content[f"{name}/model/pcaVariance"] = np.linspace(4 * spread, spread, count, dtype=np.float32)
    return content


def faceverse(version, vertices=None, *, seed=0, upright=False):
    """The dictionary in FaceVerse's .npy of a version, in the frame and unit of the real files.

    With `upright`, v0 to v2 and v4 have y up, which the real files have not.
    """
    size, identity, expression, texture = FACEVERSE[version]
    vertices = vertices or size
    random = np.random.default_rng(seed)
    mean, triangles = head(vertices, random)
    bases = {
        "idBase": basis(random, vertices, identity, 0.02),
        "exBase": basis(random, vertices, 171 if version == 3 else expression, 0.02),
        "texBase": basis(random, vertices, texture, 3.0),
    }
    unit = 100 if version >= 3 else 1
    signs = np.array([1, 1, 1] if upright or version == 3 else [1, -1, -1])
    content = {
        "meanshape": (mean * unit * signs).astype(np.float32),
        "meantex": random.uniform(60, 220, (1, 3 * vertices)).astype(np.float32),
        **bases,
        "tri": triangles.astype(np.int64),
        "point_buf": np.full((vertices, 8), len(triangles), np.int64),
    }
    for key in ("idBase", "exBase"):
        content[key] = (content[key].reshape(vertices, 3, -1) * unit * signs[:, None]).reshape(3 * vertices, -1)
        content[key] = content[key].astype(np.float32)
    points = landmarks68(mean)
    mask = (random.random((1, vertices)) < 0.5).astype(np.float32)
    if version <= 2:
        content |= {"keypoints": np.delete(points, [60, 64])[None], "skinmask": mask}
    if version == 2:
        chosen = np.sort(random.permutation(vertices)[: vertices * 6_335 // 28_632])
        kept = np.full(vertices, -1)
        kept[chosen] = np.arange(len(chosen))
        smaller = kept[triangles]
        content |= {
            "select_id": chosen,
            "tri_select": np.concatenate([smaller[(smaller >= 0).all(-1)], [[0, 1, 2]]]),
            "keypoints_select": random.integers(0, len(chosen), (1, 66)),
            "skinmask_select": mask[:, chosen],
            "point_buf_select": np.zeros((len(chosen), 8), np.int64),
            "exp_name_list": [f"unit{index}" for index in range(expression)],
        }
    if version >= 3:
        mediapipe = random.integers(0, vertices, 478)
        from jaxface.core.landmarks import IBUG_68

        mediapipe[IBUG_68] = points
        content |= {"ver_inds": np.array([vertices] * 3), "tri_inds": np.array([len(triangles)] * 3)}
        content |= {"face_mask": mask[0]}
    if version == 3:
        content |= {
            "mediapipe_keypoints": mediapipe[None],
            "keypoints": random.integers(0, vertices, (1, 66)),
            "parsing": np.zeros((vertices, 3), np.float32),
            "uvtex": np.zeros((vertices, 3), np.float32),
            "exBase_52": content["exBase"][:, :52].copy(),
            "exp_name_list_52": [f"unit{index}" for index in range(52)],
            "skinmask": mask,
        }
    if version == 4:
        content |= {
            "keypoints_mediapipe": mediapipe,
            "keypoints": random.integers(0, vertices, 370),
            "keypoints_68": points,
            "keypoints_name_list": {"out_17": list(range(17)), "left_brow_5": [17, 18, 19, 20, 21]},
            "parsing": {"skin": mask[0], "hair": 1 - mask[0]},
        }
    return content


def landmarks68(mean):
    """Vertices of the front of `head` in the order of ibug's 68: brows above eyes above nose above mouth above chin."""
    heights = np.concatenate(
        [np.linspace(0.1, -0.6, 9), np.linspace(-0.5, 0.1, 8), np.full(10, 0.45), np.linspace(0.3, 0.05, 4)]
        + [np.full(5, -0.05), np.full(12, 0.3), np.full(20, -0.3)]
    )
    sides = np.concatenate(
        [np.linspace(-0.7, 0.7, 17), np.linspace(-0.4, 0.4, 10), np.zeros(4), np.linspace(-0.1, 0.1, 5)]
    )
    sides = np.concatenate([sides, np.linspace(-0.4, -0.15, 6), np.linspace(0.15, 0.4, 6), np.linspace(-0.2, 0.2, 20)])
    front = np.flatnonzero(mean[:, 2] > -0.05)
    distance = np.linalg.norm(mean[front][None, :, :2] - np.stack([sides, heights], -1)[:, None], axis=-1)
    return front[distance.argmin(1)]


def save_pickled(path, content):
    np.save(path, content, allow_pickle=True)
    return path


def save_matlab(path, content, *, compress=False):
    scipy.io.savemat(path, content, do_compression=compress)
    return path


def save_matlab_73(path, content, **options):
    """As MATLAB's save(..., "-v7.3"): HDF5 behind 512 bytes of MATLAB's, with rows and columns exchanged."""
    save_hdf5(path, {name: np.asarray(value).T for name, value in content.items()}, userblock_size=512, **options)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    return path


def save_hdf5(path, content, *, userblock_size=0, **options):
    h5py = pytest.importorskip("h5py", reason="HDF5 needs it; it is in the extra hdf5")
    with h5py.File(path, "w", userblock_size=userblock_size) as file:
        for name, value in content.items():
            file.create_dataset(name, data=value, **options)
    return path


def corruptions(data, count, seed=0):
    """Damaged copies of a file: truncated, bytes changed, a stretch overwritten, removed or repeated."""
    random = np.random.default_rng(seed)
    for index in range(count):
        damaged = bytearray(data)
        # Half of the damage near the start, where headers are.
        place = int(random.integers(0, min(len(data), 2000) if index % 2 else len(data)))
        length = int(random.integers(1, 40))
        match index % 5:
            case 0:
                del damaged[place:]
            case 1:
                for spot in random.integers(0, len(data), length):
                    damaged[spot] = random.integers(0, 256)
            case 2:
                damaged[place : place + length] = random.bytes(length)
            case 3:
                del damaged[place : place + length]
            case 4:
                damaged[place] ^= 1 << int(random.integers(0, 8))
        yield bytes(damaged)
