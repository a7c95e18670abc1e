"""Parts and landmarks of a new face model, found from pictures of it."""
