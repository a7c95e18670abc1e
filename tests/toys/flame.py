"""Files like FLAME's, written as its makers wrote them: a random surface under the real keys, kinds and magnitudes."""

import io
import pickle
import struct
import sys
import types
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

VERTICES, FACES = 5023, 9976


class _Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 did: both as byte strings without an encoding."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        data = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def write_flame(path, content, chumpy_keys=("v_template", "shapedirs")):
    """Writes a dict as FLAME's makers did: Python 2, chumpy arrays, the old module names."""
    chumpy, ch = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    chumpy.ch, ch.Ch = ch, Ch
    file = io.BytesIO()
    sys.modules |= {"chumpy": chumpy, "chumpy.ch": ch}
    try:
        values = {key: Ch(value) if key in chumpy_keys else value for key, value in content.items()}
        _Python2Pickler(file, 2).dump(values)
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]
    data = file.getvalue()
    for new, old in ((b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"), (b"._csc\n", b".csc\n")):
        data = data.replace(new, old)
    path.write_bytes(data)
    return path


def flame_content(vertices=VERTICES, faces=FACES, seed=0):
    """Keys, shapes, kinds and magnitudes of the real file; a random surface."""
    random = np.random.default_rng(seed)
    regressor = sp.random(
        5, vertices, 0.05, random_state=random, data_rvs=lambda n: random.uniform(0.1, 1, n)
    ).toarray()
    regressor[:, :5] += np.eye(5)  # no row is empty
    return {
        "v_template": random.normal(size=(vertices, 3)) * 0.1,
        "f": random.integers(0, vertices, (faces, 3)).astype(np.uint32),
        "shapedirs": random.normal(size=(vertices, 3, 400)) * 1e-3,
        "posedirs": random.normal(size=(vertices, 3, 36)) * 1e-2,
        "J_regressor": sp.csc_matrix(regressor / regressor.sum(1, keepdims=True)),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "weights": random.dirichlet(np.ones(5), vertices),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
