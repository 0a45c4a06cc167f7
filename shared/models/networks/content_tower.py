"""The content tower's network."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.content_space import DIM, content_space
from fondaco.shared.hashing import mix64

from ..base import Timelines
from .base import Batch, Network

CANDIDATES = 1024
"""Items that a loss is normalised over; of larger assortments a public hash chooses as many."""
HALVES = 2


class ContentTowerNetwork(Network):
    """Mean content of a history -> the content it asks for, met with every item's.

    score(u, i) = (W2 W1 u + b + skip u) . v_i. By linearity the item tower works on the
    customer's side, so each layer is used once per customer and never per item.

    Args:
        catalogue: its content space is frozen in the network.
        width: rank of W2 W1.
        skip: weight of plain likeness.
    """

    space: Tensor

    def __init__(self, catalogue: Catalogue, width: int, skip: float) -> None:
        super().__init__()
        self.first = nn.Linear(DIM, width, bias=False)
        self.second = nn.Linear(width, DIM)
        self._skip = skip
        self._vectors = content_space(catalogue)
        self.register_buffer("space", torch.from_numpy(self._vectors), persistent=False)
        self.cells_per_user = HALVES * (min(len(catalogue), CANDIDATES) + 3 * DIM)

    def encode(self, timelines: Timelines) -> Batch:
        """Return what is known of each customer, in content space.

        `profile` (n_users, DIM) looks like the whole history. For the loss every history is cut
        in two by a hash that only the history itself decides: `shown` (n_users, 2, DIM) looks
        like one half, `hidden` (n_users, 2, DIM) is the mean of the other and `counts`
        (n_users, 2) says whether there is another. `sold` (n_users, n_sold) are the silo's items.
        """
        history = timelines.incidence()
        first, second = (self._sums(half) for half in _halves(history))
        sizes = np.stack([np.diff(half.indptr) for half in _halves(history)], axis=1)
        sums = np.stack([first, second], axis=1)
        hidden = sums[:, ::-1] / np.maximum(sizes[:, ::-1, None], 1)
        everything = np.arange(timelines.n_items)
        sold = everything if timelines.assortment is None else everything[timelines.assortment]
        return {
            "profile": torch.from_numpy(_unit(first + second)),
            "shown": torch.from_numpy(_unit(sums)),
            "hidden": torch.from_numpy(np.asarray(hidden, dtype=np.float32)),
            "counts": torch.from_numpy((sizes[:, ::-1] > 0).astype(np.float32)),
            "sold": torch.from_numpy(sold).expand(timelines.n_users, -1),
        }

    def losses(self, batch: Batch) -> Tensor:
        """Return (n_users,) mean cross-entropy of each half, seen from the other."""
        wanted = self._wanted(batch["shown"])
        against = self.space[_candidates(_sold(batch))]
        chance = torch.logsumexp(wanted @ against.T, dim=2)
        losses = (chance - (wanted * batch["hidden"]).sum(dim=2)) * batch["counts"]
        return losses.sum(dim=1) / batch["counts"].sum(dim=1).clamp(min=1.0)

    def scores(self, batch: Batch) -> Tensor:
        """Return (n_users, n_items) scores; NaN for items that the silo does not sell."""
        wanted = self._wanted(batch["profile"])
        scores = torch.full((len(wanted), len(self.space)), torch.nan)
        sold = _sold(batch)
        scores[:, sold] = wanted @ self.space[sold].T
        return scores

    def _wanted(self, profile: Tensor) -> Tensor:
        wanted: Tensor = self.second(self.first(profile)) + self._skip * profile
        return wanted

    def _sums(self, history: csr_matrix) -> NDArray[np.float32]:
        return np.asarray(history @ self._vectors, dtype=np.float32)


def _halves(history: csr_matrix) -> tuple[csr_matrix, csr_matrix]:
    """Return the history in two parts that add up to it, by a hash of items and whole rows."""
    items = mix64(history.indices.astype(np.uint64))
    with np.errstate(over="ignore"):
        ends = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(items, dtype=np.uint64)])
        rows = ends[history.indptr[1:]] - ends[history.indptr[:-1]]
        salted = mix64(items + mix64(rows).repeat(np.diff(history.indptr)))
    chosen = (salted >> np.uint64(63)).astype(np.bool_)
    return _of_entries(history, chosen), _of_entries(history, ~chosen)


def _of_entries(matrix: csr_matrix, kept: NDArray[np.bool_]) -> csr_matrix:
    entries = np.concatenate([[0], np.cumsum(kept)])
    return csr_matrix(
        (matrix.data[kept], matrix.indices[kept], entries[matrix.indptr]), shape=matrix.shape
    )


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), dtype=np.float32)


def _sold(batch: Batch) -> Tensor:
    """(n_sold,) of a batch, which holds the same row for every customer."""
    return batch["sold"][:1].reshape(-1)


def _candidates(sold: Tensor) -> Tensor:
    """The items themselves, or CANDIDATES of them that a public hash chooses."""
    if len(sold) <= CANDIDATES:
        return sold
    order = np.argsort(mix64(sold.numpy().astype(np.uint64)), kind="stable")
    return sold[torch.from_numpy(order[:CANDIDATES].copy())]
