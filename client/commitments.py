"""Commitments to private facts: shown in the ledger, opened by the owner alone.

A bare hash of the rows would confirm a guess, so it is keyed; every debit has a key of its own,
so that opening one opens no other, and equal rows look different in every debit.
"""

import hashlib
import hmac

from fondaco.shared.privacy.plan import RunPlan

from .dataset import SiloDataset


def commitment_key(secret: bytes, plan: RunPlan, kind: str, round_num: int, attempt: int) -> bytes:
    """Return the 32 bytes that open one debit's commitment, from the owner's secret."""
    labels = "\x00".join(["commitment", plan.digest, kind, str(round_num), str(attempt)])
    return hmac.digest(secret, labels.encode(), "sha256")


def commit_to(fact: str, key: bytes) -> str:
    """Return the commitment to `fact` as hexadecimal text."""
    return hmac.new(key, fact.encode(), hashlib.sha256).hexdigest()


def rows_digest(dataset: SiloDataset) -> str:
    """Return a digest of the rows that releases may rest on; private."""
    sha = hashlib.sha256("\x00".join(dataset.user_ids.tolist()).encode())
    for rows in (dataset.train, dataset.valid.history, dataset.valid.targets):
        sha.update(rows.user_nums.tobytes() + rows.item_nums.tobytes() + rows.times.tobytes())
    return sha.hexdigest()
