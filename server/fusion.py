"""Noisy gains of the fusion settings -> weights of the parts: post-processing of one release."""

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.models.terms import FUSION_CLIP, FUSION_WEIGHTS, PlannedModels
from fondaco.shared.privacy.plan import RunPlan

Array = NDArray[np.float64]

SURE = 1.5
"""A part gets a weight if its best setting gains this many standard deviations of the noise; one
that is worth nothing then gets a weight in a run out of four, whose harm is within the noise."""
OWN_WEIGHT = 3.0
"""A bucket leaves the common weight if its own best gains this many more."""


def reference_alone(plan: RunPlan) -> NDArray[np.float32]:
    """Return (n_buckets, n_parts) weights that leave everything to the first part."""
    weights = np.zeros(PlannedModels.of_plan(plan).fusion_shape, dtype=np.float32)
    weights[:, 0] = 1.0
    return weights


def choose_weights(
    plan: RunPlan, total: NDArray[np.int64], noise_stddev: float
) -> NDArray[np.float32]:
    """Return (n_buckets, n_parts) weights; a part that does not help gets 0.

    Noisy *sums* of gains are compared, so no number of customers is needed.

    Args:
        plan: its models.
        total: (fusion_dim,) joint release [grid units].
        noise_stddev: of each number [clip norms].
    """
    weights = reference_alone(plan)
    n_buckets, n_parts = weights.shape
    gains = total.reshape(n_buckets, n_parts - 1, len(FUSION_WEIGHTS)) / plan.grid * FUSION_CLIP
    noise = noise_stddev * FUSION_CLIP
    for part in range(n_parts - 1):
        weights[:, part + 1] = _weights_of_part(gains[:, part], noise)
    return weights


def _weights_of_part(gains: Array, noise: float) -> Array:
    """(n_buckets,) from the (n_buckets, n_settings) gains of one part."""
    n_buckets = len(gains)
    settings = np.array([0.0, *FUSION_WEIGHTS])
    gains = np.concatenate([np.zeros((n_buckets, 1)), gains], axis=1)
    together = gains.sum(axis=0)
    common = int(np.argmax(together))
    if together[common] < SURE * noise * np.sqrt(n_buckets):
        common = 0
    chosen = np.full(n_buckets, common)
    for bucket, mine in enumerate(gains):
        best = int(np.argmax(mine))
        if mine[best] - mine[common] > OWN_WEIGHT * noise:
            chosen[bucket] = best
    return np.asarray(settings[chosen])
