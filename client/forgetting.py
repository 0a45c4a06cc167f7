"""Erases a customer at a silo, on disk and on the list that keeps rows out."""

from fondaco.shared.errors import DataError

from .dataset_files import load_silo, save_silo
from .erasure import Erasures, erase
from .owner import Owner
from .quarantine import QUARANTINE, purge


def forget(owner: Owner, user_id: str) -> int:
    """Remove a customer's rows, write it down without the id, and return how many went.

    The list comes first: whoever is killed on the way has already kept the customer out of
    every later draw, and running this again finishes what is left.

    Raises:
        DataError: the silo has no such customer.
    """
    erasures = Erasures(owner.home.erased, owner.home.secret(owner.identity))
    with owner.home.alone():
        before = kept = load_silo(owner.rows)
        try:
            kept = erase(before, user_id)
        except DataError:
            if not erasures.holds(user_id):
                raise
        erasures.add(user_id)
        save_silo(kept, owner.rows)
        purge(owner.folder / QUARANTINE, user_id)
        with owner.ledger() as ledger:
            ledger.note_erasure(1)
    parts = [(d.train, d.valid.targets, d.test.targets, d.interim) for d in (before, kept)]
    rows_before, rows_after = (sum(map(len, rows)) for rows in parts)
    return rows_before - rows_after
