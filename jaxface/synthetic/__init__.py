"""Random people drawn by the face model: coefficients, scenes, pictures, and the source that trains on them."""
