"""Evidence of landmarks that err little, each by itself: for tests of what a fit does with good points."""

import dataclasses

import numpy as np

from jaxface.fitting.evidence import Calibration, Evidence, landmark_evidence

YAWS = np.array([-60.0, 0.0, 60.0], np.float32)


def toy_calibration(model, *, points=478, rank=3, noise=1.0, correlated=0.0, seed=0) -> Calibration:
    """A table of that many points anywhere on a face model."""
    random = np.random.default_rng(seed)
    triangles = np.asarray(model.triangles)[random.integers(0, len(model.triangles), points)]
    return Calibration(
        face_model=model.name,
        vertices=len(model.mean_shape),
        detector="toy",
        points=np.arange(points),
        triangles=triangles,
        barycentric=random.dirichlet(np.ones(3), points).astype(np.float32),
        yaws=YAWS,
        variances=noise**2 * np.float32([[2.0], [1.0], [2.0]]) * np.ones((3, 2 * points), np.float32),
        factors=(correlated * random.normal(size=(3, 2 * points, rank))).astype(np.float32),
        identity_mean=np.zeros(model.identity_basis.shape[-1], np.float32),
        spread=np.zeros(2, np.float32),
        made="by a test",
    )


def good_landmarks(model, *, noise=1.0) -> Evidence:
    """The 51 inner landmarks, each with an error of its own."""
    evidence = landmark_evidence(model, toy_calibration(model, noise=noise))
    return dataclasses.replace(evidence, variances=np.full_like(evidence.variances, noise**2))
