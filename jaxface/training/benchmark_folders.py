"""The folders of public benchmarks, as their makers lay them out; and what a fit predicted for a photo in them."""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer, UInt8

from jaxface.core import face_models, parts
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError
from jaxface.core.units import MM_PER_UNIT
from jaxface.files.images import decode_mask
from jaxface.files.inputs import IMAGE_SUFFIXES
from jaxface.files.matlab import read_matlab
from jaxface.files.obj_file import read_obj
from jaxface.models import load_face_model
from jaxface.photos.folder import DATASET_FILE, read_dataset_file
from jaxface.training.region_errors import REGIONS

LAYOUTS = {
    "now": """now        NoW (now.is.tue.mpg.de): PATH/imagepathsvalidation.txt, PATH/scans/SUBJECT/*.obj,
           PATH/scans_lmks_onlypp/SUBJECT/*.pp, photos in PATH/NoW_Dataset/final_release_version/iphone_pictures""",
    "realy": """realy      REALY (realy3dface.com): PATH/REALY_scan_region/ID/{nose,mouth,forehead,cheek}.obj,
           PATH/REALY_HIFI3D_keypoints/ID.obj, photos ID.jpg and ID_VIEW.jpg in PATH/REALY_image/crop_image_*/,
           and PATH/metrical_scale.txt from data/ of the repository czh-98/REALY""",
    "aflw2000": """aflw2000   AFLW2000-3D (3DDFA's page at cbsr.ia.ac.cn): PATH/image00002.jpg and .mat, and so on""",
    "part_iou": """part_iou   the paper's measure on your photos (its own, of MEAD, were never given out):
           PATH/images/NAME.jpg, PATH/labels/NAME.png by a face parser, and its order in PATH/dataset.json:
           {"labels": "celebamask"}""",
}
"""Which folder each benchmark expects, for the help and for messages; the first word is the benchmark's name."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A photo of a benchmark and what is known about it.

    Attributes:
        name: of the photo in the benchmark without its suffix, and of its predictions' folder.
        photo: its file.
        group: in the table, such as NoW's challenge; "" if there are none.
        truth: the files that hold what is known.
    """

    name: str
    photo: Path
    group: str
    truth: Mapping[str, Path]


def now_cases(path: Path) -> list[Case]:
    """The photos of NoW's validation set, whose scans are given out.

    Raises:
        InputError: when something of `LAYOUTS` is missing.
    """
    listed = _required(path / "imagepathsvalidation.txt", LAYOUTS["now"])
    roots = [path / folder for folder in ("NoW_Dataset/final_release_version", "final_release_version", ".")]
    photos = next((root for root in roots if (root / "iphone_pictures").is_dir()), roots[0]) / "iphone_pictures"
    cases = []
    for line in filter(None, map(str.strip, listed.read_text(errors="replace").splitlines())):
        subject, challenge, photo = Path(line).parts[-3:] if line.count("/") >= 2 else ("", "", "")
        if not subject:
            raise InputError(f"{listed}: {line!r} is not SUBJECT/CHALLENGE/PHOTO; it is the list that NoW gives out")
        truth = {
            "scan": _only(path / "scans" / subject, "*.obj", LAYOUTS["now"]),
            "landmarks": _only(path / "scans_lmks_onlypp" / subject, "*.pp", LAYOUTS["now"]),
        }
        name = str(Path(subject, challenge, photo).with_suffix(""))
        cases.append(Case(name, photos / subject / challenge / photo, challenge, truth))
    return _some(cases, path, LAYOUTS["now"])


def realy_cases(path: Path) -> list[Case]:
    """The cropped photos of REALY; the group is "frontal" or "side".

    Raises:
        InputError: when something of `LAYOUTS` is missing.
    """
    scale = _required(path / "metrical_scale.txt", LAYOUTS["realy"])
    cases = []
    for photo in _pictures(path / "REALY_image", "crop_image_*/**/*"):
        if not re.fullmatch(r"\d+(_\d+)*", photo.stem):
            continue
        subject, _, view = photo.stem.partition("_")
        region = path / "REALY_scan_region" / subject
        truth = {name: _required(region / f"{name}.obj", LAYOUTS["realy"]) for name in REGIONS}
        truth["keypoints"] = _required(path / "REALY_HIFI3D_keypoints" / f"{subject}.obj", LAYOUTS["realy"])
        cases.append(Case(photo.stem, photo, "side" if view else "frontal", truth | {"scale": scale}))
    return _some(sorted(cases, key=lambda case: [int(word) for word in case.name.split("_")]), path, LAYOUTS["realy"])


def aflw2000_cases(path: Path) -> list[Case]:
    """The photos of AFLW2000-3D.

    Raises:
        InputError: when something of `LAYOUTS` is missing.
    """
    photos = _pictures(path, "*")
    cases = [
        Case(photo.stem, photo, "", {"truth": _required(photo.with_suffix(".mat"), LAYOUTS["aflw2000"])})
        for photo in photos
    ]
    return _some(cases, path, LAYOUTS["aflw2000"])


def part_iou_cases(path: Path) -> list[Case]:
    """Photos with a label map each.

    Raises:
        InputError: when something of `LAYOUTS` is missing, or nobody knows the order of the labels.
    """
    label_order(path)
    cases = [
        Case(photo.stem, photo, "", {"labels": _required(path / "labels" / f"{photo.stem}.png", LAYOUTS["part_iou"])})
        for photo in _pictures(path / "images", "*")
    ]
    return _some(cases, path, LAYOUTS["part_iou"])


def label_order(path: Path) -> str:
    """What the label maps of `LAYOUTS` mean: a key of `parts.PARSER_LABELS`, "jaxface" if nothing is said.

    Raises:
        InputError: when it is another word.
    """
    order = str(read_dataset_file(path).get("labels", "jaxface"))
    if order not in parts.PARSER_LABELS:
        raise InputError(f"{path / DATASET_FILE}: labels {order!r} are not known; {', '.join(parts.PARSER_LABELS)} are")
    return order


def _pictures(folder: Path, pattern: str) -> list[Path]:
    return sorted(photo for photo in folder.glob(pattern) if photo.suffix.lower() in IMAGE_SUFFIXES)


def _required(path: Path, layout: str) -> Path:
    if not path.exists():
        raise InputError(f"{path}: not found. Expected is the folder as it is given out: {_one_line(layout)}")
    return path


def _only(folder: Path, pattern: str, layout: str) -> Path:
    found = sorted(folder.glob(pattern))
    return found[0] if found else _required(folder / pattern, layout)


def _some(cases: list[Case], path: Path, layout: str) -> list[Case]:
    if not cases:
        raise InputError(f"{path}: no photos found. Expected is the folder as it is given out: {_one_line(layout)}")
    seen = dict[str, Path]()
    for case in cases:
        if case.name in seen:
            raise InputError(f"{case.photo} and {seen[case.name]} share a name, by which their predictions go")
        seen[case.name] = case.photo
    return cases


def _one_line(layout: str) -> str:
    return " ".join(layout.split()[1:])


def read_picked_points(path: str | os.PathLike) -> Float[np.ndarray, "N 3"]:
    """The points of a file of picked points (.pp) as MeshLab writes it, in the file's order.

    Raises:
        InputError: when it holds none, or one without x, y and z.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    points = []
    for tag in re.findall(r"<point\b[^>]*>", text):
        found = dict(re.findall(r'\b([xyz])\s*=\s*"([^"]*)"', tag))
        try:
            points.append([float(found[axis]) for axis in "xyz"])
        except (KeyError, ValueError) as error:
            raise InputError(f"{path}: the point {tag} has no x, y and z; copy the file again") from error
    if not points:
        raise InputError(f"{path}: no picked points in it; it should hold <point x= y= z= /> as MeshLab writes")
    return np.array(points)


def read_aflw2000(path: str | os.PathLike) -> tuple[Float[np.ndarray, "68 2"], float]:
    """The 68 landmarks in pixels of the photo (y down, pixel centres at + 0.5), and the yaw in degrees.

    The files count pixels from 1 at the pixel's centre, as MATLAB does.

    Raises:
        InputError: when the file is damaged, or lacks pt3d_68 or Pose_Para.
    """
    arrays = read_matlab(path, ("pt3d_68", "Pose_Para"))
    points, pose = arrays.get("pt3d_68"), arrays.get("Pose_Para")
    if points is None or pose is None or points.shape != (3, 68) or pose.size < 3:
        raise InputError(f"{path}: has no pt3d_68 [3, 68] and Pose_Para [1, 7]; is it AFLW2000-3D's?")
    if not (np.isfinite(points[:2]).all() and np.isfinite(pose).all()):
        raise InputError(f"{path}: its pt3d_68 or Pose_Para are not all finite; copy it again")
    return points[:2].T.astype(np.float64) - 0.5, float(np.degrees(pose.ravel()[1]))


@dataclasses.dataclass(frozen=True)
class PredictedFace:
    """A face as `jaxface fit --out` and `jaxface reconstruct --out` leave it.

    Attributes:
        folder: of the face.
        record: its coefficients.json.
    """

    folder: Path
    record: Mapping

    def landmarks(self) -> Float[np.ndarray, "68 3"]:
        """ibug's 68 on the mesh, in millimetres, expression kept.

        Raises:
            ValueError: when the record holds something else.
        """
        found = np.array(self.record["landmarks68"]["model"], np.float64)
        if found.shape != (68, 3) or not np.isfinite(found).all():
            raise ValueError("landmarks68 are not 68 points of three finite numbers")
        return MM_PER_UNIT * found

    def image_landmarks(self) -> Float[np.ndarray, "68 2"]:
        """The same points in the photo, in pixels; those of the outline do not move to the outline that is seen."""
        matrix = np.array(self.record["camera"]["photo"]["matrix"], np.float64)
        x, y, w = matrix @ np.column_stack([self.landmarks() / MM_PER_UNIT, np.ones(68)]).T
        return np.stack([x / w, y / w], -1)

    def mesh(self) -> tuple[Float[np.ndarray, "V 3"], Integer[np.ndarray, "T 3"]]:
        """Vertices in millimetres, expression kept, and triangles: mesh.obj."""
        return read_obj(self.folder / "mesh.obj")

    def neutral(
        self, model: str | None = None
    ) -> tuple[Float[np.ndarray, "V 3"], Integer[np.ndarray, "T 3"], Float[np.ndarray, "68 3"]]:
        """Vertices in millimetres without expression, triangles and the 68 landmarks.

        Args:
            model: name or path of the face model; the record's name by default, which a file of your own needs not be.
        """
        name, coefficients = model or self.record["face_model"], self.record["coefficients"]
        face_model = _model(name)
        identity, rest = np.array(coefficients["identity"], np.float32), np.zeros(len(coefficients["expression"]))
        wanted = Coefficients.zeros(face_model)
        for kind in ("identity", "expression"):  # editions of a face model may differ in the second alone
            found, count = len(coefficients[kind]), getattr(wanted, kind).shape[-1]
            if found != count:
                raise InputError(
                    f"{self.folder}: has {found} {kind} coefficients, but {name} takes {count}; --model names the "
                    "face model that it was made with. Those of an earlier edition: fit the photo again"
                )
        shape = face_models.shape(face_model, jnp.asarray(identity), jnp.asarray(rest, jnp.float32))
        vertices = MM_PER_UNIT * np.asarray(shape, np.float64)
        return vertices, np.asarray(face_model.triangles), vertices[np.asarray(face_model.landmarks["68"])]

    def visible_parts(self) -> UInt8[np.ndarray, "H W"]:
        """Labels of the parts that are seen in the photo."""
        return decode_mask(self.folder / "visible_parts.png")


@functools.lru_cache(maxsize=2)
def _model(name: str):
    return load_face_model(name)


def predicted_faces(folder: Path) -> list[PredictedFace]:
    """The faces in a photo's folder, the largest first.

    Raises:
        InputError: when there is none, or a record cannot be read.
    """
    faces = []
    for number in range(len(list(folder.glob("face_*")))):
        path = folder / f"face_{number}" / "coefficients.json"
        try:
            faces.append(PredictedFace(path.parent, json.loads(path.read_text())))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error}); make it again with jaxface fit --overwrite") from error
    if not faces:
        raise InputError(f"{folder}: no prediction; python -m jaxface.fit PHOTO --out {folder.parent} makes one")
    return faces
