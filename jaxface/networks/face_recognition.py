"""Face recognition networks, whose features the perceptual loss compares: dlib's ResNet-29 and ArcFace's iresnets.

    recognizer = load_recognizer("dlib")  # or the path of an ArcFace checkpoint
    vectors = recognition_features(images, landmarks, recognizer)  # of one person: nearer than 0.6 to each other

dlib's network is in the public domain (CC0, King 2017) and comes with `pip install 'jaxface[perceptual]'`. ArcFace
(Deng et al. 2019) is the choice of 3DDFA-V3 and Deep3D; its checkpoints are their makers'.
"""

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.core.errors import InputError, missing_extra, needs_extra
from jaxface.losses.perceptual import ARCFACE_CHIP, DLIB_CHIP, ChipTemplate, align_chips

if TYPE_CHECKING:
    from flax import linen as nn

_DLIB_PACKAGE, _DLIB_FILE = "face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FaceRecognizer:
    """A recognition network with its weights: recognizer(chips [B, S, S, 3] in [0, 1]) -> features [B, F].

    It is a pytree: given to a compiled function as an argument, the weights do not become part of the program.

    Attributes:
        variables: the network's.
        network: from chips to features.
        chip: how the network's input is cut.
    """

    variables: Any
    network: "nn.Module" = dataclasses.field(metadata={"static": True})
    chip: ChipTemplate = dataclasses.field(metadata={"static": True})

    def __call__(self, chips: Float[Array, "B S S 3"]) -> Float[Array, "B F"]:
        """The features of aligned chips, see `losses.align_chips`."""
        return jnp.asarray(self.network.apply(self.variables, chips))


def recognition_features(
    image: Float[Array | np.ndarray, "B H W 3"],
    landmarks: Float[Array | np.ndarray, "B 68 2"],
    recognizer: FaceRecognizer,
    *,
    weights: Float[Array | np.ndarray, "B 68"] | None = None,
) -> Float[Array, "B F"]:
    """What a network tells a person by. Differentiable in the image.

    Args:
        image: colours in [0, 1].
        landmarks: ibug-68 points in pixels of the image, y down.
        recognizer: the network.
        weights: 0 for a landmark that is not known.

    Returns:
        dlib: 128 numbers; two pictures of one person are mostly nearer than 0.6 to each other. ArcFace: 512; compare
        their angles.
    """
    return recognizer(align_chips(image, landmarks, chip=recognizer.chip, weights=weights))


def load_recognizer(name_or_path: str | os.PathLike = "dlib") -> FaceRecognizer:
    """Loads a recognition network.

    Args:
        name_or_path: "dlib": the one that the extra `perceptual` brings; or a file: dlib's (.dat), a PyTorch checkpoint
            of ArcFace's iresnet18 to iresnet100, or what `jaxface.convert` makes of either (.safetensors).

    Raises:
        MissingDependencyError: for "dlib" when the extra is not installed.
        InputError: when a file cannot be used.
    """
    with needs_extra("perceptual", "a face recognition network"):
        from jaxface.networks.dlib_resnet import DlibResNet, dlib_from_arrays
        from jaxface.networks.iresnet import iresnet_from_torch
        from jaxface.networks.weight_files import read_state

    path = dlib_path() if str(name_or_path) == "dlib" else Path(name_or_path)
    state = read_state(path)
    try:
        if any(name.startswith("params.") for name in state):
            return FaceRecognizer(dlib_from_arrays(state), DlibResNet(), DLIB_CHIP)
        network, variables = iresnet_from_torch(state)
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
    return FaceRecognizer(variables, network, ARCFACE_CHIP)


def dlib_path() -> Path:
    """Where the extra `perceptual` put dlib's network.

    Raises:
        MissingDependencyError: when it is not installed.
    """
    spec = importlib.util.find_spec(_DLIB_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / _DLIB_FILE).is_file():
            return path
    raise missing_extra("perceptual", "face recognition", "dlib's network")
