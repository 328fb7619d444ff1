"""L2 clipping of one client's whole update."""

import math

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import PrivacyError

SMALLEST_BOUND = 1e-100  # far enough above the subnormal numbers for the error analysis below


def clip_l2(vector: np.ndarray, bound: float) -> tuple[np.ndarray, float, bool]:
    """Scale `vector` down so that its L2 norm is at most `bound`.

    The norm is taken of the vector over its largest entry, so nothing overflows or underflows.
    All rounding together (d squares, d additions, a root, a few products) is a relative error
    below (d + 8) 2^-52, and the vector is scaled unless the norm is within the bound by that
    margin: a vector up to that close to the bound is scaled too, by that little.

    Args:
        vector: float array of shape (d,).
        bound: the largest norm, at least 1e-100.

    Returns:
        The clipped vector, float64 of shape (d,); the norm before clipping (inf where it exceeds
        the largest float); whether the vector was scaled.

    Raises:
        ConfigError: `bound` is not a finite number of at least 1e-100.
        PrivacyError: `vector` holds NaN or infinity, or has another shape.

    **Guarantee**: the norm of the result in exact arithmetic is at most `bound`.
    """
    check.finite("bound", bound, at_least=SMALLEST_BOUND)
    values = np.asarray(vector, dtype=np.float64)
    if values.ndim != 1:
        raise PrivacyError(f"an update of shape {values.shape}: expected one flat vector")
    if not np.isfinite(values).all():
        raise PrivacyError(
            "the update holds NaN or infinity: expected finite values; training has diverged, "
            "lower the learning rate"
        )
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0.0:
        return values.copy(), 0.0, False
    direction = values / largest
    relative_norm = math.sqrt(float(np.dot(direction, direction)))
    norm = largest * relative_norm
    margin = 1.0 + (values.size + 8) * 2.0**-52
    if norm * margin <= bound:
        return values.copy(), norm, False
    return direction * (bound / (relative_norm * margin)), norm, True
