"""Every type that crosses the wire. Nothing else does; `codec` is their only encoder."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .privacy.release import PrivateUpdate

__all__ = ["GlobalModel", "PrivateUpdate", "RoundRequest", "SiloStatus"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundRequest:
    """What the coordinator asks of every silo: one release of the plan.

    Attributes:
        code_digest: the code that the coordinator believes the silo runs.
        head: (n_head,) item numbers of the Gram, chosen from noisy popularity; (0,) otherwise.
    """

    plan_digest: str
    code_digest: str
    kind: str
    round_num: int
    attempt: int
    head: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SiloStatus:
    """Who is there: public facts only.

    Attributes:
        ledger_seq: number of the newest ledger record.
        ledger_digest: its hash.
    """

    silo_id: str
    plan_digest: str
    code_digest: str
    ledger_seq: int
    ledger_digest: str


@dataclass(frozen=True, kw_only=True, eq=False)
class GlobalModel:
    """What all silos learned together: post-processing of released sums and public facts.

    Attributes:
        popularity: (n_items,) float32, de-noised weight of each item [customers, 1/sqrt(n_u)].
        head: (n_head,) items of the Gram, most popular first.
        gram_factors: (n_head, rank) float32; F F^T is the de-noised Gram of the head.
        gram_diagonal: (n_head,) float32, de-noised diagonal.
        item_in: (n_items, rank) float32; a history's rows of it are added up ...
        item_out: (n_items, rank) float32; ... and multiplied with these to score all items.
        noise_edge: largest eigenvalue that noise alone would show [1].
        spectrum: (n_head,) float32, eigenvalues of the noisy Gram, largest first [1].
        ridge: what was added to the Gram's diagonal before the solve [1].
    """

    plan_digest: str
    catalogue_digest: str
    popularity: NDArray[np.float32]
    head: NDArray[np.int64]
    gram_factors: NDArray[np.float32]
    gram_diagonal: NDArray[np.float32]
    item_in: NDArray[np.float32]
    item_out: NDArray[np.float32]
    spectrum: NDArray[np.float32]
    noise_edge: NDArray[np.float32]
    ridge: NDArray[np.float32]
