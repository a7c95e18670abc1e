"""preprocess by the hundred thousand: what each stage takes, what a kill costs, how fast shards are read.

    python benchmarks/preprocess.py            (20 minutes on two cores; --quick shows in one that it works)

The photos are varied copies (scaled, mirrored, recoloured) of the two portraits that installed packages carry. Writes
outputs/benchmarks/preprocess.json.
"""

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import group_memory
from PIL import Image, ImageEnhance

from jaxface.files.atomic import atomic_write
from jaxface.files.images import read_image
from jaxface.models import load_face_model
from jaxface.photos.face_crops import make_crop
from jaxface.photos.folder import write_sample
from jaxface.photos.preparation import detect_faces_in
from jaxface.photos.shard_writer import ShardWriter
from jaxface.photos.shards import encode_record, open_samples
from jaxface.results.demo import portrait_paths
from jaxface.training.augmentation import augment_photo
from jaxface.training.pipeline import make_pipeline

MANY = 600_000
"""Photos to look ahead to."""

PROGRAM = """
import sys
from pathlib import Path
from jaxface.files.command_line import keep_compiled
from jaxface.files.images import read_image
from jaxface.photos import preparation

keep_compiled()

photos, out, format, workers, samples_per_file, detector = sys.argv[1:]
if detector == "none":
    faces = preparation.detect_faces_in([read_image(min(Path(photos).iterdir()))])
    preparation.detect_faces_in = lambda images: faces * len(images)
preparation.preprocess_files(
    [photos], out, format=format, workers=int(workers), samples_per_file=int(samples_per_file)
)
"""


def make_photos(folder: Path, count: int, side: int) -> Path:
    """Varied copies of the portraits, the longer side of each 0.7 to 1 times `side`."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(side)
    portraits = [Image.open(path).convert("RGB") for path in portrait_paths().values()]
    for number in range(count):
        image = portraits[number % len(portraits)]
        scale = side * generator.uniform(0.7, 1.0) / max(image.size)
        image = image.resize([round(scale * length) for length in image.size], Image.Resampling.BICUBIC)
        if generator.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = ImageEnhance.Brightness(image).enhance(generator.uniform(0.7, 1.3))
        ImageEnhance.Color(image).enhance(generator.uniform(0.5, 1.5)).save(folder / f"{number:06}.jpg", quality=92)
    return folder


def stages(photos: Path, work: Path, count: int, batch: int = 16) -> dict[str, dict[str, float]]:
    """Milliseconds a photo of each stage by itself, in one process."""
    model = load_face_model("anny")
    paths = sorted(photos.iterdir())[:count]
    detect_faces_in([read_image(paths[0])] * batch)  # what is made or compiled at the first call
    times = dict.fromkeys(("decode", "detect", "align and label", "write folder", "encode record", "append"), 0.0)
    cpu = dict(times)
    writer = ShardWriter(work, share=1, shares=1, samples_per_file=1024)

    def timed(stage, function, *arguments):
        start, used = time.perf_counter(), time.process_time()
        result = function(*arguments)
        times[stage] += 1e3 * (time.perf_counter() - start) / len(paths)
        cpu[stage] += 1e3 * (time.process_time() - used) / len(paths)
        return result

    for start in range(0, len(paths), batch):
        chosen = paths[start : start + batch]
        images = [timed("decode", read_image, path) for path in chosen]
        found = timed("detect", detect_faces_in, images)
        for path, image, faces in zip(chosen, images, found, strict=True):
            crops = [timed("align and label", make_crop, image, face, model) for face in faces]
            records = [timed("encode record", encode_record, crop, path.name, n) for n, crop in enumerate(crops)]
            timed("append", writer.add, path.name, records)
            for number, crop in enumerate(crops):
                folder = work / path.stem / f"face_{number}"
                folder.mkdir(parents=True)
                timed("write folder", write_sample, folder, crop.sample, crop.alignment, {"photo": path.name})
    timed("append", writer.finish_file)
    writer.close()
    return {stage: {"ms": times[stage], "cpu_ms": cpu[stage]} for stage in times}


def start(photos: Path, out: Path, *options: object) -> subprocess.Popen:
    """preprocess in a process group of its own; options are the other arguments of PROGRAM."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(photos), str(out), *map(str, options)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def whole_run(
    photos: Path, out: Path, *, format: str, workers: int, samples_per_file: int = 1024, detector: str = "all"
) -> dict:
    """Time and memory of a run with its start and its contact sheet, as a user has it.

    With the detector "none" all photos have the faces of the first: what is left without the detector's time.
    """
    begin = time.perf_counter()
    process = start(photos, out, format, workers, samples_per_file, detector)
    memory: list[int] = []

    def watch():
        while process.returncode is None:
            memory.append(group_memory(process.pid))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    watcher.join()
    assert process.returncode == 0, f"exit code {process.returncode}"
    files = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith("contact_sheet")]
    samples = len(open_samples(out))
    quarter = max(1, len(memory) // 4)
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,  # of its workers too; on a busy machine the truer figure
        "photos_a_second": len(os.listdir(photos)) / seconds,
        "samples": samples,
        "bytes_a_sample": sum(path.stat().st_size for path in files) / samples,
        "bytes_on_disk_a_sample": sum(512 * path.stat().st_blocks for path in out.rglob("*")) / samples,
        "inodes": sum(1 for _ in out.rglob("*")),
        "peak_mb": max(memory) / 1e6,
        "quarters_mb": [float(np.median(memory[i * quarter : (i + 1) * quarter] or memory)) / 1e6 for i in range(4)],
        "memory_mb": [round(value / 1e6) for value in memory],
    }


def killed_run(photos: Path, out: Path, whole: Path, *, kills: int, seconds: float, workers: int) -> dict:
    """A run whose whole process group is killed at random instants and taken up again, beside one that was not."""
    generator = random.Random(0)
    done = []
    for _ in range(kills):
        process = start(photos, out, "shards", workers, 64, "all")
        time.sleep(generator.uniform(0, 2 * seconds / kills))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done.append(sum(1 for _ in out.glob("samples-*.json")))
    process = start(photos, out, "shards", workers, 64, "all")
    assert process.wait() == 0
    one, other = ({path.name: path.read_bytes() for path in folder.glob("[!.]*")} for folder in (whole, out))
    source = open_samples(out)
    names = {source.name(index) for index in range(len(source))}
    return {
        "files_after_each_kill": done,
        "files": sum(1 for _ in out.glob("samples-*.json")),
        "samples": len(source),
        "different_samples": len(names),
        "same_bytes": one == other,
    }


def reading(folders: Path, shards: Path, *, seconds: float, worker_counts: Sequence[int]) -> dict:
    """Samples a second of reading at random: in one process (a second of its core's time, as other programs may take
    turns), and through the training's pipeline (by the clock)."""
    found = {}
    generator = np.random.default_rng(0)
    for name, path in (("folders", folders), ("shards", shards)):
        source = open_samples(path)
        order = generator.permutation(len(source))
        sample = source[0]

        def rate(call, order=order, clock=time.process_time):
            count, begin = 0, clock()
            while clock() - begin < seconds:
                call(int(order[count % len(order)]))
                count += 1
            return count / (clock() - begin)

        found[name] = {"read and decoded": rate(source.__getitem__)}
        found[name]["and augmented"] = rate(lambda index, source=source: augment_photo(source[index], generator))
        if name == "shards":
            found["augmentation alone"] = rate(lambda _, sample=sample: augment_photo(sample, generator))
            found["record alone, not decoded"] = rate(source.about)
            for key, image_format, kind in (("image", "WEBP", {"lossless": True}), ("labels", "PNG", {})):
                stream = io.BytesIO()
                Image.fromarray(sample[key]).save(stream, image_format, **kind)
                found[f"decoding of {key} alone"] = rate(lambda _, file=stream: np.array(Image.open(file)))
        for workers in worker_counts:
            batches = make_pipeline(source, batch_size=16, seed=0, augment=augment_photo, worker_count=workers)
            for _ in range(8):
                next(batches)  # workers start, queues fill
            drawn = rate(lambda _, batches=batches: next(batches), clock=time.perf_counter)
            found[name][f"pipeline, {workers} workers"] = 16 * drawn
            del batches
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few photos and one kill: does it work?")
    parser.add_argument("--photos", type=int, default=2000, help="number of photos of 512 pixels (default: 2000)")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    count, sides, kills = (20, (256,), 1) if options.quick else (options.photos, (512, 1024, 2048), options.kills)
    workers = 1 if options.quick else options.workers
    results: dict = {"photos": count, "workers": workers, "quick": options.quick}
    out = Path("outputs/benchmarks/preprocess.json")

    def told(name, figure):
        results[name] = figure
        shown = {key: value for key, value in figure.items() if key != "memory_mb"}
        print(f"{name}: {json.dumps(shown, default=float)}", flush=True)
        with atomic_write(out) as partial:
            partial.write_text(json.dumps(results, indent=2, default=float) + "\n")

    with tempfile.TemporaryDirectory(prefix="preprocess-") as folder:
        work = Path(folder)
        for side in sides:
            photos = make_photos(work / f"photos{side}", count if side == sides[0] else max(20, count // 8), side)
            (work / "stages").mkdir()
            told(f"stages, {side} px, ms a photo", stages(photos, work / "stages", 20 if options.quick else 96))
            shutil.rmtree(work / "stages")
        photos = work / f"photos{sides[0]}"
        for side in sides[1:]:
            figure = whole_run(work / f"photos{side}", work / f"out{side}", format="shards", workers=workers)
            told(f"run, shards, {side} px", figure)
        figure = whole_run(photos, work / "undetected", format="shards", workers=workers, detector="none")
        told(f"run, shards, {sides[0]} px, without a detector", figure)
        for format in ("folders", "shards"):
            figure = whole_run(photos, work / format, format=format, workers=workers)
            told(f"run, {format}, {sides[0]} px", figure)
            share = MANY / figure["samples"]
            told(
                f"{MANY} photos, {format}",
                {
                    "gigabytes": figure["bytes_on_disk_a_sample"] * MANY / 1e9,
                    "inodes": figure["inodes"] * share,
                    "hours": MANY / figure["photos_a_second"] / 3600,
                },
            )
        told("reading, samples/s", reading(work / "folders", work / "shards", seconds=0.2 if options.quick else 5.0,
                                           worker_counts=(0, 1) if options.quick else (0, 1, 2)))  # fmt: skip
        small = whole_run(photos, work / "whole", format="shards", workers=workers, samples_per_file=64)
        figure = killed_run(photos, work / "killed", work / "whole", kills=kills, seconds=small["seconds"],
                            workers=workers)  # fmt: skip
        told(f"killed {kills} times", figure)


if __name__ == "__main__":
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # which Grain's processes want
    main()
