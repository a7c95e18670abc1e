"""Two ways to compute the same: one for CPUs, one for accelerators."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import jax

_Arrays = TypeVarTuple("_Arrays")
_Result = TypeVar("_Result")


def by_platform(
    cpu: Callable[[*_Arrays], _Result], accelerator: Callable[[*_Arrays], _Result], *arrays: *_Arrays
) -> _Result:
    """cpu(*arrays) in a program for CPUs, accelerator(*arrays) in one for anything else.

    Loops whose small steps stay in a processor's registers are quick on CPUs, and slow where each step is a kernel to
    be launched; few large operations are the other way round. The choice is made when a program is lowered for a
    platform, which may be one that is not there: the other way is not in the program, and costs it nothing.

    Args:
        cpu: of arrays only; what is static is bound beforehand.
        accelerator: of the same arguments, with results of the same shapes and types.
        arrays: the arguments.
    """
    result: _Result = jax.lax.platform_dependent(*arrays, cpu=cpu, default=accelerator)
    return result
