"""How far fits lie from heads that no artist of the built-in model made: the identities of ICT-FaceKit.

    python experiments/ict_accuracy/run.py FOLDER [--quick] [--work FOLDER] [--out FOLDER]

FOLDER is FaceXModel/ of ICT-FaceKit's light model, all of it or a few files. Each identity gets skin, eyes, hair and
clothes of the built-in model's people, is drawn from the front and turned by 40 degrees, and fitted from each picture
alone. Measured by NoW's protocol, as in experiments/scan_accuracy. Writes results.json and heads.png, and prints the
table of the README.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from heads import Head, dressed, read_heads
from jaxtyping import Float, UInt8
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "scan_accuracy"))
from drawing import outside
from picture import HEAD, TURN, clay
from scan_measures import mean_face
from scans import Scan

import jaxface
from jaxface.core import face_models, parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError
from jaxface.core.units import MM_PER_UNIT
from jaxface.files import atomic, command_line, progress, visualize
from jaxface.fitting.solver import find_recognizer, sample_solver
from jaxface.photos.face_crops import preprocess_photo
from jaxface.render import label_triangles
from jaxface.synthetic.held_out import split_people
from jaxface.synthetic.people import People, load_people
from jaxface.synthetic.people_pictures import draw_people
from jaxface.training.scan_errors import SEVEN_LANDMARKS, Surface, face_region, fit_similarity, refine

HERE = Path(__file__).resolve().parent
WORK = Path("outputs/experiments/ict_accuracy")
VIEWS = {"front": 0.0, "turned": 40.0}
"""Degrees of yaw; every other head is turned to the other side."""

CELL = 150
"""Side of a picture in heads.png, in pixels."""

SIZE, DISTANCE, ENLARGED = 512, 10.0, 2.0
"""Pixels of a drawing; the camera's distance in model units; the face's size against that of the 224 crop."""

OPEN = 0.9
"""Share of the landmarks that nothing may hide: what is measured here is the fit, not what hair leaves of a face."""

REACH = 1.0
"""Millimetres: points of a head that the drawn mesh does not reach lie inside lids, lips and nostrils."""


def draw_views(model, people: People, heads: Sequence[Head]) -> tuple[list[dict], list[Float[np.ndarray, "V 3"]]]:
    """Per head and view {"head", "view", "picture"}; and the mesh of each head that was drawn, in model units."""
    labels = jnp.asarray(label_triangles(model.parts, model.triangles))

    @jax.jit
    def draw(key, model, people, identity, albedo, yaw):
        zeros = {"expression": model.expression_basis.shape[-1], "light": 27, "translation": 3}
        rest = {name: jnp.zeros((1, count)) for name, count in zeros.items()}
        angles = jnp.stack([jnp.zeros(()), yaw, jnp.zeros(())])[None]
        face = Coefficients(identity=identity[None], albedo=albedo[None], angles=angles, **rest)
        camera = Camera(Camera().focal * ENLARGED, (SIZE / 2, SIZE / 2), DISTANCE, (SIZE, SIZE))
        return draw_people(key[None], model, people, labels, face, camera)

    drawn, meshes = [], []
    for number, head in enumerate(progress.progress(heads, description="draw", unit="head")):
        moved, worn, identity = dressed(head, model, people)
        meshes.append(np.asarray(moved.mean_shape + model.identity_basis @ identity, np.float64))
        albedo = np.zeros(model.albedo_basis.shape[-1], np.float32)
        albedo[:3] = people.skin_tones[number % len(people.skin_tones)]
        looks = 1000 * number
        for view, yaw in VIEWS.items():
            turn = np.float32(np.radians(yaw if number % 2 else -yaw))
            while True:  # what a person looks like goes by the key
                sample = draw(jax.random.key(looks), moved, worn, identity, albedo, turn)
                if view != "front" or sample["landmark_visible"].mean() >= OPEN:
                    break
                looks += 1
            drawn.append({"head": number, "view": view, "picture": np.asarray(sample["image"][0])})
    return drawn, meshes


class Measure:
    """NoW's protocol for one head, on those points of its face that the drawings show.

    Args:
        head: the head.
        mesh: that was drawn of it, in model units.
        model: the face model.
    """

    def __init__(self, head: Head, mesh: Float[np.ndarray, "V 3"], model: jaxface.FaceModel):
        self._triangles = np.asarray(model.triangles)
        self._seven = np.asarray(model.landmarks["68"])[list(SEVEN_LANDMARKS)]
        self.landmarks = MM_PER_UNIT * head.landmarks[list(SEVEN_LANDMARKS)]
        scan = Scan(head.name, MM_PER_UNIT * head.vertices, head.triangles, self.landmarks)
        points = scan.vertices[face_region(scan.vertices, scan.landmarks) & outside(scan)]
        found = Surface(MM_PER_UNIT * mesh, self._triangles).closest(points)
        shown = found.distances < REACH
        self.points, self.drawn = points[shown], float(found.distances[shown].mean())
        self.unseen = float(1 - shown.mean())
        self._regions = regions(model)[self._triangles[found.triangles[shown]][:, 0]]

    def __call__(self, vertices: Float[np.ndarray, "V 3"]) -> dict[str, float]:
        """Mean distance in mm of a mesh of the face model, over all points and by region.

        "NAME, depth": how far the mesh lies before the head there, on average, along the line of sight from the front.
        """
        surface = Surface(vertices, self._triangles)
        aligned = refine(surface, self.points, fit_similarity(vertices[self._seven], self.landmarks))
        closest = surface.closest(aligned.undo(self.points))
        distances, ahead = aligned.scale * closest.distances, (aligned.apply(closest.points) - self.points)[:, 2]
        chosen = {name: self._regions == name for name in sorted(set(self._regions))}
        found = {name: float(distances[these].mean()) for name, these in chosen.items()}
        depth = {f"{name}, depth": float(ahead[these].mean()) for name, these in chosen.items()}
        return {"mean": float(distances.mean())} | found | depth


def regions(model: jaxface.FaceModel) -> np.ndarray:
    """Of each vertex the name of its region: the skin is split at the brows and at the corners of the mouth."""
    mean = np.asarray(model.mean_shape)
    corners, brows = (mean[np.asarray(model.landmarks["68"])[rows], 1].mean() for rows in ([48, 54], range(17, 27)))
    height = mean[:, 1]
    names = np.select([height > brows, height > corners], ["forehead", "cheeks"], "jaw").astype("U8")
    for part in parts.PARTS:
        if part != "skin":
            names[np.asarray(model.parts[part])] = part.split("_")[-1] + ("s" if part != "nose" else "")
    return names


def fit_views(model, drawn: Sequence[Mapping], recognition: str) -> list[Float[np.ndarray, "V 3"] | None]:
    """The fitted vertices of each picture in mm, without what it knows of the others; None where no face is found."""
    samples: list = []
    for one in progress.progress(drawn, description="detect", unit="picture"):
        try:
            samples.append(preprocess_photo(one["picture"], model)[0].sample)
        except InputError:
            samples.append(None)
    found = [sample for sample in samples if sample is not None]
    faces = iter(sample_solver(model, find_recognizer(recognition)[1])(found, None))
    return [None if sample is None else fitted(model, next(faces).vector) for sample in samples]


def fitted(model, vector: Float[np.ndarray, "K"]) -> Float[np.ndarray, "V 3"]:
    """Vertices in mm before the pose."""
    face = Coefficients.from_vector(jnp.asarray(vector)[None], model)
    return MM_PER_UNIT * np.asarray(face_models.shape(model, face.identity, face.expression)[0], np.float64)


def save_picture(path: Path, drawn: Sequence[Mapping], heads: Sequence[Head], fits: Sequence, model) -> None:
    """A row per head: the drawings, and turned by 40 degrees the head itself, each drawing's fit, and the mean face."""
    seven, rows = np.asarray(model.landmarks["68"])[list(SEVEN_LANDMARKS)], []

    def turned(mesh: Float[np.ndarray, "V 3"] | None) -> UInt8[np.ndarray, "S S 3"]:
        if mesh is None:
            return np.full((CELL, CELL, 3), 255, np.uint8)
        return clay(mesh, np.asarray(model.triangles), yaw=TURN, center=mesh[seven].mean(0) + HEAD, size=CELL)

    for number, head in enumerate(heads):
        own = [(one["picture"], fit) for one, fit in zip(drawn, fits, strict=True) if one["head"] == number]
        small = [np.asarray(Image.fromarray(one).resize((CELL, CELL), Image.Resampling.LANCZOS)) for one, _ in own]
        marks = MM_PER_UNIT * head.landmarks[list(SEVEN_LANDMARKS)]
        middle, vertices = marks.mean(0) + HEAD, MM_PER_UNIT * head.vertices
        truth = clay(vertices, head.triangles, yaw=TURN, center=middle, size=CELL)
        rows.append([*small, truth, *(turned(fit) for _, fit in own), turned(mean_face(model))])
    titles = [*VIEWS, "the head", *(f"fit, {view}" for view in VIEWS), "mean face"]
    visualize.save_png(path, visualize.grid(rows, titles=titles, cell=CELL))


def table(results: Mapping) -> str:
    """A line per head; the means by region, and how far meshes lie before the head there."""
    lines = ["| mm | mean face | " + " | ".join(VIEWS) + " |", "| --- | --: |" + " --: |" * len(VIEWS)]
    for head in results["heads"]:
        cells = [f"{head[view]['mean']:.2f}" if head[view] else "not found" for view in VIEWS]
        lines.append(f"| {head['name']} | {head['mean face']['mean']:.2f} | " + " | ".join(cells) + " |")
    names = [name for name in results["heads"][0]["mean face"] if "," not in name]
    lines += ["", "| mm | " + " | ".join(names) + " |", "| --- |" + " --: |" * len(names)]
    for title in ("mean face", *VIEWS):
        own = [head[title] for head in results["heads"] if head[title]]
        cells = [f"{np.mean([one[name] for one in own]):.2f}" for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
        cells = [f"{np.mean([one[f'{name}, depth'] for one in own]):+.2f}" for name in names[1:]]
        lines.append("| ... before the head | | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", results["better"]])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="FaceXModel/ of ICT-FaceKit's light model")
    parser.add_argument("--mixed", type=int, default=8, help="heads of all identities at once (default: 8)")
    parser.add_argument("--quick", action="store_true", help="one head, no recognition: does it run?")
    parser.add_argument("--work", type=Path, default=WORK, help=f"for the drawings (default: {WORK})")
    parser.add_argument("--out", type=Path, help="for results and picture (default: here; --work with --quick)")
    options = parser.parse_args(arguments)
    out = options.out or (options.work if options.quick else HERE)
    model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
    people = split_people(load_people(model), held_out=True)
    heads = read_heads(options.folder, model, mixed=options.mixed)[: 1 if options.quick else None]
    drawn, meshes = draw_views(model, people, heads)
    for one in drawn:
        with atomic.atomic_write(options.work / f"{heads[one['head']].name}_{one['view']}.png") as path:
            Image.fromarray(one["picture"]).save(path, "PNG")
    fits = fit_views(model, drawn, "off" if options.quick else "auto")
    rows = []
    for number, (head, mesh) in enumerate(zip(heads, meshes, strict=True)):
        measure = Measure(head, mesh, model)
        row = {"name": head.name, "drawn_mm": measure.drawn, "unseen": measure.unseen}
        row["mean face"] = measure(mean_face(model))
        for one, fit in zip(drawn, fits, strict=True):
            if one["head"] == number:
                row[one["view"]] = None if fit is None else measure(fit)
        rows.append(row)
    alone, told = len(heads) - (0 if options.quick else options.mixed), []
    for view in VIEWS:
        better = [bool(row[view]) and row[view]["mean"] < row["mean face"]["mean"] for row in rows]
        told += [f"{view} {sum(some)} of {len(some)}" for some in (better[:alone], better[alone:]) if some]
    results = {"heads": rows, "better": f"better than the mean face (identities, mixed heads): {', '.join(told)}"}
    with atomic.atomic_write(out / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    save_picture(out / "heads.png", drawn, heads[:alone], fits, model)
    print(table(results))
    return 0


if __name__ == "__main__":
    command_line.keep_compiled()
    command_line.run(main)
