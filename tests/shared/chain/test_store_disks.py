"""Chains on disks that fail, fill up or rot."""

import json
import os
import resource
import sqlite3
import traceback
from contextlib import closing

import pytest
from chain_files import GENESIS, OWNER, add, types_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fondaco.shared.chain import store
from fondaco.shared.chain.store import (
    Chain,
    Record,
    is_begun,
)
from fondaco.shared.errors import LedgerError

# ---- disks ----


class _Faulty:
    """A connection whose statement number `fail_at` fails, alone or with all after it."""

    def __init__(self, db, fail_at, *, for_good=False):
        self.db, self.fail_at, self.for_good, self.count = db, fail_at, for_good, 0

    def execute(self, *args):
        self.count += 1
        if self.count == self.fail_at or (self.for_good and self.count > self.fail_at):
            raise sqlite3.OperationalError("disk I/O error")
        return self.db.execute(*args)

    def close(self):
        self.db.close()

    @property
    def in_transaction(self):
        return self.db.in_transaction


def _statements(chain, work):
    """Return how many statements `work` needs."""
    real, chain._db = chain._db, _Faulty(chain._db, 0)
    work()
    count, chain._db = chain._db.count, real
    return count


@pytest.mark.parametrize("for_good", [False, True])
def test_io_error_at_any_statement_is_a_clear_error_and_leaves_the_chain(chain, path, for_good):
    n_statements = _statements(chain, lambda: add(chain, "NOTE"))
    assert n_statements == 4
    for fail_at in range(1, n_statements + 1):
        head, real = chain.head, chain._db
        chain._db = _Faulty(real, fail_at, for_good=for_good)
        with pytest.raises(LedgerError):
            add(chain, "LOST")
        assert chain.head == head
        chain._db = real
        if real.in_transaction:
            real.execute("ROLLBACK")
        add(chain, "NOTE")
    assert set(types_of(path)) == {"GENESIS", "NOTE"}


def _fail_at_each_statement(monkeypatch, work):
    """Call work(n) with statement n failing, on whichever connection; return how many failed."""
    connect = sqlite3.connect
    for fail_at in range(1, 50):
        opened = []

        def make(*args, fail_at=fail_at, opened=opened, **options):
            done = sum(db.count for db in opened)
            opened.append(_Faulty(connect(*args, **options), fail_at - done))
            return opened[-1]

        with monkeypatch.context() as patch:
            patch.setattr(store.sqlite3, "connect", make)
            try:
                work(fail_at)
            except LedgerError:
                continue
            finally:
                for db in opened:
                    db.close()
        return fail_at - 1
    return -1


def test_io_error_while_creating_is_a_clear_error_and_leaves_nothing_or_all(path, monkeypatch):
    def create(num):
        Chain.create(path.with_name(f"{num}.db"), OWNER, [GENESIS]).close()

    n_failed = _fail_at_each_statement(monkeypatch, create)
    assert n_failed > 8
    for num in range(1, n_failed + 1):
        if not is_begun(path.with_name(f"{num}.db")):
            create(num)
        assert types_of(path.with_name(f"{num}.db")) == ["GENESIS"]


def test_io_error_while_opening_is_a_clear_error(chain, path, monkeypatch):
    assert _fail_at_each_statement(monkeypatch, lambda _: Chain(path, OWNER).close()) == 3
    assert types_of(path) == ["GENESIS"]


def _in_child(work):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


@pytest.mark.parametrize("limit", [0, 100, 4096, 5000, 20_000])
def test_full_disk_while_creating_leaves_nothing_or_a_whole_chain(path, limit):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        with pytest.raises(LedgerError):
            Chain.create(path, OWNER, [GENESIS] + [{"type": "NOTE", "text": "x" * 5000}] * 9)
        whole = resource.RLIM_INFINITY, resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, whole)

    assert _in_child(work) == 0
    assert not is_begun(path)
    Chain.create(path, OWNER, [GENESIS]).close()
    assert types_of(path) == ["GENESIS"]


def test_full_disk_while_appending_refuses_until_there_is_room(chain, path):
    chain.close()

    def work():
        with closing(Chain(path, OWNER)) as again:
            add(again, "NOTE")
            size = path.with_name("north.db-wal").stat().st_size
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            for more in (0, 24, 4000, 4120):
                limit = size + more
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
                with pytest.raises(LedgerError, match="nothing was released"), again.writing():
                    again.append({"type": "LOST", "text": "x" * 9000})
                assert len(again.bodies) == 2
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            add(again, "MORE")

    assert _in_child(work) == 0
    assert types_of(path) == ["GENESIS", "NOTE", "MORE"]


def test_missing_damaged_or_foreign_file_is_refused(path):
    with pytest.raises(LedgerError, match="no ledger"):
        Chain(path, OWNER)
    assert not is_begun(path)
    path.write_bytes(b"x" * 8192)
    path.chmod(0o600)
    for work in (lambda: Chain(path, OWNER), lambda: is_begun(path)):
        with pytest.raises(LedgerError):
            work()


@pytest.mark.parametrize("mark", [b"CREATE TABLE records", b'"NOTE"', b'"GENESIS"'])
def test_page_damaged_on_the_disk_is_found(chain, path, mark):
    add(chain, *["NOTE"] * 30)
    chain._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    chain.close()
    place = path.read_bytes().index(mark)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 16)
    with pytest.raises(LedgerError):
        Chain(path, OWNER)


JUNK = st.recursive(
    st.none() | st.integers() | st.text() | st.floats(),
    lambda parts: st.dictionaries(st.sampled_from(["body", "hash", "prev", "sig"]), parts),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=80) | JUNK.map(json.dumps))
def test_line_of_anything_is_a_record_or_a_clear_error(line):
    try:
        record = Record.from_line(line)
    except LedgerError:
        return
    assert Record.from_line(record.line()) == record
