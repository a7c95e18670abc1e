"""Encoders as ONNX files, which browsers, phones and other programs run without Python.

What goes in and comes out, float32 all of it, for any number N of pictures at once:

    image           [N, S, S, 3] RGB in [0, 1]: aligned crops of S x S pixels, as the encoder was trained with
    coefficients    [N, K], as `Coefficients.from_vector` takes them

and of a `PeopleNetwork` also the fields of its `PeopleAnswer`:

    log_spread      [N, K]
    class_logits    [N, S / 2, S / 2, L]
    points          [N, P, 2]
    whitening       [N, P, 3]
    visibility      [N, P]

The file's metadata are texts:

    format          FORMAT
    face_model      the name of the face model, "" where the encoder's file names none
    image_size      S
    coefficients    the groups in the order of the vector and their sizes, as JSON: {"identity": 80, ...}
    classes         what class_logits tell of, as JSON: a list
    surface         the vertices of the face model that the points after ibug's 68 lie at, as JSON: a list

jax2onnx translates JAX's operations one by one. The older way, jax2tf and tf2onnx, is closed: jax2tf writes XLA's
programs alone today, which tf2onnx cannot read; Keras went over to jax2onnx for that (keras-team/keras, 22443).
"""

import dataclasses
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxface.core import parts
from jaxface.core.coefficients import LIGHT_BANDS, Coefficients
from jaxface.core.errors import InputError, needs_extra
from jaxface.core.surface_points import spread_points
from jaxface.files.atomic import atomic_write
from jaxface.models import load_face_model
from jaxface.networks.checkpoints import check_shapes, read_encoder
from jaxface.networks.encoder import PEOPLE_NETWORKS, create_encoder
from jaxface.networks.layers import DepthwiseConvolution, grouped_convolution
from jaxface.networks.people_answer import PeopleAnswer
from jaxface.networks.people_weights import is_people_file, read_people_file
from jaxface.networks.weights import EncoderWeights, variable_shapes

FORMAT = "jaxface encoder 1"
"""What the file says of itself."""

OUTPUTS = ("coefficients", "log_spread", "class_logits", "points", "whitening", "visibility")
"""Names of what comes out; of most encoders the first alone."""

OPSET = 17
"""The version of ONNX's operations: of 2022, so that runtimes that are not new read it too."""

TOLERANCE = 1e-4
"""How far onnxruntime's numbers may be from JAX's, as a share of the largest of each output."""

_Answer = Callable[[Float[Array, "N S S 3"]], tuple[Array, ...]]


def write_onnx(path: str | Path, out: str | Path) -> str:
    """Writes an encoder as ONNX, once onnxruntime has given the same numbers as JAX for two random pictures.

    Everything is computed in float32, whatever the training computed in.

    Args:
        path: of the encoder, as for `checkpoints.read_encoder`.
        out: "X.onnx".

    Returns:
        A summary to print.

    Raises:
        InputError: when the encoder cannot be read or translated, its numbers differ, or `out` cannot be written.
        MissingDependencyError: without the extra `onnx`.
    """
    with needs_extra("onnx", "an ONNX file"):
        for package in ("jax2onnx", "onnx_ir", "onnxruntime"):  # before any work
            importlib.import_module(package)
    weights = read_encoder(path)
    if not weights.head_sizes:
        raise InputError(f"{path}: holds a backbone without heads; ONNX files are written of whole encoders")
    settings = {key: value for key, value in weights.config["encoder"].items() if key not in ("initial", "dtype")}
    check_shapes(weights, variable_shapes(settings, weights.head_sizes), path)
    encoder = create_encoder(settings.pop("name"), weights.head_sizes, **settings)

    def answer(image: Float[Array, "N S S 3"]) -> tuple[Array, ...]:
        found = cast(PeopleAnswer | Array, encoder.apply(weights.variables, image, train=False))
        return (*found[:-1], *found.points) if isinstance(found, PeopleAnswer) else (found,)

    size = int(weights.config["image_size"])
    content = _translated(path, answer, size, _metadata(path, weights))
    difference = _largest_difference(path, answer, size, content)
    with atomic_write(out) as partial:
        partial.write_bytes(content)
    shapes = jax.eval_shape(answer, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    told = [f"{name} [N, {', '.join(map(str, x.shape[1:]))}]" for name, x in zip(OUTPUTS, shapes, strict=False)]
    return (
        f"{path}: {weights.told()}\nimage [N, {size}, {size}, 3] -> {', '.join(told)}\n"
        f"onnxruntime's numbers differ from JAX's by at most {difference:.1e} of the largest\n"
        f"written: {out} ({len(content) / 1e6:.1f} MB)"
    )


def _metadata(path: str | Path, weights: EncoderWeights) -> dict[str, str]:
    face_model = str(weights.config["face_model"])
    groups = [field.name for field in dataclasses.fields(Coefficients)]
    sizes = (*weights.head_sizes, 3, 3 * LIGHT_BANDS, 3)
    lists: dict[str, Any] = {"coefficients": dict(zip(groups, sizes, strict=True))}
    if weights.config["encoder"]["name"] in PEOPLE_NETWORKS:
        own = is_people_file(path)
        surface = read_people_file(path)[1] if own else spread_points(load_face_model(face_model))
        lists |= {"classes": parts.CLASSES, "surface": surface.tolist()}
    texts = {"format": FORMAT, "face_model": face_model, "image_size": str(weights.config["image_size"])}
    return texts | {key: json.dumps(value) for key, value in lists.items()}


def _translated(path: str | Path, answer: _Answer, size: int, metadata: dict[str, str]) -> bytes:
    """The ONNX file of a network."""
    import onnx_ir
    from jax2onnx import to_onnx

    def with_grouped_convolutions(image: Float[Array, "N S S 3"]) -> tuple[Array, ...]:
        with nn.intercept_methods(_as_grouped_convolution):
            return answer(image)

    try:
        model = to_onnx(
            with_grouped_convolutions, [("N", size, size, 3)], model_name="jaxface", opset=OPSET, return_mode="ir"
        )
    except NotImplementedError as error:
        raise InputError(f"{path}: jax2onnx does not translate one of the encoder's operations ({error})") from error
    model.graph.inputs[0].name = "image"
    for output, name in zip(model.graph.outputs, OUTPUTS, strict=False):
        output.name = name
    # The shapes that it notes of values on the way are those from before it moved transpositions: onnxruntime warns.
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None
    model.metadata_props.update(metadata)
    return onnx_ir.to_proto(model).SerializeToString()


def _as_grouped_convolution(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    """A depthwise convolution as one operation: what `DepthwiseConvolution` writes out is for XLA on CPUs."""
    if not isinstance(context.module, DepthwiseConvolution) or context.method_name != "__call__":
        return call(*args, **kwargs)
    return grouped_convolution(args[0], context.module.get_variable("params", "kernel"), stride=context.module.stride)


def _largest_difference(path: str | Path, answer: _Answer, size: int, content: bytes) -> float:
    """Between onnxruntime and JAX, as a share of the largest number of an output; too large a one is an error."""
    import onnxruntime

    images = np.random.default_rng(0).random((2, size, size, 3), np.float32)
    with jax.default_matmul_precision("highest"):  # GPUs and TPUs round otherwise
        expected = [np.asarray(x) for x in jax.jit(answer)(images)]
    found = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"image": images})
    worst = 0.0
    for name, x, y in zip(OUTPUTS, found, expected, strict=False):
        difference = float(np.abs(x - y).max() / max(np.abs(y).max(), np.finfo(np.float32).tiny))
        if not difference <= TOLERANCE:  # nor not a number
            raise InputError(
                f"{path}: no ONNX file is written, for its {name} would differ from JAX's by {difference:.1e} of the "
                f"largest; {TOLERANCE:.0e} is allowed"
            )
        worst = max(worst, difference)
    return worst
