"""Every type that crosses the wire. Nothing else does; `codec` is their only encoder."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .chain.canonical import canonical_json
from .privacy.release import PrivateUpdate

__all__ = ["GlobalModel", "MaskedUpdate", "PrivateUpdate", "RoundRequest", "SiloStatus", "presence"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundRequest:
    """What the coordinator asks of every silo: one release of the plan.

    Attributes:
        code_digest: the code that the coordinator believes the silo runs.
        model_digest: the global model that the statistic builds upon, "" if none.
        head: (n_head,) item numbers of the Gram, chosen from noisy popularity; (0,) otherwise.
        parameters: (n_parameters,) float32 of the model that is learned; (0,) otherwise.
    """

    plan_digest: str
    code_digest: str
    kind: str
    round_num: int
    attempt: int
    model_digest: str
    head: NDArray[np.int64]
    parameters: NDArray[np.float32]


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
class MaskedUpdate:
    """A `PrivateUpdate` under masks: only the sum over all survivors can be read.

    Attributes:
        participants: digest of the silos among whom the masks cancel.
        values: (dim,) uint32 or uint64 words of the plan's ring.
    """

    silo_id: str
    plan_digest: str
    kind: str
    round_num: int
    attempt: int
    debit_seq: int
    participants: str
    values: NDArray[np.uint32] | NDArray[np.uint64]


def presence(plan_digest: str, silo_id: str, nonce: bytes) -> bytes:
    """Return what a silo signs at the roll call, so that nobody can answer in its place."""
    return canonical_json(["fondaco-present-v1", plan_digest, silo_id, nonce.hex()]).encode()


@dataclass(frozen=True, kw_only=True, eq=False)
class GlobalModel:
    """What all silos learned together: post-processing of released sums and public facts.

    Attributes:
        after_round: it rests on the plan's rounds up to this one.
        noisy_popularity: (n_items,) float32, as released: sums of 1 / sqrt(n_u) plus noise.
        popularity: (n_items,) float32, the same de-noised.
        head: (n_head,) items of the Gram, most popular first.
        head_popularity: (n_head,) float32, refined by the Gram.
        gram_factors: (n_head, rank) float32 F; F F^T is the part of the Gram above the noise.
        gram_diagonal: (n_head,) float32, what is added on the diagonal.
        gram_top: (n_head,) float32, the Gram's first direction times the root of its strength.
        kernel_weights: (n_blocks,) float32, weight of each public feature block.
        item_in: (n_head, rank) float32; a history's rows of it are added up ...
        item_out: (n_items, rank) float32; ... and multiplied with these to score all items.
        spectrum: (n_head,) float32, eigenvalues of the noisy Gram, largest first [1].
        noise_edge: () float32, largest eigenvalue that noise alone would show [1].
        parameters: (n_parameters,) float32, of the plan's iterative models one after another.
        fusion: (n_buckets, n_parts) float32, weight of each part by a customer's activity.
    """

    plan_digest: str
    catalogue_digest: str
    after_round: int
    noisy_popularity: NDArray[np.float32]
    popularity: NDArray[np.float32]
    head: NDArray[np.int64]
    head_popularity: NDArray[np.float32]
    gram_factors: NDArray[np.float32]
    gram_diagonal: NDArray[np.float32]
    gram_top: NDArray[np.float32]
    kernel_weights: NDArray[np.float32]
    item_in: NDArray[np.float32]
    item_out: NDArray[np.float32]
    spectrum: NDArray[np.float32]
    noise_edge: NDArray[np.float32]
    parameters: NDArray[np.float32]
    fusion: NDArray[np.float32]
