"""Builds jaxface/networks/assets/mediapipe_faces.safetensors from MediaPipe 0.10.14. See README.md in this folder.

pip download mediapipe==0.10.14 --no-deps
python third_party/mediapipe/build.py mediapipe-0.10.14-*.whl
"""

import argparse
import hashlib
import itertools
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tflite import Operator, read_from, read_tflite

OUTPUT = Path(__file__).parents[2] / "jaxface" / "networks" / "assets" / "mediapipe_faces.safetensors"

FILES = {
    "full_range": (
        "modules/face_detection/face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    ),
    "short_range": (
        "modules/face_detection/face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    "mesh": (
        "modules/face_landmark/face_landmark_with_attention.tflite",
        "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4",
    ),
}
"""Network -> its file in the package, and the file's SHA-256."""

REGIONS = {"lips": (61, 291), "left_eye": (33, 133), "right_eye": (362, 263)}
"""What the mesh network looks at a second time, in its order -> the points whose line it turns level."""

ABOUT = {
    "about": "Weights of MediaPipe 0.10.14: face_detection_full_range_sparse, face_detection_short_range, "
    "face_landmark_with_attention. Apache-2.0, Copyright The MediaPipe Authors. Changed: sparse kernels filled with "
    "zeros, axes reordered, like kernels of the mesh's branches stacked."
}


def named_layers(operators: list[Operator]) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The layers in the order of their use, as (kind, arrays by name).

    After its first operators of its own the mesh network branches: three, then five layers of a kind follow one
    another, one for each branch. They are stacked along a new first axis, but for the last, whose sizes differ.
    """
    branches = next((i for i, operator in enumerate(operators) if operator.kind == "custom"), len(operators))
    layers = [named_arrays(operator) for operator in operators[:branches]]
    rest = [operator for operator in operators[branches:] if operator.kind != "custom"]
    for _, run in itertools.groupby(rest, key=lambda operator: (operator.kind, [w.shape for w in operator.weights])):
        kinds, arrays = zip(*map(named_arrays, run), strict=True)
        stack = np.stack if len(arrays) > 1 else lambda single: single[0]
        layers.append((kinds[0], {name: stack([one[name] for one in arrays]) for name in arrays[0]}))
    return layers


def named_arrays(operator: Operator) -> tuple[str, dict[str, np.ndarray]]:
    """The kind of an operator and its arrays.

    Kernels become [height, width, in, out], those of 1 x 1 [in, out], depthwise ones [height, width, channels].
    """
    if operator.kind == "slope":
        return "slope", {"slope": operator.weights[0].reshape(-1)}
    kernel, bias = operator.weights
    if operator.kind == "depthwise":
        return "depthwise", {"kernel": kernel[0], "bias": bias}
    kernel = kernel.transpose(1, 2, 3, 0)
    return "convolution", {"kernel": kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel, "bias": bias}


def region_points(operators: list[Operator]) -> dict[str, np.ndarray]:
    """The mesh points of each region, as the network's own operators list them."""
    found = [operator.options for operator in operators if operator.options.get("name") == "Landmarks2TransformMatrix"]
    for options, ends in zip(found, REGIONS.values(), strict=True):
        assert (options["left_rotation_idx"], options["right_rotation_idx"]) == ends, options
        assert (options["output_width"], options["output_height"]) == (16, 16), options
        assert (options["scale_x"], options["scale_y"], options["target_rotation_radians"]) == (1.5, 1.5, 0), options
    return {region: np.array(options["subset_idxs"], np.int32) for region, options in zip(REGIONS, found, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Take MediaPipe's face networks out of its wheel.")
    parser.add_argument("source", type=Path, help="the wheel of mediapipe 0.10.14, or the package's folder")
    parser.add_argument("--output", default=OUTPUT, type=Path)
    arguments = parser.parse_args()
    tensors = {}
    for network, (name, digest) in FILES.items():
        content = read_from(arguments.source, name)
        assert hashlib.sha256(content).hexdigest() == digest, f"{name} is not that of MediaPipe 0.10.14"
        operators = read_tflite(content)
        for index, (kind, arrays) in enumerate(named_layers(operators)):
            tensors |= {f"{network}.{index:03}.{kind}.{part}": array for part, array in arrays.items()}
        if network == "mesh":
            tensors |= {f"points.{region}": points for region, points in region_points(operators).items()}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, arguments.output, ABOUT)
    numbers = sum(array.size for array in tensors.values())
    print(f"{arguments.output}: {numbers} numbers, {arguments.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
