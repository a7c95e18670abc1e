"""Sound small files of every kind that jaxface reads, and the same damaged at random: what its readers make of them.

    python tests/toys/hostile.py COUNT [SEED]     COUNT mutations for each reader; figures as JSON; exit code 1: a fault

A reader gives data or raises an InputError of one line that names the file, within `SECONDS` and `MEGABYTES`. Anything
else is a fault. What was read last lies in the folder that is named first, should the process itself die.
"""

import faulthandler
import json
import pickle
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io
from PIL import Image
from safetensors.numpy import save_file

from jaxface.clips.frames import open_clip
from jaxface.core.errors import InputError
from jaxface.files.containers import read_arrays
from jaxface.files.images import photo_focal, read_image
from jaxface.files.matlab import read_matlab
from jaxface.files.names import BOOK, Owner, claim_names
from jaxface.files.obj_file import read_obj
from jaxface.files.pickles import read_pickle, read_pickled_npy
from jaxface.files.torch_files import read_torch
from jaxface.fitting import evidence
from jaxface.fitting.evidence import Calibration
from jaxface.models import load_face_model
from jaxface.models.native import write_face_model
from jaxface.networks.weight_files import is_weights
from jaxface.networks.weights import read_encoder_file
from jaxface.photos.folder import FolderSource, read_alignment, read_dataset_file
from jaxface.photos.shards import list_name, read_lists
from toys.models import toy_model
from toys.videos import numbered, write_video

SECONDS, MEGABYTES = 10.0, 1000.0

FIXTURES = Path(__file__).parents[1] / "files"

TABLE = Path(evidence.__file__).parent / "assets" / "anny_mediapipe.npz"


class Reader(NamedTuple):
    """A sound file (its name below the workplace), and what reads it."""

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]


def readers() -> dict[str, Reader]:
    """By what is told of them."""
    random = np.random.default_rng(0)
    arrays = {"numbers": random.normal(size=(20, 3)).astype(np.float32), "indices": np.arange(30).reshape(10, 3)}
    picture = Image.fromarray(random.integers(0, 255, (40, 48, 3), np.uint8))
    steps = [Image.fromarray(np.full((40, 48, 3), 20 * index, np.uint8)) for index in range(6)]

    def text(content: object) -> Callable[[Path], object]:
        return lambda path: path.write_text(content if isinstance(content, str) else json.dumps(content))

    def copy(name: str) -> Callable[[Path], object]:
        return lambda path: path.write_bytes((FIXTURES / name).read_bytes())

    def animated(path: Path) -> None:
        steps[0].save(path, save_all=True, append_images=steps[1:], duration=50)

    def frames(path: Path) -> int:
        return sum(1 for _ in open_clip(path).frames())

    def photo(path: Path) -> object:
        return photo_focal(path), read_image(path)

    def sample(path: Path) -> object:
        if not (path.parent / "image.png").exists():
            Image.new("RGB", (48, 48)).save(path.parent / "image.png")
            Image.new("L", (48, 48), 8).save(path.parent / "labels.png")
        return FolderSource(path.parent.parent, size=48)[0], read_alignment(path.parent)

    points = {"landmarks": random.uniform(0, 48, (68, 2)).tolist(), "landmark_weights": [1.0] * 68}
    points["alignment"] = {"scale": 1.0, "offset_x": 0.0, "offset_y": 0.0, "size": 48, "photo_size": [48, 48]}
    mesh = "v 0 0 0\nv 1 0 0 0.5 0.5 0.5\nv 1 1 0\nv 0 1 0\nvt 0 0\nvn 0 0 1\nf 1/1/1 2/1/1 3 4\nf -4 -2 -1\n"
    shards = {"photos": [["a.jpg", 2], ["b.jpg", 1]], "samples": 3, "bytes": 9}
    found = {
        "pickle": Reader("file.pkl", lambda path: path.write_bytes(pickle.dumps(arrays, 2)), read_pickle),
        "npy": Reader("file.npy", lambda path: np.save(path, arrays["numbers"]), read_pickled_npy),
        "npy of a pickle": Reader("model.npy", lambda path: np.save(path, np.array(arrays)), read_pickled_npy),
        "pth, zip": Reader("new.pth", copy("torch_zip.pth"), lambda path: (is_weights(path), read_torch(path))),
        "pth, legacy": Reader("old.pth", copy("torch_legacy.pth"), lambda path: (is_weights(path), read_torch(path))),
        "encoder": Reader("encoder.pth", copy("torch_zip.pth"), read_encoder_file),
        "npz": Reader("file.npz", lambda path: np.savez(path, **arrays), read_arrays),
        "npz, compressed": Reader("small.npz", lambda path: np.savez_compressed(path, **arrays), read_arrays),
        "face model": Reader("model.npz", lambda path: write_face_model(toy_model(), path), load_face_model),
        "safetensors": Reader("file.safetensors", lambda path: save_file(arrays, path), read_arrays),
        "face model, safetensors": Reader(
            "model.safetensors", lambda path: write_face_model(toy_model(), path), load_face_model
        ),
        "mat": Reader("file.mat", lambda path: scipy.io.savemat(path, arrays), lambda path: read_matlab(path, arrays)),
        "mat, compressed": Reader(
            "small.mat",
            lambda path: scipy.io.savemat(path, arrays, do_compression=True),
            lambda path: read_matlab(path, arrays),
        ),
        "calibration": Reader("table.npz", lambda path: path.write_bytes(TABLE.read_bytes()), Calibration.load),
        "obj": Reader("file.obj", text(mesh), read_obj),
        "gif, animated": Reader("clip.gif", animated, frames),
        "webp, animated": Reader("clip.webp", animated, frames),
        "png, animated": Reader("clip.png", animated, frames),
        "landmarks.json": Reader("landmarks.json", text(points), sample),
        "dataset.json": Reader(
            "dataset.json", text({"format": "x", "size": 48}), lambda path: read_dataset_file(path.parent)
        ),
        "shard list": Reader(list_name(1, 1, 0), text(shards), lambda path: read_lists(path.parent)),
        "book of names": Reader(
            BOOK,
            text({"a": ["photo", "0" * 64, "a.png"]}),
            lambda path: claim_names(path.parent, [Owner("photo", (Path(__file__),))]),
        ),
    }
    for suffix in ("png", "jpg", "webp", "gif", "tiff", "bmp", "ppm", "jp2", "avif"):
        found[suffix] = Reader(f"photo.{suffix}", lambda path: picture.save(path), photo)
    for suffix, codec in (("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mjpeg"), ("ts", "mpeg4")):
        pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        found[suffix] = Reader(
            f"clip.{suffix}",
            lambda path, codec=codec, pixels=pixels: write_video(path, numbered(), codec=codec, pixels=pixels),
            frames,
        )
    return found


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Content, damaged in one to three ways."""
    for _ in range(random.integers(1, 4)):
        size = max(len(content), 1)
        start = int(random.integers(size)) if random.random() < 0.5 else int(random.integers(min(size, 200)))
        stop = min(size, start + int(random.choice([1, 2, 4, 8, 64, 1000])))
        head, middle, tail = content[:start], content[start:stop], content[stop:]
        kind = random.integers(8)
        if kind == 0 and middle:
            middle = bytes([middle[0] ^ 1 << int(random.integers(8))]) + middle[1:]
        elif kind == 1:
            middle = random.bytes(len(middle))
        elif kind == 2:
            middle = bytes([int(random.choice([0, 255, 127, 128]))]) * len(middle)
        elif kind == 3:
            middle, tail = b"", b""
        elif kind == 4:
            middle = middle * int(random.choice([2, 3, 100]))
        elif kind == 5:
            middle = b""
        elif kind == 6:
            number = int(random.choice([2**31 - 1, 2**32 - 1, 2**63 - 1, 2**20, 2**28, 0]))
            middle = number.to_bytes(8, str(random.choice(["little", "big"])))
        else:
            other = int(random.integers(size))
            middle = content[other : other + len(middle)]
        content = head + middle + tail
    return content


def fault(read: Callable[[Path], object], path: Path) -> tuple[str, bool, float, float]:
    """What is wrong with how a file is read ("" if nothing), whether it was refused, seconds and megabytes."""
    before, began, told, refused = peak(), time.perf_counter(), "", False
    try:
        read(path)
    except InputError as error:
        refused = True
        if "\n" in str(error) or path.parent.name not in str(error):
            told = f"a message of several lines, or without the file: {str(error)[:300]!r}"
    except Exception as error:
        told = f"{type(error).__name__}: {str(error)[:300]}"
    seconds, megabytes = time.perf_counter() - began, peak() - before
    if not told and seconds > SECONDS:
        told = f"took {seconds:.1f} s"
    if not told and megabytes > MEGABYTES:
        told = f"took {megabytes:.0f} MB"
    return told, refused, seconds, megabytes


def peak() -> float:
    """Of this process's memory, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def damage_all(count: int, seed: int, folder: Path) -> dict[str, dict]:
    """Figures of each reader: read, refused, slowest (seconds), most (megabytes), faults."""
    figures = {}
    for number, (told, reader) in enumerate(readers().items()):
        path = folder / f"reader{number}" / "sample" / reader.name
        path.parent.mkdir(parents=True)
        reader.make(path)
        sound, random = path.read_bytes(), np.random.default_rng([seed, number])
        wrong, refused, slowest, most = [], 0, 0.0, 0.0
        if told != "encoder" and fault(reader.read, path)[1]:
            wrong.append("the sound file is refused")
        for index in range(count):
            path.write_bytes(mutated(sound, random))
            problem, was_refused, seconds, megabytes = fault(reader.read, path)
            refused, slowest, most = refused + was_refused, max(slowest, seconds), max(most, megabytes)
            if problem:
                kept = path.with_name(f"fault{index}{path.suffix}")
                kept.write_bytes(path.read_bytes())
                wrong.append(f"{kept}: {problem}")
                if reader.name.startswith("samples-"):
                    kept.rename(folder / f"{number}-{kept.name}")
        figures[told] = {
            "read": count,
            "refused": refused,
            "slowest": round(slowest, 2),
            "most": round(most, 1),
            "faults": wrong,
        }
    return figures


def main() -> int:
    """The command line; returns the exit code."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    faulthandler.enable()
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    print(folder, file=sys.stderr, flush=True)
    figures = damage_all(count, seed, folder)
    print(json.dumps(figures, indent=1))
    return int(any(one["faults"] for one in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
