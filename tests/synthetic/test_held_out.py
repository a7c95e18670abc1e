import numpy as np
import pytest

import jaxface
from jaxface.synthetic.held_out import HELD_OUT_STYLES, HELD_OUT_TONES, limit_people, split_people
from jaxface.synthetic.people import SLOTS, load_people


@pytest.fixture(scope="module")
def people():
    return load_people(jaxface.load_face_model("anny"))


def test_learned_and_held_out_people_share_no_style_nor_skin(people):
    learned, held_out = (split_people(people, held_out=flag) for flag in (False, True))
    for slot in SLOTS:
        ones, others, everything = (set(some.slots[slot].names) - {"none"} for some in (learned, held_out, people))
        if slot in HELD_OUT_STYLES:
            assert not ones & others and ones | others == everything and others == set(HELD_OUT_STYLES[slot])
        else:
            assert ones == others == everything
    assert len(held_out.skin_tones) == len(HELD_OUT_TONES)
    np.testing.assert_array_equal(held_out.skin_tones, people.skin_tones[list(HELD_OUT_TONES)])
    assert len(learned.skin_tones) + len(held_out.skin_tones) == len(people.skin_tones)
    assert learned.slots["glasses"].names == learned.slots["lenses"].names


def test_a_style_keeps_its_vertices(people):
    few = limit_people(people, styles={"hair": ("afro01",), "hat": ("fedora_grey",)}, skin_tones=[1, 3])
    assert few.slots["hair"].names == ("none", "afro01")
    index = people.slots["hair"].names.index("afro01")
    np.testing.assert_array_equal(few.slots["hair"].offsets[1], people.slots["hair"].offsets[index])
    np.testing.assert_array_equal(few.brims[1], people.brims[people.slots["hat"].names.index("fedora_grey")])
    assert len(few.brims) == 2


def test_an_unknown_style_is_named(people):
    with pytest.raises(ValueError, match="hair has no style 'mohawk', but none"):
        limit_people(people, styles={"hair": ("mohawk",)}, skin_tones=[0])
