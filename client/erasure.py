"""Customers who asked to be forgotten: their rows go, and none of them is read in again.

What is kept of them is a keyed hash, so that rows which come back from a backup or a shop's own
tables stay out; without the owner's key nobody can test a name against it.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.errors import DataError
from fondaco.shared.files import write_durably

from .dataset import Fold, Rows, SiloDataset


@dataclass(frozen=True)
class Erasures:
    """The list of one silo's forgotten customers.

    Attributes:
        path: a file of keyed hashes, one per line.
        secret: the owner's, under which they are taken.
    """

    path: Path
    secret: bytes

    def tokens(self) -> frozenset[str]:
        """Return the keyed hashes of everybody who was erased."""
        if not self.path.is_file():
            return frozenset()
        return frozenset(self.path.read_text(encoding="ascii").split())

    def add(self, user_id: str) -> None:
        """Put a customer on the list; it is on disk when this returns."""
        known = sorted(self.tokens() | {self._token(user_id)})
        write_durably(self.path, "".join(f"{token}\n" for token in known).encode())

    def kept(self, dataset: SiloDataset) -> SiloDataset:
        """Return `dataset` without anybody on the list; the very same if nobody is."""
        gone = self.gone(dataset.user_ids.tolist())
        return without(dataset, gone) if gone.any() else dataset

    def gone(self, user_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Return (n,) which of these customers are on the list."""
        tokens = self.tokens()
        if not tokens:
            return np.zeros(len(user_ids), dtype=np.bool_)
        return np.array([self._token(user_id) in tokens for user_id in user_ids], dtype=np.bool_)

    def holds(self, user_id: str) -> bool:
        """Return whether a customer is on the list."""
        return self._token(user_id) in self.tokens()

    def _token(self, user_id: str) -> str:
        return hmac.new(self.secret, b"erasure\x00" + user_id.encode(), hashlib.sha256).hexdigest()


def without(dataset: SiloDataset, gone: NDArray[np.bool_]) -> SiloDataset:
    """Return `dataset` as if some customers had never been there.

    Args:
        dataset: of a silo.
        gone: (n_users,) who is left out.
    """
    renumbered = np.cumsum(~gone) - 1

    def of(rows: Rows) -> Rows:
        stays = rows.take(~gone[rows.user_nums])
        return replace(stays, user_nums=renumbered[stays.user_nums])

    def fold(part: Fold) -> Fold:
        users = renumbered[part.user_nums[~gone[part.user_nums]]]
        return Fold(user_nums=users, history=of(part.history), targets=of(part.targets))

    return replace(
        dataset,
        user_ids=dataset.user_ids[~gone],
        train=of(dataset.train),
        valid=fold(dataset.valid),
        test=fold(dataset.test),
        interim=of(dataset.interim),
    )


def erase(dataset: SiloDataset, user_id: str) -> SiloDataset:
    """Return `dataset` without one customer.

    Raises:
        DataError: the silo has no such customer.
    """
    gone = dataset.user_ids == user_id
    if not gone.any():
        raise DataError(f"silo {dataset.silo_id!r} has no customer {user_id!r}")
    return without(dataset, np.asarray(gone, dtype=np.bool_))
