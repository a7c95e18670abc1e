"""Training an encoder: data, objective, step, devices, checkpoints, evaluation."""
