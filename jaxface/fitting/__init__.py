"""Fitting the face model to photos by optimisation: landmarks first, then light and skin, then parts and colours."""

from jaxface.fitting.descent import FitWeights, fit_faces
from jaxface.fitting.priors import Prior, coefficient_prior

__all__ = ["FitWeights", "Prior", "coefficient_prior", "fit_faces"]
