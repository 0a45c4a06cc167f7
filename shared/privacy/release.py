"""The one door out: a clipped sum that has been paid for becomes a `PrivateUpdate`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import RefusalError
from .clipping import ClippedSum
from .ledger import Debit
from .noise import NoiseStream


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
        RefusalError: the sum's length, dtype or sensitivity is not the planned one, or the
            debit has served a release already.
    """
    event = debit.event
    if debit.released or debit.used:
        raise RefusalError(f"{event.kind} was released under this debit; send the same bytes")
    if total.values.dtype != np.int64:
        raise RefusalError(f"{event.kind} holds {total.values.dtype}, but only integers leave")
    if len(total.values) != event.dim or total.sens_grid != event.sens_grid:
        raise RefusalError(
            f"{event.kind} of length {len(total.values)} and sensitivity {total.sens_grid} was "
            f"computed, but {event.dim} and {event.sens_grid} were paid for"
        )
    object.__setattr__(debit, "used", True)
    return PrivateUpdate(
        silo_id=debit.silo_id,
        plan_digest=debit.plan_digest,
        kind=event.kind,
        round_num=event.round_num,
        attempt=debit.attempt,
        debit_seq=debit.seq,
        values=total.values + noise.gaussian(event.dim, event.silo_stddev_grid),
    )
