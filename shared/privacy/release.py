"""The one door out: clipped sums that have been paid for become a `PrivateUpdate`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import RefusalError
from .clipping import ClippedSum
from .events import EVERYBODY
from .ledger import Debit
from .noise import NoiseStream, Sample

MAX_MOVED = 2.0**50
"""Released parameters are cut off here, whatever they did: an error would say something."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PrivateUpdate:
    """What a silo sends: a noisy integer sum and public labels, nothing else.

    Made by `release` at the silo and by `codec` at the receiver; a test holds that.

    Attributes:
        values: (dim,) int64 [grid units].
        debit_seq: the ledger record that paid for it.
    """

    silo_id: str
    plan_digest: str
    kind: str
    round_num: int
    attempt: int
    debit_seq: int
    values: NDArray[np.int64]


def release(total: ClippedSum, debit: Debit, noise: NoiseStream) -> PrivateUpdate:
    """Return `total` plus fresh noise at the scale that `debit` paid for.

    Raises:
        RefusalError: the sum's length, dtype, sensitivity or sampling is not the planned one,
            several steps were planned, or the debit has served a release already.
    """
    if debit.event.steps != 1:
        raise RefusalError(f"{debit.event.kind} was planned in {debit.event.steps} steps")
    _use(debit)
    return _update(debit, _noisy(total, debit, noise))


def release_steps(
    start: Array,
    gradient: Callable[[Array, Sample], ClippedSum],
    move: Callable[[Array, Array], Array],
    debit: Debit,
    noise: NoiseStream,
    *,
    n_users: int,
) -> PrivateUpdate:
    """Return how far noisy local steps move `start` [1 / grid].

    Everything that leaves is computed by `move` from `start` and noisy sums alone.

    Args:
        start: (dim,) parameters as they came in the request, hence public.
        gradient: (parameters, sample) -> clipped sum of the sampled customers; sees data.
        move: (parameters, (dim,) noisy sum [clip norms]) -> new parameters; sees no data.
        debit: pays for `steps` sums.
        noise: for sums and samples.
        n_users: customers of the silo.

    Raises:
        RefusalError: a sum or its sample is not the planned one, a length does not fit, or the
            debit has served already.
    """
    _use(debit)
    event = debit.event
    start = parameters = _of_length(start, event.dim)
    for _ in range(event.steps):
        sample = noise.sample(n_users, event.sampling_ppm)
        total = gradient(parameters.copy(), sample)
        if total.sample is not sample:
            raise RefusalError(f"{event.kind} was computed from another sample than was drawn")
        noisy = _noisy(total, debit, noise) / event.sens_grid
        parameters = _of_length(move(parameters.copy(), noisy), event.dim)
    moved = np.nan_to_num((parameters - start) * event.sens_grid, nan=0.0)
    return _update(debit, np.rint(np.clip(moved, -MAX_MOVED, MAX_MOVED)).astype(np.int64))


def _of_length(parameters: Array, dim: int) -> Array:
    if parameters.shape != (dim,):
        raise RefusalError(f"parameters of shape {parameters.shape}, but {dim} were planned")
    return parameters.astype(np.float64)


def _use(debit: Debit) -> None:
    if debit.released or debit.used:
        kind = debit.event.kind
        raise RefusalError(f"{kind} was released under this debit; send the same bytes")
    object.__setattr__(debit, "used", True)


def _noisy(total: ClippedSum, debit: Debit, noise: NoiseStream) -> NDArray[np.int64]:
    event = debit.event
    if total.values.dtype != np.int64:
        raise RefusalError(f"{event.kind} holds {total.values.dtype}, but only integers leave")
    sample = total.sample
    sampling_ppm = EVERYBODY if sample is None else sample.sampling_ppm
    computed = total.values.shape, total.sens_grid, sampling_ppm
    if computed != ((event.dim,), event.sens_grid, event.sampling_ppm):
        raise RefusalError(
            f"{event.kind} of length, sensitivity and sampling {computed} was computed, but "
            f"{event.dim, event.sens_grid, event.sampling_ppm} were paid for"
        )
    if sample is not None and sampling_ppm != EVERYBODY:
        if sample.used:
            raise RefusalError(f"{event.kind} was computed from a sample that has served before")
        object.__setattr__(sample, "used", True)
    kept = np.clip(total.values, -debit.bound, debit.bound)
    return np.asarray(kept + noise.gaussian(event.dim, event.silo_stddev_grid))


def _update(debit: Debit, values: NDArray[np.int64]) -> PrivateUpdate:
    return PrivateUpdate(
        silo_id=debit.silo_id,
        plan_digest=debit.plan_digest,
        kind=debit.event.kind,
        round_num=debit.event.round_num,
        attempt=debit.attempt,
        debit_seq=debit.seq,
        values=values,
    )
