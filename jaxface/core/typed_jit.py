"""jax.jit for type checkers: jax's own hint forgets what the function takes and returns."""

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar, overload

import jax

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@overload
def typed_jit(function: Callable[Parameters, Result], /) -> Callable[Parameters, Result]: ...


@overload
def typed_jit(
    *, static_argnames: str | Sequence[str]
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]: ...


def typed_jit(
    function: Callable[Parameters, Result] | None = None, /, *, static_argnames: str | Sequence[str] = ()
) -> Callable[Parameters, Result] | Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """The same as `jax.jit`, with or without options: `@typed_jit` or `@typed_jit(static_argnames="image_size")`."""
    if function is None:
        return jax.jit(static_argnames=static_argnames)
    return jax.jit(function, static_argnames=static_argnames)
