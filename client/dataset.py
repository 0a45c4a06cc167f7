"""Rows of one silo, indexed and split: the only shape in which models see customers' data."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Interaction rows of one silo, sorted by customer and then time; a pair may repeat.

    Attributes:
        user_nums: (n_rows,) row numbers of `SiloDataset.user_ids`.
        item_nums: (n_rows,) item numbers of the public catalogue.
        times: (n_rows,) [days since 1970-01-01, or order where no clock exists].
    """

    user_nums: NDArray[np.int64]
    item_nums: NDArray[np.int64]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.user_nums)

    def incidence(self, n_users: int, n_items: int) -> csr_matrix:
        """Return the (n_users, n_items) float64 0/1 matrix of distinct customer-item pairs."""
        data = np.ones(len(self), dtype=np.float64)
        matrix = csr_matrix((data, (self.user_nums, self.item_nums)), shape=(n_users, n_items))
        matrix.sum_duplicates()
        matrix.data[:] = 1.0
        return matrix


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Customers to recommend to: what is known of them and what they took next.

    Attributes:
        user_nums: (n_eval,) ascending customers with at least one target.
        history: rows known at the time of recommending (of these customers, maybe none).
        targets: rows to be predicted (of these customers).
    """

    user_nums: NDArray[np.int64]
    history: Rows
    targets: Rows


@dataclass(frozen=True, kw_only=True)
class SiloDataset:
    """Everything a silo knows of its customers, in three parts that never mix.

    `train` is all that models and releases may read. `valid` tunes only what stays at home.
    `test` is read by the simulation's evaluation alone.
    """

    silo_id: str
    user_ids: NDArray[np.str_]
    n_items: int
    train: Rows
    valid: Fold
    test: Fold

    @property
    def n_users(self) -> int:
        """Number of customers, those without training rows included."""
        return len(self.user_ids)
