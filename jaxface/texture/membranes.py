"""Seamless joins: differences known in one place, carried smoothly to all others (Poisson image editing).

Pasting a layer with its gradients kept and its border fitted is the same as adding to it the harmonic membrane that
its difference to the surroundings spans at the border (Perez, Gangnet and Blake 2003, eq. 2 to 4). The membrane is
smooth, so a coarse grid holds it, however fine the layer.
"""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Bool, Float, Integer

STIFFNESS = 10.0
"""Of a texel that is fully known, against 1 between neighbours: it keeps its value, but for single odd texels."""


def membrane(
    values: Float[np.ndarray, "H W C"],
    weights: Float[np.ndarray, "H W"],
    covered: Bool[np.ndarray, "H W"],
    *,
    links: Integer[np.ndarray, "N 2"] | None = None,
    screening: float = 1e-6,
) -> Float[np.ndarray, "H W C"]:
    """The smoothest surface through values that are known in places: a screened Poisson equation, solved exactly.

    Minimises sum_ij (m_i - m_j)^2 + sum_i STIFFNESS w_i (m_i - v_i)^2 + screening sum_i m_i^2 over neighbours i, j that
    are both covered; there is no other tie between pieces of the atlas than `links`.

    Args:
        values: what is known.
        weights: how well it is known, from 0 (not at all; the value may be anything finite) to 1.
        covered: the texels that are part of a surface.
        links: pairs of texels, as row * W + column, that are neighbours on the surface but not in the atlas; pairs with
            a texel that is not covered do not count.
        screening: pull towards zero; the membrane falls off over about 1 / sqrt(screening) texels.

    Returns:
        The membrane; zero where nothing is covered.
    """
    result = np.zeros(values.shape, np.float32)
    count = int(covered.sum())
    if count == 0:
        return result
    number = np.full(covered.shape, -1)
    number[covered] = np.arange(count)
    pairs = [np.stack([number[:, :-1], number[:, 1:]], -1), np.stack([number[:-1], number[1:]], -1)]
    if links is not None:
        pairs.append(number.ravel()[links])
    edges = np.concatenate([pair.reshape(-1, 2) for pair in pairs])
    edges = edges[(edges >= 0).all(1) & (edges[:, 0] != edges[:, 1])]
    upper = scipy.sparse.coo_array((np.ones(len(edges)), tuple(edges.T)), shape=(count, count)).tocsc()
    ties = upper + upper.T
    known = STIFFNESS * np.asarray(weights, np.float64)[covered]
    system = scipy.sparse.diags_array(ties.sum(1) + known + screening, format="csc") - ties
    # Symmetric and positive definite: no pivoting, and an order that keeps the factors thin.
    options = {"SymmetricMode": True}
    factors = scipy.sparse.linalg.splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    result[covered] = factors.solve(known[:, None] * values[covered])
    return result
