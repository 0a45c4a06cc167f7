"""Erases a customer at a silo, on disk and on the list that keeps rows out."""

from fondaco.shared.errors import DataError

from .dataset import SiloDataset
from .dataset_files import load_silo, save_silo
from .erasure import Erasures, erase
from .owner import Owner
from .quarantine import QUARANTINE, count_rows, purge


def forget(owner: Owner, user_id: str) -> int:
    """Remove a customer's rows, write it down without the id, and return how many went.

    The list comes first: whoever is killed on the way has already kept the customer out of
    every later draw, and running this again finishes what is left.

    Raises:
        DataError: neither the snapshot nor the rows that were put aside hold such a customer.
    """
    erasures = Erasures(owner.home.erased, owner.home.secret(owner.identity))
    aside = owner.folder / QUARANTINE
    with owner.home.alone():
        before = load_silo(owner.rows) if owner.rows.is_dir() else None
        known = before is not None and user_id in before.user_ids
        new = not erasures.holds(user_id)
        if new and not (known or count_rows(aside, user_id)):
            raise DataError(f"silo {owner.silo_id!r} has no customer {user_id!r}")
        erasures.add(user_id)
        gone = 0
        if before is not None and known:
            kept = erase(before, user_id)
            save_silo(kept, owner.rows)
            gone = _count(before) - _count(kept)
        gone += purge(aside, user_id)
        with owner.ledger() as ledger:
            # A second time is noted only if it did something, or the first was killed on the way.
            noted = len(ledger.chain.of_type("ERASURE"))
            if new or gone or noted < len(erasures.tokens()):
                ledger.note_erasure(1)
    return gone


def _count(dataset: SiloDataset) -> int:
    parts = dataset.train, dataset.valid.targets, dataset.test.targets, dataset.interim
    return sum(map(len, parts))
