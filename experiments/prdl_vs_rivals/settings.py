"""How much a run does."""

import dataclasses

from methods import METHODS


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much to do.

    Attributes:
        size: side of the label maps that are fitted, px.
        anchor_stride: PRDL's anchors lie on every n-th pixel of them.
        steps: of Adam.
        chunk: steps between two measurements on the way.
        batch: faces fitted at once.
        factors: of the rates, tried on the tuning faces, with others beyond where the best is the first or the last;
            variants of a loss are compared at the middle one.
        most_factors: tried at most, variants included.
        tuning_faces: synthetic faces to choose variant and factor with.
        test_faces: others to measure on; the portraits come on top.
        reach_faces: others again, for the distance that a start may have.
        reach_steps: of Adam for these.
        shifts: such distances in px of the 224 picture.
        turns: likewise, yaw in degrees.
        methods: losses that take part.
        variants: of each loss at most so many take part.
    """

    size: int = 144
    anchor_stride: int = 6
    steps: int = 60
    chunk: int = 5
    batch: int = 9
    factors: tuple[float, ...] = (1.0, 2.0, 4.0)
    most_factors: int = 9
    tuning_faces: int = 9
    test_faces: int = 52
    reach_faces: int = 4
    reach_steps: int = 100
    shifts: tuple[int, ...] = (0, 10, 20, 40, 80)
    turns: tuple[int, ...] = (10, 20, 40)
    methods: tuple[str, ...] = tuple(METHODS)
    variants: int = 2


FULL = Settings()

QUICK = Settings(
    size=56,
    anchor_stride=4,
    steps=12,
    chunk=6,
    batch=4,
    factors=(2.0, 4.0),
    most_factors=2,
    tuning_faces=2,
    test_faces=2,
    reach_faces=1,
    reach_steps=6,
    shifts=(0, 20),
    turns=(20,),
    methods=("pixels", "prdl"),
    variants=1,
)
