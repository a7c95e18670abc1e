"""Face parsers: label maps on disk, the network's on the crop, and what both need: islands out, others' faces out."""

import json
from collections import deque

import numpy as np
import pytest
from PIL import Image

from jaxface import preprocess
from jaxface.core import landmarks, parts
from jaxface.core.errors import InputError
from jaxface.core.parts import FOREHEAD, LABELS, PARSER_LABELS
from jaxface.networks import face_parsing, weight_files
from jaxface.photos import face_mesh, parsing, preparation
from jaxface.photos.alignment import Alignment, align_face
from jaxface.photos.detection import DetectedFace
from toys.face_points import TEMPLATE, toy_face_model

# Our label for each foreign one, written out by hand from the orders' descriptions.
EXPECTED = {
    "celebamask": [0, 8, 5, 0, 1, 2, 3, 4, 0, 0, 9, 6, 7, 0, 0, 0, 0, 0, 0],
    "lapa": [0, 8, 3, 4, 1, 2, 5, 6, 9, 7, 0],
    "bisenet": [0, 8, 3, 4, 1, 2, 0, 0, 0, 0, 5, 9, 6, 7, 0, 0, 0, 0, 0],
    "jaxface": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
}
# Centre (x right, y up) and radius of each part of a drawn face, in units; later ones lie over earlier ones.
DRAWN = {
    "skin": (0.0, 0.0, 1.0), "left_brow": (0.31, 0.5, 0.1), "right_brow": (-0.31, 0.45, 0.1), "nose": (0, -0.04, 0.13),
    "left_eye": (0.31, 0.29, 0.09), "right_eye": (-0.31, 0.29, 0.09), "upper_lip": (0, -0.33, 0.12),
    "lower_lip": (0, -0.5, 0.12),
}  # fmt: skip


def a_face(center, unit):
    """A detected face whose outline is a circle of that radius and whose eyes, nose and mouth are the template's."""
    points = np.tile(np.asarray(center, float), (face_mesh.POINTS, 1))
    angles = np.linspace(0, 2 * np.pi, len(face_mesh.FACE_OVAL), endpoint=False)
    points[face_mesh.FACE_OVAL] += unit * np.stack([np.sin(angles), -np.cos(angles)], axis=-1)
    for place, indices in zip(TEMPLATE, ([36, 39], [42, 45], [30], [48], [54]), strict=True):
        points[landmarks.IBUG_68[indices]] = center + unit * place[:2] * [1, -1]
    return DetectedFace(points, 0.9)


def draw_face(labels, center, unit):
    rows, columns = np.indices(labels.shape) + 0.5
    for part, (x, y, radius) in DRAWN.items():
        inside = np.hypot(columns - center[0] - unit * x, rows - center[1] + unit * y) < unit * radius
        labels[inside] = LABELS[part]


def foreign(labels, order):
    """The same map in another parser's labels."""
    return np.array([EXPECTED[order].index(label) for label in range(10)], np.uint8)[labels]


def pieces_of(mask):
    """The connected pieces of a mask, found by a walk over neighbours that share a side or a corner."""
    left, pieces = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        piece, queue = [], deque([left.pop()])
        while queue:
            row, column = queue.popleft()
            piece.append((row, column))
            for neighbour in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if neighbour in left:
                    left.remove(neighbour)
                    queue.append(neighbour)
        pieces.append(piece)
    return pieces


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("order", EXPECTED)
def test_each_orders_labels_are_translated(order, mode, tmp_path):
    values = np.arange(len(EXPECTED[order]), dtype=np.uint8)
    picture = Image.fromarray(np.stack([values, values[::-1]]))
    if mode == "P":
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    picture.save(tmp_path / "map.png")
    labels = parsing.read_label_map(tmp_path / "map.png", order, (2, len(values)))
    np.testing.assert_array_equal(labels, [EXPECTED[order], EXPECTED[order][::-1]])


def test_the_subjects_left_is_on_the_right_of_the_picture():
    labels = np.zeros((80, 80), np.uint8)
    draw_face(labels, (40, 40), 30)
    x = {part: np.nonzero(labels == LABELS[part])[1].mean() for part in ("left_eye", "right_eye")}
    assert x["left_eye"] > x["right_eye"]
    assert PARSER_LABELS["celebamask"][4] == LABELS["left_eye"]  # CelebAMask-HQ's l_eye is the subject's as well


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("L", (30, 40)), "is 30 x 40 pixels, but the photo is 40 x 30"),
        (Image.new("RGB", (40, 30)), "one channel, but this one is RGB"),
        (Image.new("I;16", (40, 30)), "8-bit pictures of one channel"),
        (Image.new("L", (40, 30), 11), r"holds the value 11 \(row 0, column 0\), but the largest label of lapa is 10"),
        (b"\x89PNG\r\n\x1a\n", "damaged|not a picture"),
        (b"", "empty"),
        (None, "no such label map"),
    ],
)
def test_bad_label_maps_are_named(picture, message, tmp_path):
    path = tmp_path / "bad.png"
    if isinstance(picture, bytes):
        path.write_bytes(picture)
    elif picture is not None:
        picture.save(path)
    with pytest.raises(InputError, match=message) as caught:
        parsing.read_label_map(path, "lapa", (30, 40))
    assert str(path) in str(caught.value)


def noisy_labels(seed):
    """Patches of labels with single pixels and small groups of others strewn over them."""
    random = np.random.default_rng(seed)
    labels = np.kron(random.integers(0, 10, (3, 4)), np.ones((8, 8), int)).astype(np.uint8)
    for _ in range(25):
        row, column = random.integers(0, 22), random.integers(0, 30)
        labels[row : row + random.integers(1, 4), column : column + random.integers(1, 4)] = random.integers(0, 10)
    return labels


@pytest.mark.parametrize("seed", range(6))
def test_islands_go_and_take_the_label_of_what_is_nearest(seed):
    labels, share = noisy_labels(seed), 0.15
    removed = np.zeros(labels.shape, bool)
    for label in range(1, 9):
        pieces = pieces_of(labels == label)
        for piece in pieces:
            if len(piece) < share * max(map(len, pieces)):
                removed[tuple(np.transpose(piece))] = True
    assert 5 < removed.sum() < removed.size / 2
    cleaned = parsing.remove_islands(labels, min_share=share)
    np.testing.assert_array_equal(cleaned[~removed], labels[~removed])
    kept = np.argwhere(~removed)
    for row, column in np.argwhere(removed):
        distances = ((kept - [row, column]) ** 2).sum(-1)
        nearest = kept[distances == distances.min()]
        assert cleaned[row, column] in labels[tuple(nearest.T)]


def test_a_clean_map_stays_as_it_is():
    labels = np.zeros((40, 40), np.uint8)
    np.testing.assert_array_equal(parsing.remove_islands(labels), labels)
    draw_face(labels, (20, 20), 18)
    np.testing.assert_array_equal(parsing.remove_islands(labels), labels)


@pytest.mark.parametrize("seed", range(4))
def test_pieces_outside_the_region_become_background(seed):
    labels = noisy_labels(seed)
    region = np.zeros(labels.shape, bool)
    region[6:15, 5:16] = True
    expected = np.zeros_like(labels)
    for label in range(1, 10):
        for piece in pieces_of(labels == label):
            if any(region[pixel] for pixel in piece):
                expected[tuple(np.transpose(piece))] = label
    assert 0 < (expected != labels).sum() < labels.size
    np.testing.assert_array_equal(parsing.keep_touching(labels, region), expected)


def test_a_raw_map_is_cleaned_and_its_forehead_cut():
    labels = np.zeros((120, 120), np.uint8)
    draw_face(labels, (60, 60), 50)
    cut = labels.copy()
    left, right = (np.argwhere(labels == LABELS[part]).mean(0) for part in ("left_brow", "right_brow"))
    for row, column in np.argwhere(labels == LABELS["skin"]):
        line = right[0] + (left[0] - right[0]) * (column - right[1]) / (left[1] - right[1])
        if row < line:
            cut[row, column] = FOREHEAD
    assert 500 < (cut == FOREHEAD).sum() < 5000
    noisy = labels.copy()
    noisy[80:82, 40:42] = LABELS["left_eye"]  # on a cheek
    noisy[2:4, 2:4] = LABELS["skin"]  # on the background
    whole = parsing.whole_picture(120)
    np.testing.assert_array_equal(parsing.clean_labels(noisy, None, whole), cut)
    np.testing.assert_array_equal(parsing.clean_labels(noisy, a_face((60, 60), 50), whole), cut)
    assert not parsing.clean_labels(labels, a_face((-200, 60), 50), whole).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "lapa"}, "--label-folder DIR belong together"),
        ({"label_folder": "maps"}, "belong together"),
        ({"labels": "lapa", "label_folder": "no/such/folder"}, "no/such/folder: no such folder"),
        ({"labels": "none", "label_folder": "."}, "unknown order of labels 'none'; there are celebamask, lapa"),
        ({"labels": "lapa", "label_folder": ".", "name": "dml_csr", "weights": "w"}, "exclude each other"),
        ({"name": "dml_csr"}, "needs --parser-weights"),
        ({"weights": "w.pth"}, "add --parser dml_csr"),
        ({"name": "faces"}, "unknown parser 'faces'; there are jaxface, mediapipe, dml_csr"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(InputError, match=message):
        parsing.create_parser(**options)


def test_mediapipe_needs_a_face_and_label_maps_a_name(tmp_path):
    photo = np.zeros((32, 32, 3), np.uint8)
    assert parsing.create_parser() is parsing.jaxface_labels
    assert parsing.create_parser("mediapipe") is parsing.mediapipe_labels
    with pytest.raises(InputError, match="no face was detected"):
        parsing.mediapipe_labels(photo, None, parsing.whole_picture(32))
    with pytest.raises(InputError, match="found by the photo's name"):
        parsing.LabelFolder(tmp_path, "lapa")(photo, None, parsing.whole_picture(32))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(200), None])
def test_weights_that_cannot_be_read_are_named(content, tmp_path):
    path = tmp_path / "parser.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"parser\.pth") as caught:
        parsing.create_parser("dml_csr", weights=path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_other_weights_than_dml_csrs_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "read_state", lambda path: {"fc.weight": np.ones((3, 2), np.float32)})
    with pytest.raises(InputError, match=r"other\.pth: the tensors do not fit DML-CSR: 631 missing: .* 1 unknown: fc"):
        parsing.create_parser("dml_csr", weights=tmp_path / "other.pth")


def test_the_network_sees_the_crop_and_its_labels_lie_over_it(monkeypatch):
    """A stand-in for the network that reads the label off the red channel: only the geometry is at stake."""
    seen = []

    def predict(images):
        seen.append(images)
        return np.round(images[..., 0] / 25).astype(np.uint8)

    monkeypatch.setattr(face_parsing, "read_dml_csr", lambda path: (None, None))
    monkeypatch.setattr(face_parsing, "label_predictor", lambda module, variables: predict)
    labels = np.zeros((300, 340), np.uint8)
    draw_face(labels, (200, 120), 70)
    photo = np.repeat(labels[..., None] * np.uint8(25), 3, axis=-1)
    face = a_face((200, 120), 70)
    crop, alignment = align_face(photo, face.landmarks68, toy_face_model(), size=96)
    result = parsing.create_parser("dml_csr", weights="file")(photo, face, alignment)
    assert seen[0].shape == (1, 473, 473, 3) and seen[0].dtype == np.uint8
    difference = np.asarray(Image.fromarray(seen[0][0]).resize((96, 96), Image.Resampling.BOX), int) - crop
    assert np.abs(difference).mean() < 2  # the same square, finer
    expected = parts.cut_forehead(alignment.crop_labels(labels))
    assert (result == expected).mean() > 0.95  # edges differ by what interpolation makes of them
    for label in range(10):
        assert (result[expected == label] == label).mean() > 0.6
    shifted = parsing.create_parser("dml_csr", weights="file")(
        photo, face, Alignment(alignment.scale, alignment.offset_x - 60, alignment.offset_y, 96, alignment.photo_size)
    )
    assert not shifted[:, 86:].any()  # beyond the photo's edge


@pytest.mark.slow
def test_the_predictor_translates_the_networks_labels(quick_compilation):
    """Of a network whose weights are all zero but for the last bias, every pixel has the label of that bias."""
    import jax
    import jax.numpy as jnp

    module = face_parsing.DmlCsr(classes=11, stage_sizes=(1, 1, 1, 1), width=8)
    image = np.zeros((1, 33, 33, 3), np.uint8)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(image.shape, jnp.float32))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    variables["params"]["layer6"]["conv4"]["bias"][9] = 1
    labels = face_parsing.label_predictor(module, variables)(image)
    assert labels.shape == (1, 33, 33) and labels.dtype == np.uint8
    assert (labels == LABELS["lower_lip"]).all()  # LaPa's label 9


@pytest.fixture
def two_faces(tmp_path, monkeypatch):
    """A photo of two drawn faces with its label map in LaPa's order, and a detector that knows them."""
    places = [((110.0, 130.0), 60.0), ((240.0, 140.0), 40.0)]
    labels = np.zeros((260, 300), np.uint8)
    for center, unit in places:
        draw_face(labels, center, unit)
    (tmp_path / "photos").mkdir()
    (tmp_path / "maps").mkdir()
    photo = np.random.default_rng(0).integers(0, 256, (260, 300, 3)).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photos" / "pair.jpg")
    Image.fromarray(foreign(labels, "lapa")).save(tmp_path / "maps" / "pair.png")
    monkeypatch.setattr(
        preparation, "detect_faces_in", lambda images: [[a_face(*place) for place in places] for _ in images]
    )
    monkeypatch.setattr(preparation, "load_face_model", lambda name: toy_face_model())
    return tmp_path, places


def arguments(folder, *options):
    return [str(folder / "photos"), str(folder / "out"), "--label-folder", str(folder / "maps"), *options]


def test_the_command_line_with_label_maps_on_disk(two_faces):
    folder, places = two_faces
    assert preprocess.main(arguments(folder, "--labels", "lapa", "--size", "112")) == 0
    for index, (center, unit) in enumerate(places):
        sample = folder / "out" / "pair" / f"face_{index}"
        alignment = Alignment.from_dict(json.loads((sample / "landmarks.json").read_text())["alignment"])
        alone = np.zeros((260, 300), np.uint8)
        draw_face(alone, center, unit)
        expected = np.zeros((112, 112), np.uint8)
        for row, column in np.ndindex(112, 112):
            x = (column + 0.5 - alignment.offset_x) / alignment.scale
            y = (row + 0.5 - alignment.offset_y) / alignment.scale
            if 0 <= x < 300 and 0 <= y < 260:
                expected[row, column] = alone[int(y), int(x)]
        np.testing.assert_array_equal(np.array(Image.open(sample / "labels.png")), parts.cut_forehead(expected))
        assert len(np.unique(expected)) == 9
    settings = json.loads((folder / "out" / "dataset.json").read_text())
    assert settings["labels"] == "jaxface" and settings["parser"] == "lapa labels on disk"
    with pytest.raises(InputError, match="was made with parser 'lapa labels on disk'"):
        preprocess.main([str(folder / "photos"), str(folder / "out"), "--size", "112"])


def test_faces_without_labels_are_left_out(two_faces, capsys):
    folder, places = two_faces
    labels = np.zeros((260, 300), np.uint8)
    draw_face(labels, *places[1])
    Image.fromarray(foreign(labels, "bisenet")).save(folder / "maps" / "pair.png")
    assert preprocess.main(arguments(folder, "--labels", "bisenet", "--size", "64")) == 0
    assert json.loads((folder / "out" / "pair" / "photo.json").read_text())["faces"] == 1
    Image.fromarray(np.zeros_like(labels)).save(folder / "maps" / "pair.png")
    assert preprocess.main(arguments(folder, "--labels", "bisenet", "--size", "64", "--overwrite")) == 2
    assert (
        "pair.jpg: no part has a label where the face was found (x 50 to 170, y 70 to 190)" in capsys.readouterr().err
    )


def test_photos_whose_label_map_is_bad_are_reported(two_faces, capsys):
    folder, _ = two_faces
    Image.open(folder / "photos" / "pair.jpg").save(folder / "photos" / "lone.jpg")
    assert preprocess.main(arguments(folder, "--labels", "lapa", "--size", "64")) == 1
    assert "lone.png: no such label map" in capsys.readouterr().err
    Image.open(folder / "photos" / "pair.jpg").save(folder / "maps" / "pair.png")
    assert preprocess.main(arguments(folder, "--labels", "lapa", "--size", "64", "--overwrite")) == 2
    assert "pair.png: labels and masks are 8-bit" in capsys.readouterr().err


def test_label_maps_among_the_photos_are_no_photos(two_faces):
    folder, _ = two_faces
    (folder / "maps" / "pair.png").rename(folder / "photos" / "pair.png")
    options = {"labels": "lapa", "label_folder": folder / "photos", "size": 64}
    report = preparation.preprocess_files([folder / "photos"], folder / "out", **options)
    assert report.done == 1 and not report.failures
    with pytest.raises(InputError, match="no photos are left"):
        preparation.preprocess_files([folder / "photos" / "pair.png"], folder / "other", **options)


def test_photos_that_would_share_a_label_map(two_faces):
    folder, _ = two_faces
    Image.open(folder / "photos" / "pair.jpg").save(folder / "photos" / "pair.bmp")
    with pytest.raises(InputError, match=r"pair\.bmp and .*pair\.jpg would share the label map"):
        preprocess.main(arguments(folder, "--labels", "lapa"))


def test_folders_made_before_there_were_parsers_go_on(two_faces):
    folder, _ = two_faces
    options = {"size": 64, "parser": "mediapipe"}
    report = preparation.preprocess_files([folder / "photos"], folder / "out", **options)
    settings = json.loads((folder / "out" / "dataset.json").read_text())
    assert report.done == 1 and settings.pop("parser") == "mediapipe"
    (folder / "out" / "dataset.json").write_text(json.dumps(settings))
    assert preparation.preprocess_files([folder / "photos"], folder / "out", **options).skipped == 1
