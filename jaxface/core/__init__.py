"""The foundations: camera, face model, coefficients, light, parts, landmarks, units. They need jax and numpy only."""
