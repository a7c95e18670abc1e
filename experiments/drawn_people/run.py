"""Drawn people: what they look like, who they are, how fast they are drawn, and what the detector makes of them.

    python experiments/drawn_people/run.py [--only sheets people detector speed] [--count N] [--quick] [--out FOLDER]

Writes results.json, sheet.png (64 people), mouths.png and closed_eyes.png, and prints the tables of the README.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxface.core import parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face
from jaxface.files import atomic, command_line, progress, visualize
from jaxface.models import load_face_model
from jaxface.photos.detection import detect_faces
from jaxface.render import label_map, label_triangles, render_face
from jaxface.synthetic.people import SKIN_TONES, People, load_people
from jaxface.synthetic.people_pictures import draw_crops, random_people, skin_color
from jaxface.synthetic.photographs import draw_photographs
from jaxface.synthetic.traits import TRAITS, read_traits

HERE = Path(__file__).resolve().parent
SEED, BLOCK = 515, 8
COUNT, IDENTITIES, DRAWS = 400, 300, 10_000
YAWS, LARGEST_YAW = ((0, 15), (15, 30), (30, 45), (45, 60), (60, 90)), 90.0
SKINS = {"very light": 55, "light": 41, "intermediate": 28, "tan": 10, "brown": -30, "dark": -90}
"""Classes of skin and the least individual typology angle of each in degrees (Chardon 1991; Del Bino 2013)."""


def tiled(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Pictures [N, H, W, 3] in rows of so many."""
    rows = [np.concatenate(list(pictures[start : start + columns]), 1) for start in range(0, len(pictures), columns)]
    return np.concatenate(rows)


def keys_of(start: int, count: int) -> jax.Array:
    """Random keys of pictures number `start` and so on."""
    return jax.vmap(jax.random.key)(1_000_003 * SEED + start + jnp.arange(count))


def sheets(model: FaceModel, people: People, labels, out: Path, quick: bool) -> dict:
    """64 people at 96 px, and mouths and closed eyes of the bare model."""
    draw = jax.jit(lambda keys, model, people: draw_crops(keys, model, people, labels, size=96))
    drawn = [
        np.asarray(draw(keys_of(start, 16), model, people)["image"]) for start in range(0, 16 if quick else 64, 16)
    ]
    visualize.save_png(out / "sheet.png", np.repeat(np.repeat(tiled(np.concatenate(drawn), 8), 2, 0), 2, 1))
    return closed_eyes(model, labels, out, 8 if quick else IDENTITIES) | mouths(model, out)


def expression(model: FaceModel, count: int, **units: float) -> jnp.ndarray:
    """The same expression for so many faces, by the units' names without their sides."""
    row = np.zeros(len(model.expression_names), np.float32)
    for index, name in enumerate(model.expression_names):
        row[index] = units.get(name, units.get(name.removesuffix("Left").removesuffix("Right"), 0.0))
    return jnp.broadcast_to(row, (count, len(row)))


def closed_eyes(model: FaceModel, labels, out: Path, count: int) -> dict:
    """How many pixels of eyes are seen in random people whose eyes are closed, 8 at a time."""
    random, seen, pictures = np.random.default_rng(SEED), [], []
    camera = Camera()

    @jax.jit
    def draw(coefficients):
        face = decode_face(model, coefficients, camera)
        view = render_face(face, model.triangles, image_size=224)
        shown = label_map(view.fragments, labels)
        eye = (shown == parts.LABELS["left_eye"]) | (shown == parts.LABELS["right_eye"])
        return eye.sum((1, 2)), jnp.where(view.seen[..., None], jnp.clip(view.draw(face.colors), 0, 1), 0.6)

    for _ in progress.progress(range(0, count, BLOCK), description="closed eyes", unit="block"):
        identity = np.clip(random.normal(size=(BLOCK, model.identity_basis.shape[-1])), -2.5, 2.5)
        pixels, picture = draw(
            Coefficients.zeros(model, BLOCK).replace(
                identity=jnp.asarray(identity, jnp.float32), expression=expression(model, BLOCK, eyeBlink=1.0)
            )
        )
        seen.extend(np.asarray(pixels).tolist())
        pictures.extend(np.asarray(picture[:, 70:130, 40:184]))
    visualize.save_png(out / "closed_eyes.png", tiled(np.round(255 * np.array(pictures[:64])).astype(np.uint8), 8))
    return {
        "closed eyes: people": len(seen),
        "closed eyes: people with white between the lids": int(np.sum(np.array(seen) > 0)),
    }


def mouths(model: FaceModel, out: Path) -> dict:
    """Open mouths and smiles of random people, from the front and turned by 40 degrees."""
    random, camera, rows = np.random.default_rng(SEED), Camera(), []
    draw = jax.jit(lambda c: render_colors(model, c, camera))
    faces = (
        {},
        {"jawOpen": 0.7, "mouthSmile": 0.8},
        {"jawOpen": 1.0},
        {"mouthSmile": 1.0, "mouthUpperUp": 0.7, "mouthLowerDown": 0.5},
        {"jawOpen": 0.4, "tongueOut": 1.0},
    )
    for units in faces:
        for yaw in (0.0, 0.7):
            identity = np.clip(random.normal(size=(BLOCK, model.identity_basis.shape[-1])), -2.5, 2.5)
            coefficients = Coefficients.zeros(model, BLOCK).replace(
                identity=jnp.asarray(identity, jnp.float32), expression=expression(model, BLOCK, **units)
            )
            coefficients = coefficients.replace(angles=coefficients.angles.at[:, 1].set(yaw))
            rows.append(np.asarray(draw(coefficients))[:, 110:210, 50:174])
    visualize.save_png(
        out / "mouths.png", np.round(255 * np.concatenate([tiled(row, BLOCK) for row in rows])).astype(np.uint8)
    )
    return {}


def render_colors(model: FaceModel, coefficients: Coefficients, camera: Camera) -> jax.Array:
    """Faces without heads on grey, [B, 224, 224, 3] in [0, 1]."""
    face = decode_face(model, coefficients, camera)
    view = render_face(face, model.triangles, image_size=224)
    return jnp.where(view.seen[..., None], jnp.clip(view.draw(face.colors), 0, 1), 0.6)


def who(model: FaceModel, people: People, quick: bool) -> dict:
    """Skin tones, hair and what is worn, of many draws."""
    count = 500 if quick else DRAWS
    drawn, looks = jax.jit(lambda keys: random_people(keys, model, people))(keys_of(0, count))
    skin = skin_color(model, drawn.albedo)
    found = lab(np.asarray(skin))
    angle = np.degrees(np.arctan2(found[:, 0] - 50, found[:, 2]))
    highest, shares = 90.0, {}
    for name, least in SKINS.items():
        shares[f"skin: {name}"], highest = float(((angle >= least) & (angle < highest)).mean()), least
    tones = jnp.zeros((len(SKIN_TONES), model.albedo_basis.shape[-1])).at[:, :3].set(SKIN_TONES)
    ten = lab(np.asarray(skin_color(model, tones)))
    nearest = np.argmin(np.linalg.norm(found[:, None] - ten[None], axis=-1), 1)
    shares |= {f"nearest of the ten skins: {index + 1}": float((nearest == index).mean()) for index in range(len(ten))}
    shares["lightness of the darkest and lightest hundredth"] = np.percentile(found[:, 0], [1, 99]).round(1).tolist()
    traits = np.asarray(read_traits(people, drawn.identity))
    men, old = traits[:, 3] > 0.5, traits[:, 4]
    shares |= {"men": float(men.mean()), "between the sexes": float((abs(traits[:, 3] - 0.5) < 1 / 6).mean())}
    for name, low, high in (("young", -9, 1 / 3), ("middle-aged", 1 / 3, 2 / 3), ("old", 2 / 3, 9)):
        shares[name] = float(((old >= low) & (old < high)).mean())
    for index, name in enumerate(TRAITS[:3]):
        shares[f"mostly {name}"] = float((traits[:, index] > 2 / 3).mean())
    shares["no origin above two thirds"] = float((traits[:, :3].max(1) <= 2 / 3).mean())
    for slot in people.slots:
        style = np.asarray(looks.styles[slot])
        for index, name in enumerate(people.slots[slot].names):
            if slot in ("hair", "hat", "glasses"):
                shares[f"{slot}: {name}"] = float((style == index).mean())
    bald, gray = np.asarray(looks.styles["hair"]) == 0, np.ptp(np.asarray(looks.hair), axis=1) < 0.02
    bright = np.asarray(looks.hair).mean(1) > 0.1
    shares |= {"beard": float((np.asarray(looks.beard) > 0).mean()), "bald men": float(bald[men].mean())}
    shares |= {"bald women": float(bald[~men].mean()), "grey hair": float((gray & bright).mean())}
    shares["dark glasses"] = float(((np.asarray(looks.tint) > 0.5) & (np.asarray(looks.styles["glasses"]) > 0)).mean())
    return {"draws": count, "shares": shares}


def lab(colors: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB colours [..., 3] in [0, 1]."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((np.clip(colors, 0, None) + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    root = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.stack(
        [116 * root[..., 1] - 16, 500 * (root[..., 0] - root[..., 1]), 200 * (root[..., 1] - root[..., 2])], -1
    )


def detector(model: FaceModel, people: People, labels, count: int) -> dict:
    """What the detector finds, by yaw and by what lies over the face."""
    draw, random, rows = jax.jit(draw_photographs), np.random.default_rng(SEED), []
    for start in progress.progress(range(0, count, BLOCK), description="draw and detect", unit="block"):
        yaws = np.radians(random.uniform(-LARGEST_YAW, LARGEST_YAW, BLOCK)).astype(np.float32)
        drawn = jax.tree.map(np.asarray, draw(keys_of(50_000 + start, BLOCK), model, labels, people, yaws=yaws))
        for index in range(min(BLOCK, count - start)):
            rows.append(judged({name: values[index] for name, values in drawn.items()}, np.degrees(yaws[index])))
    table = {}
    for low, high in YAWS:
        table[f"{low} to {high} degrees"] = summary([r for r in rows if low <= r["yaw"] < high])
    straight = [row for row in rows if row["yaw"] < 45]
    table["up to 45 degrees"] = summary(straight)
    table["up to 45 degrees, nothing over the face"] = summary([row for row in straight if row["hidden"] < 0.05])
    table["up to 45 degrees, more than a tenth hidden"] = summary([row for row in straight if row["hidden"] > 0.1])
    return table


def judged(drawn: Mapping[str, np.ndarray], yaw: float) -> dict:
    """One picture: was its face found, and how far are the landmarks off, in per cent of the eye distance."""
    truth, inner = drawn["landmarks"], np.arange(17, 68)
    eyes = np.linalg.norm(truth[36] - truth[45])
    near = []
    for face in detect_faces(drawn["image"]):
        off = np.linalg.norm(face.landmarks68 - truth, axis=1)
        near.append((off[inner].mean(), off[:17].mean()))
    # In profile the distance between the eyes shrinks: the face's height from brows to chin stands in for it.
    scale = max(eyes, 0.62 * np.linalg.norm(truth[8] - truth[[19, 24]].mean(0)))
    best = min(near, default=(np.inf, np.inf))
    found = best[0] < 0.35 * scale
    hidden = 1 - float(drawn["landmark_visible"][inner].mean())
    return {
        "yaw": abs(float(yaw)), "hidden": hidden, "found": bool(found),
        "inner": float(100 * best[0] / scale), "outline": float(100 * best[1] / scale),
    }  # fmt: skip


def summary(rows: list[dict]) -> dict:
    """How many, how many of them found, and the medians of the errors of those."""
    found = [row for row in rows if row["found"]]
    middle = {
        name: float(np.median([r[name] for r in found])) if found else float("nan") for name in ("inner", "outline")
    }
    return {"people": len(rows), "found": len(found) / max(len(rows), 1)} | middle


def speed(model: FaceModel, people: People, labels, quick: bool) -> dict:
    """People a second in blocks of 16, the best of some rounds, and seconds to compile."""
    figures = {}
    for size in (96,) if quick else (96, 224):
        draw = jax.jit(lambda keys, model, people, size=size: draw_crops(keys, model, people, labels, size=size))
        began = time.perf_counter()
        compiled = draw.lower(keys_of(0, 16), model, people).compile()
        figures[f"{size} px: seconds to compile"] = time.perf_counter() - began
        times = []
        for turn in range(3 if quick else 12):
            began = time.perf_counter()
            jax.block_until_ready(compiled(keys_of(16 * turn, 16), model, people))
            times.append(time.perf_counter() - began)
        figures[f"{size} px: people a second"] = 16 / min(times[1:])
    return figures


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Drawn people: looks, shares, speed, and what the detector finds.")
    stages = ("sheets", "people", "detector", "speed")
    parser.add_argument("--only", nargs="+", choices=stages, default=stages, help="which parts (default: all)")
    parser.add_argument("--count", type=int, default=COUNT, help="pictures for the detector (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="does it run?")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of what is written (default: this one)")
    arguments = parser.parse_args()
    model = load_face_model("anny")
    people = load_people(model)
    labels = jnp.asarray(label_triangles(model.parts, model.triangles))
    model, people = jax.tree.map(jnp.asarray, (model, people))
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    if "sheets" in arguments.only:
        results["sheets"] = sheets(model, people, labels, arguments.out, arguments.quick)
    if "people" in arguments.only:
        results["people"] = who(model, people, arguments.quick)
    if "detector" in arguments.only:
        results["detector"] = detector(model, people, labels, 16 if arguments.quick else arguments.count)
    if "speed" in arguments.only:
        results["speed"] = speed(model, people, labels, arguments.quick)
    results = json.loads(json.dumps(results), parse_constant=lambda _: None)  # NaN is no JSON
    with atomic.atomic_write(path) as partial:
        partial.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    command_line.run(main)
