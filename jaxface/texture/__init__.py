"""Textures: colours of photos laid on the face model's surface, completed and merged."""
