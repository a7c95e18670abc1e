import numpy as np
import pytest

from jaxface.core import parts
from jaxface.core.landmarks import MIRRORED_68
from jaxface.core.parts import LABELS, MIRRORED_LABELS, PARSER_LABELS, PARTS


def test_eight_parts_with_labels_one_to_eight():
    assert len(PARTS) == 8 and sorted(LABELS.values()) == list(range(1, 9))


def test_mirror_tables_are_their_own_inverse():
    np.testing.assert_array_equal(MIRRORED_LABELS[MIRRORED_LABELS], np.arange(10))
    np.testing.assert_array_equal(MIRRORED_68[MIRRORED_68], np.arange(68))
    assert parts.MIRRORED_PARTS["left_eye"] == "right_eye" and parts.MIRRORED_PARTS["nose"] == "nose"
    fixed = [i for i in range(68) if MIRRORED_68[i] == i]
    assert fixed == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]  # chin, bridge, nose, lips: the midline


@pytest.mark.parametrize(
    ("parser", "foreign", "part"),
    [
        ("celebamask", 1, "skin"), ("celebamask", 2, "nose"), ("celebamask", 4, "left_eye"),
        ("celebamask", 7, "right_brow"), ("celebamask", 11, "upper_lip"), ("celebamask", 12, "lower_lip"),
        ("lapa", 2, "left_brow"), ("lapa", 6, "nose"), ("lapa", 9, "lower_lip"),
        ("bisenet", 2, "left_brow"), ("bisenet", 5, "right_eye"), ("bisenet", 10, "nose"), ("bisenet", 13, "lower_lip"),
    ],
)  # fmt: skip
def test_parsers_labels(parser, foreign, part):
    assert PARSER_LABELS[parser][foreign] == LABELS[part]


def test_parsers_other_labels():
    assert [len(PARSER_LABELS[name]) for name in ("celebamask", "lapa", "bisenet")] == [19, 11, 19]
    assert PARSER_LABELS["celebamask"][10] == PARSER_LABELS["lapa"][8] == parts.FOREHEAD  # the inside of the mouth
    assert PARSER_LABELS["celebamask"][13] == PARSER_LABELS["bisenet"][17] == parts.BACKGROUND  # hair


def test_masks_and_labels_are_inverse():
    labels = np.random.default_rng(0).integers(0, 9, (12, 10)).astype(np.uint8)
    masks = {part: np.asarray(mask) for part, mask in parts.part_masks(labels).items()}
    np.testing.assert_array_equal(parts.labels_from_masks(masks), labels)


def test_small_parts_lie_over_the_skin():
    everywhere = np.ones((4, 4), bool)
    nose = np.zeros((4, 4), bool)
    nose[1, 1] = True
    labels = parts.labels_from_masks({"skin": everywhere, "nose": nose})
    assert labels[1, 1] == LABELS["nose"] and labels[0, 0] == LABELS["skin"]


def test_mask_points_are_pixel_centres():
    mask = np.zeros((3, 5), bool)
    mask[2, 4] = mask[0, 1] = True
    np.testing.assert_array_equal(parts.mask_points(mask), [[1.5, 0.5], [4.5, 2.5]])
    assert parts.mask_points(np.zeros((3, 5), bool)).shape == (0, 2)


def _face_with_brows(angle=0.0):
    """A round face of 64 x 64 pixels with two brows, turned by `angle` about its centre."""
    y, x = np.mgrid[:64, :64] + 0.5 - 32
    u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
    labels = np.where(x**2 + y**2 < 28**2, LABELS["skin"], 0).astype(np.uint8)
    labels[(np.abs(u - 10) < 5) & (np.abs(v + 10) < 1.5)] = LABELS["left_brow"]  # larger x: the subject's left
    labels[(np.abs(u + 10) < 5) & (np.abs(v + 10) < 1.5)] = LABELS["right_brow"]
    return labels, v


@pytest.mark.parametrize("angle", [0.0, 0.5, -0.8])
def test_forehead_cut_follows_the_brows(angle):
    labels, v = _face_with_brows(angle)
    cut = parts.cut_forehead(labels)
    assert (labels == LABELS["skin"]).sum() > (cut == LABELS["skin"]).sum() > 0
    assert v[cut == LABELS["skin"]].min() > -11.5 and v[cut == parts.FOREHEAD].max() < -8.5
    changed = cut != labels
    assert (labels[changed] == LABELS["skin"]).all() and (cut[changed] == parts.FOREHEAD).all()


def test_the_cut_is_the_same_for_pixels_and_points():
    labels, _ = _face_with_brows(0.3)
    left, right = (parts.mask_points(labels == LABELS[p]).mean(0) for p in ("left_brow", "right_brow"))
    skin = parts.mask_points(labels == LABELS["skin"])
    below = np.asarray(parts.below_brows(skin, left, right))
    kept = parts.mask_points(parts.cut_forehead(labels) == LABELS["skin"])
    np.testing.assert_array_equal(skin[below], kept)


def test_no_cut_without_both_brows():
    labels, _ = _face_with_brows()
    labels[labels == LABELS["left_brow"]] = 0
    np.testing.assert_array_equal(parts.cut_forehead(labels), labels)
