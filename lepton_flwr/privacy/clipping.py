"""L2 clipping of one client's whole update, or of each of its layers."""

import math
from collections.abc import Sequence

import numpy as np

from lepton_flwr import _validate as check
from lepton_flwr.errors import PrivacyError

# In the configuration of a training round: whether layers are clipped one by one.
CLIP_BY_LAYER = "clip-by-layer"
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


def clip_by_layer(arrays: Sequence[np.ndarray], bound: float) -> tuple[np.ndarray, bool]:
    """Clip each of k arrays to L2 norm bound / sqrt(k), so that all together keep to `bound`.

    The sensitivity, and so noise and accounting, are those of clipping the whole to `bound`.

    Args:
        arrays: one for each layer, of any shapes.
        bound: the largest norm of all together, at least 1e-100.

    Returns:
        All of them in one float64 vector; whether any was scaled.

    Raises:
        ConfigError: `bound` is not a finite number of at least 1e-100.
        PrivacyError: an array holds NaN or infinity, or there is none.

    **Guarantee**: the norm of the result in exact arithmetic is at most `bound`.
    """
    check.finite("bound", bound, at_least=SMALLEST_BOUND)
    if not arrays:
        raise PrivacyError("no array: expected the layers of an update")
    share = bound / math.sqrt(len(arrays))
    clipped = [clip_l2(np.reshape(array, -1), max(share, SMALLEST_BOUND)) for array in arrays]
    # Once more as a whole: the shares may have been rounded up.
    whole, _, _ = clip_l2(np.concatenate([values for values, _, _ in clipped]), bound)
    return whole, any(scaled for _, _, scaled in clipped)
