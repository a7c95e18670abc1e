"""The same network and people as encoder_people.py, for parts and points alone: a parser without coefficients.

    python -m jaxface.train --config configs/parser_people.py

What ships is trained by encoder_people.py, whose network is the parser as well: one training for both costs hardly more
than one for this. This is for those who want a parser of their own, with other classes or people.
"""

from ml_collections import ConfigDict

from jaxface.train import preset


def get_config() -> ConfigDict:
    """The configuration; configs/quickstart.py and configs/encoder_people.py explain the fields."""
    config = preset("encoder_people")
    config.name = "parser_people"
    config.output_dir = "outputs/parser_people"
    for term in ("reprojection", "shape", "color", "coefficients", "spread"):
        config.loss[term] = 0.0
    return config
