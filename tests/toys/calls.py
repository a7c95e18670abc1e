"""What workers are asked to do in tests: each function gets the shared arrays first."""

import os
import signal
import time

import numpy as np

from jaxface.core.errors import InputError
from jaxface.files import workers


def process(shared, *ignored):
    return os.getpid()


def double(shared, place, shape, other):
    return shared.write(other, shared.read(place, shape) * np.uint8(2))


def refuse(shared, name):
    raise InputError(f"{name}: not today")


def stumble(shared):
    raise IndexError("nothing there")


def kill_itself(shared):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(shared, code):
    os._exit(code)


def leave_at_once(connection, shared):
    os._exit(3)


def die_at_once(connection, shared):
    os.kill(os.getpid(), signal.SIGKILL)


def die_as_the_first(connection, shared):
    """Work, but for the first process that finds the folder named in the environment."""
    try:
        os.rmdir(os.environ["DIE_ONCE"])
    except FileNotFoundError:
        return workers._work(connection, shared)
    return die_at_once(connection, shared)


def sleep(shared, seconds):
    time.sleep(seconds)
