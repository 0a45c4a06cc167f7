"""Chains in files, and what is done to them behind their backs."""

import sqlite3
from contextlib import closing

from hypothesis import strategies as st

from fondaco.shared.chain.canonical import MAX_INT
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.chain.store import (
    Chain,
)

OWNER, OTHER = (Identity.seeded(0, key_name(name)) for name in ("north", "south"))
GENESIS = {"type": "GENESIS", "key": OWNER.public.text()}
VALUES = st.recursive(
    st.none() | st.integers(-MAX_INT + 1, MAX_INT - 1) | st.text(max_size=20),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
    max_leaves=6,
)
OWN_NAMES = ("type", "seq", "ts", "key")
BODIES = st.dictionaries(st.text().filter(lambda name: name not in OWN_NAMES), VALUES, max_size=4)


def add(chain, *kinds):
    for kind in kinds:
        with chain.writing():
            chain.append({"type": kind})


def types_of(path, owner=OWNER):
    with closing(Chain(path, owner)) as chain:
        return [body["type"] for body in chain.bodies]


def copy_of(path, name):
    """Copy the file as a backup does: whole, with what its log still holds."""
    target = path.with_name(name)
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(target)) as copy:
        db.backup(copy)
    target.chmod(0o600)
    return target


def edit(path, *statements):
    """Write to the file as somebody would who is not stopped by triggers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for trigger in ("no_update", "no_delete"):
            db.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            db.execute(*statement) if isinstance(statement, tuple) else db.execute(statement)
