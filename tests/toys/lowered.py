"""Programs for accelerators without one: lowered for "cuda", their loops counted, and run on the CPU."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import export
from jaxlib.mlir import ir


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop of a lowered program.

    Attributes:
        trips: how often its body runs each time it is entered; None if only the data tell.
        outer: the same of the loops around it, outermost first.
    """

    trips: int | None
    outer: tuple[int | None, ...] = ()

    @property
    def all_trips(self) -> int | None:
        """How often its body runs in all; None if only the data tell."""
        counts = (*self.outer, self.trips)
        return None if None in counts else functools.reduce(int.__mul__, counts)


def on_accelerator(function: Callable) -> Callable:
    """The function, by the very program that it is lowered to for GPUs, run on the CPU."""

    @functools.cache
    def exported(tree: Any, shapes: tuple) -> Callable:
        arguments = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
        checks = [export.DisabledSafetyCheck.platform()]
        program = export.export(jax.jit(function), platforms=["cuda"], disabled_checks=checks)(*arguments)
        return jax.jit(program.call)

    def compiled(*arguments: Any) -> Callable:
        leaves, tree = jax.tree.flatten(arguments)
        return exported(tree, tuple((jax.numpy.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves))

    def run(*arguments: Any) -> Any:
        return compiled(*arguments)(*arguments)

    run.lower = lambda *arguments: compiled(*arguments).lower(*arguments)
    return run


def loops(function: Callable, *arguments: Any, platform: str = "cuda") -> list[Loop]:
    """All loops of the program that the function becomes on a platform; nothing is compiled, and no device needed."""
    lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))
    module = lowered.compiler_ir("stablehlo")
    with module.context:
        functions = {ir.StringAttr(op.attributes["sym_name"]).value: op for op in module.body.operations}
        return list(_loops_in(functions["main"], functions, ()))


def _loops_in(operation: Any, functions: dict[str, Any], outer: tuple[int | None, ...]) -> Iterator[Loop]:
    for inner in _operations(operation):
        if inner.name == "stablehlo.while":
            trips = _trips(inner)
            yield Loop(trips, outer)
            yield from _loops_in(inner, functions, (*outer, trips))
        else:
            if inner.name == "func.call":
                yield from _loops_in(
                    functions[ir.FlatSymbolRefAttr(inner.attributes["callee"]).value], functions, outer
                )
            yield from _loops_in(inner, functions, outer)


def _operations(operation: Any) -> Iterator[Any]:
    for region in operation.regions:
        for block in region:
            for inner in block.operations:
                yield inner.operation


def _trips(loop: Any) -> int | None:
    """Of a loop that counts from one constant to another, as scan, map and fori_loop of constant length become."""
    condition = loop.regions[0].blocks[0]
    test = list(condition.operations)[-1].operands[0].owner
    if getattr(test, "name", "") != "stablehlo.compare":
        return None
    counter, end = test.operands
    if not isinstance(counter, ir.BlockArgument):
        return None
    start = loop.operands[counter.arg_number]
    first, last = _constant(start), _constant(end)
    return None if first is None or last is None else last - first


def _constant(value: Any) -> int | None:
    owner = value.owner
    if getattr(owner, "name", "") != "stablehlo.constant":
        return None
    return int(ir.DenseElementsAttr(owner.attributes["value"]).get_splat_value().value)
