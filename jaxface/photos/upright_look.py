"""What the network that ships says of one aligned crop, whose head is turned upright for it."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxface.networks.people_answer import PeopleAnswer
from jaxface.photos.turning import template_of, turned_picture, upright_turn


def upright_look(
    image: UInt8[np.ndarray, "S S 3"], landmarks: Float[np.ndarray, "68 2"] | None = None
) -> tuple[PeopleAnswer, int]:
    """Looks at a crop; the answer, of one picture, is about the turned crop, and the turn in degrees comes with it.

    `photos.turning` turns answers back, by minus the turn.

    Args:
        image: an aligned crop of any size.
        landmarks: of the face, in pixels of the crop; without, nothing is turned.

    Raises:
        ModuleNotFoundError: when Flax is not installed.
    """
    from jaxface.networks.parser import load_parser  # loads Flax
    from jaxface.networks.people_network import look

    parser = load_parser()
    turn = 0 if landmarks is None else upright_turn(landmarks, template_of(parser.face_model))
    upright = Image.fromarray(np.ascontiguousarray(turned_picture(image, turn)))
    small = upright.resize((parser.image_size, parser.image_size), Image.Resampling.BILINEAR)
    return look(parser.network, parser.variables, np.asarray(small)[None]), turn
