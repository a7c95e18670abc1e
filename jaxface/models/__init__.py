"""Face models: files of BFM, FaceVerse, FLAME, ICT and jaxface's own, read, checked, described and converted."""

from jaxface.models.registry import load_face_model

__all__ = ["load_face_model"]
