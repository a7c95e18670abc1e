"""People to learn from, and others to try on them what was learned: with skins and styles that were never seen."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxface.synthetic.people import People, Slot

HELD_OUT_STYLES = {
    "hair": ("short03", "bob02"),
    "brows": ("eyebrow004", "eyebrow009"),
    "glasses": ("square",),
    "lenses": ("square",),
}
"""Styles that networks that ship were not trained on, so that these can tell what they are worth."""

HELD_OUT_TONES = (2, 7)
"""Skins likewise: indices into `people.SKIN_TONES`."""


def split_people(people: People, *, held_out: bool) -> People:
    """The people to learn from, or those with other skins, hair, brows and glasses, to try on them what was learned."""
    left = {
        name: tuple(style for style in people.slots[name].names[1:] if (style in chosen) == held_out)
        for name, chosen in HELD_OUT_STYLES.items()
    }
    tones = [index for index in range(len(people.skin_tones)) if (index in HELD_OUT_TONES) == held_out]
    return limit_people(people, styles=left, skin_tones=tones)


def limit_people(people: People, *, styles: Mapping[str, Sequence[str]], skin_tones: Sequence[int]) -> People:
    """The people with fewer skins and styles: to learn from some, and to try on others what was learned.

    Args:
        people: from `load_people`.
        styles: per slot the names of those that are left, beside "none"; all of a slot that is not named.
        skin_tones: indices of those that are left.

    Raises:
        ValueError: for a name that a slot does not have.
    """
    slots, brims = dict(people.slots), people.brims
    for name, wanted in styles.items():
        slot = slots[name]
        if unknown := set(wanted) - set(slot.names):
            raise ValueError(f"{name} has no style {min(unknown)!r}, but {', '.join(slot.names)}")
        kept = [index for index, style in enumerate(slot.names) if style in ("none", *wanted)]
        slots[name] = Slot(
            tuple(slot.names[index] for index in kept),
            *(getattr(slot, field.name)[np.array(kept)] for field in dataclasses.fields(Slot)[1:]),
        )
        brims = brims[np.array(kept)] if name == "hat" else brims
    return dataclasses.replace(people, slots=slots, brims=brims, skin_tones=people.skin_tones[np.array(skin_tones)])
