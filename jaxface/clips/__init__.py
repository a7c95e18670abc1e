"""Clips: frames, one face followed through them, and its coefficients smooth in time."""
