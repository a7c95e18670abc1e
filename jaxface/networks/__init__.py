"""Networks: the encoders that turn an image into face coefficients."""

from jaxface.networks.encoder import ENCODERS, Encoder, create_encoder

__all__ = ["ENCODERS", "Encoder", "create_encoder"]
