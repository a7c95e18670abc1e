"""Fitting the face model to photos: first as a detector's points say, then light, parts and colours."""

from jaxface.fitting.descent import Fit, FitWeights, SolvedFace, fit_faces
from jaxface.fitting.evidence import Calibration, Evidence, evidence_for, people_prior
from jaxface.fitting.priors import Prior, coefficient_prior

__all__ = [
    "Calibration",
    "Evidence",
    "Fit",
    "FitWeights",
    "Prior",
    "SolvedFace",
    "coefficient_prior",
    "evidence_for",
    "fit_faces",
    "people_prior",
]
