"""The one exception type for mistakes that a user can mend."""


class InputError(ValueError):
    """Bad input: the message says what was wrong, where, and what to do about it.

    The command line prints the message alone and exits with code 2; a batch reports it and goes on with the next file.
    """


class MissingDependencyError(InputError):
    """An optional package or a system library is not there; the message names what to install."""
