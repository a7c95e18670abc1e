"""The exception types for mistakes that a user can mend, and how a missing extra becomes one."""

import contextlib
from collections.abc import Iterator


class InputError(ValueError):
    """Bad input: the message says what was wrong, where, and what to do about it.

    The command line prints the message alone and exits with code 2; a batch reports it and goes on with the next file.
    """


class MissingDependencyError(InputError):
    """An optional package or a system library is not there; the message names what to install."""


def missing_extra(extra: str, purpose: str, package: str) -> MissingDependencyError:
    """The error to raise where a package is missing that an extra of jaxface brings.

    Args:
        extra: its name in pyproject.toml, such as "photo".
        purpose: what cannot be done, the beginning of the message: "face detection".
        package: what is missing, in the user's words: "dlib's network".
    """
    return MissingDependencyError(f"{purpose} needs {package}; run: pip install 'jaxface[{extra}]'")


@contextlib.contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Around imports that need an extra of jaxface: a package that is not installed becomes `missing_extra`.

        with needs_extra("photo", "the figure"):
            from matplotlib import pyplot

    Raises:
        MissingDependencyError: names the package and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "jaxface"):
            raise
        raise missing_extra(extra, purpose, package) from error
