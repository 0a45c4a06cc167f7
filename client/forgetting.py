"""Erases a customer at a silo, on disk and on the list that keeps rows out."""

from .dataset_files import load_silo, save_silo
from .erasure import Erasures, erase
from .owner import Owner


def forget(owner: Owner, user_id: str) -> int:
    """Remove a customer's rows, write it down without the id, and return how many went.

    The list comes first: whoever is killed on the way has already kept the customer out of
    every later draw, and may run this again.

    Raises:
        DataError: the silo has no such customer.
    """
    dataset = load_silo(owner.folder)
    kept = erase(dataset, user_id)
    Erasures(owner.home.erased, owner.identity).add(user_id)
    save_silo(kept, owner.folder)
    with owner.ledger() as ledger:
        ledger.note_erasure(1)
    parts = [(d.train, d.valid.targets, d.test.targets, d.interim) for d in (dataset, kept)]
    before, after = (sum(map(len, rows)) for rows in parts)
    return before - after
