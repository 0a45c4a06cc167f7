"""The chain file: what tampering, other writers, lost tails, new keys and bad disks do to it."""

import json
import os
import resource
import sqlite3
import stat
import traceback
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fondaco.shared.chain import store
from fondaco.shared.chain.canonical import MAX_INT
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.chain.store import (
    CLOCK_SLACK,
    DOMAIN,
    NOTHING,
    Chain,
    Record,
    check_links,
    is_begun,
    link,
    rotation_message,
)
from fondaco.shared.errors import LedgerError

OWNER, OTHER = (Identity.seeded(0, key_name(name)) for name in ("north", "south"))
GENESIS = {"type": "GENESIS", "key": OWNER.public.text()}
VALUES = st.recursive(
    st.none() | st.integers(-MAX_INT + 1, MAX_INT - 1) | st.text(max_size=20),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
    max_leaves=6,
)
OWN_NAMES = ("type", "seq", "ts", "key")
BODIES = st.dictionaries(st.text().filter(lambda name: name not in OWN_NAMES), VALUES, max_size=4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "north.db"


@pytest.fixture
def chain(path):
    with closing(Chain.create(path, OWNER, [GENESIS])) as opened:
        yield opened


def _add(chain, *kinds):
    for kind in kinds:
        with chain.writing():
            chain.append({"type": kind})


def _types(path, owner=OWNER):
    with closing(Chain(path, owner)) as chain:
        return [body["type"] for body in chain.bodies]


def _copy(path, name):
    """Copy the file as a backup does: whole, with what its log still holds."""
    target = path.with_name(name)
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(target)) as copy:
        db.backup(copy)
    target.chmod(0o600)
    return target


def _edit(path, *statements):
    """Write to the file as somebody would who is not stopped by triggers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for trigger in ("no_update", "no_delete"):
            db.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            db.execute(*statement) if isinstance(statement, tuple) else db.execute(statement)


@settings(max_examples=40, deadline=None)
@given(bodies=st.lists(BODIES, min_size=1, max_size=4))
def test_whatever_is_appended_is_read_back_exported_and_linked(tmp_path_factory, bodies):
    path = tmp_path_factory.mktemp("chain") / "x.db"
    with closing(Chain.create(path, OWNER, [GENESIS])) as chain:
        for body in bodies:
            with chain.writing():
                chain.append({**body, "type": "NOTE"})
        lines, head = chain.lines(), chain.head
    with closing(Chain(path, OWNER)) as again:
        assert again.lines() == lines
        assert again.head == head
        stamped = [{k: v for k, v in b.items() if k not in ("seq", "ts")} for b in again.bodies]
    assert stamped == [GENESIS, *({**body, "type": "NOTE"} for body in bodies)]
    records = [Record.from_line(line) for line in lines]
    assert check_links(records)[-1] == head.root
    assert [record.line() for record in records] == lines
    assert all("\n" not in line for line in lines)


def test_hash_and_signature_are_those_of_the_format(chain):
    first, second = NOTHING, b""
    _add(chain, "NOTE")
    for record in map(Record.from_line, chain.lines()):
        body = store.hashlib.sha256(record.body.encode()).digest()
        second = store.hashlib.sha256(b"fondaco-ledger-v3\x00" + first + body).digest()
        assert (record.prev, record.digest) == (first, second)
        assert OWNER.public.verifies(record.signature, b"fondaco-ledger-v3\x00" + second)
        first = second


def test_records_are_numbered_from_one_and_stamped_in_utc(chain):
    _add(chain, "NOTE", "NOTE")
    assert [body["seq"] for body in chain.bodies] == [1, 2, 3]
    now = datetime.now(UTC)
    stamps = [datetime.fromisoformat(body["ts"]) for body in chain.bodies]
    assert all(now - timedelta(minutes=1) < stamp <= now for stamp in stamps)
    assert chain.root_at(3) == chain.head.root
    assert chain.root_at(2) == Record.from_line(chain.lines()[1]).digest
    assert chain.root_at(0) == chain.root_at(4) == chain.root_at(-1) == b""


@pytest.mark.parametrize("seq", [1, 2, 3])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("prev", bytes(31) + b"\x01"),
        ("body", '{"type":"NOTE"}'),
        ("body", "no JSON"),
        ("body", '{"seq":2,"ts":"2000-01-01T00:00:00+00:00","type":"NOTE"}'),
        ("hash", bytes(31) + b"\x02"),
        ("hash", b""),
    ],
    ids=str,
)
def test_tampering_with_any_column_is_found_on_opening(chain, path, column, value, seq):
    _add(chain, "NOTE", "NOTE")
    chain.close()
    _edit(path, (f"UPDATE records SET {column} = ? WHERE seq = ?", (value, seq)))  # noqa: S608
    with pytest.raises(LedgerError, match="damaged at record"):
        Chain(path, OWNER)


@pytest.mark.parametrize("seq", [1, 2, 3])
def test_tampering_with_a_records_number_is_found_on_opening(chain, path, seq):
    _add(chain, "NOTE", "NOTE")
    chain.close()
    _edit(path, f"UPDATE records SET seq = 99 WHERE seq = {seq}")  # noqa: S608
    with pytest.raises(LedgerError, match="damaged at record"):
        Chain(path, OWNER)


@pytest.mark.parametrize("value", [b"", bytes(64), bytes(63)], ids=len)
def test_newest_records_signature_is_checked_on_opening(chain, path, value):
    _add(chain, "NOTE")
    chain.close()
    _edit(path, ("UPDATE records SET sig = ? WHERE seq = 2", (value,)))
    with pytest.raises(LedgerError, match="not signed by its owner"):
        Chain(path, OWNER)


@pytest.mark.parametrize("kind", ["sequence", "swap", "drop", "double", "resign"])
def test_chain_rewritten_by_somebody_without_the_key_is_refused(chain, path, kind):
    _add(chain, "ONE", "TWO", "THREE")
    records = [Record.from_line(line) for line in chain.lines()]
    bodies = [record.parsed() for record in records]
    chain.close()
    bodies = {
        "sequence": bodies[:1] + [{**body, "type": "NOTE"} for body in bodies[1:]],
        "swap": [bodies[0], bodies[2], bodies[1], bodies[3]],
        "drop": [bodies[0], *bodies[2:]],
        "double": [*bodies, bodies[-1]],
        "resign": bodies,
    }[kind]
    _edit(path, "DELETE FROM records")
    prev = NOTHING
    with closing(sqlite3.connect(path)) as db:
        for seq, body in enumerate(bodies, start=1):
            text = store.canonical_json({**body, "seq": seq})
            digest = link(prev, text)
            row = (seq, prev, text, digest, OTHER.sign(DOMAIN + digest))
            db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", row)
            prev = digest
        db.commit()
    with pytest.raises(LedgerError, match="not signed by its owner"):
        Chain(path, OWNER)


def test_file_that_others_may_read_is_refused(chain, path):
    chain.close()
    for mode in (0o644, 0o660, 0o602):
        path.chmod(mode)
        with pytest.raises(LedgerError, match="chmod 600"):
            Chain(path, OWNER)


def test_files_beside_the_chain_are_for_its_owner_alone(path):
    old = os.umask(0)
    try:
        with closing(Chain.create(path, OWNER, [GENESIS])) as chain:
            _add(chain, "NOTE")
            modes = [stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()]
    finally:
        os.umask(old)
    assert modes == [0o600] * 3


def test_two_connections_write_one_chain(chain, path):
    with closing(Chain(path, OWNER)) as second:
        for _ in range(3):
            _add(chain, "ONE")
            _add(second, "TWO")
        assert [b["type"] for b in second.bodies[1:]] == ["ONE", "TWO"] * 3
        assert second.of_type("ONE") == [b for b in second.bodies if b["type"] == "ONE"]
    assert _types(path)[1:] == ["ONE", "TWO"] * 3


def test_writer_waits_for_the_other_and_gives_up_with_a_clear_error(chain, path, monkeypatch):
    chain._db.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="nothing was released"):
            _add(chain, "NOTE")
        other.execute("COMMIT")
    _add(chain, "NOTE")
    assert _types(path) == ["GENESIS", "NOTE"]


def test_failed_body_leaves_nothing_in_file_or_memory(chain, path):
    before = chain.head

    def fail():
        with chain.writing():
            chain.append({"type": "ONE"})
            chain.append({"type": "TWO"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert chain.head == before
    assert chain.of_type("ONE") == chain.of_type("TWO") == []
    assert len(chain.bodies) == len(chain.lines()) == 1
    _add(chain, "THREE")
    assert _types(path) == ["GENESIS", "THREE"]


def test_others_records_read_by_a_failed_body_are_read_again(chain, path):
    with closing(Chain(path, OWNER)) as second:
        _add(second, "ONE")
        with pytest.raises(RuntimeError), chain.writing():
            raise RuntimeError
        _add(chain, "TWO")
    assert _types(path) == ["GENESIS", "ONE", "TWO"]


def test_record_that_another_writer_did_not_sign_is_never_built_upon(chain, path):
    forged = store._made(1, chain.head.root, {"type": "PLAN"}, OTHER)
    with closing(sqlite3.connect(path)) as db:
        store._insert(db, forged)
        db.commit()
    with pytest.raises(LedgerError):
        _add(chain, "NOTE")


# ---- lost tails ----


def _restored(chain, path, n_lost=3):
    """Return a chain in a restored old file, and the exported lines of the one that went on."""
    old = _copy(path, "old.db")
    _add(chain, *["NOTE"] * n_lost)
    return Chain(old, OWNER), chain.lines()


@pytest.mark.parametrize("since", [0, 1])
def test_own_lost_tail_is_taken_back(chain, path, since):
    restored, lines = _restored(chain, path)
    with closing(restored):
        assert restored.absorb(lines[since:]) == 3
        assert restored.head == chain.head
        assert restored.absorb(lines) == 0
        _add(restored, "MORE")
        assert restored.lines()[:4] == lines
    assert _types(path.with_name("old.db"))[-1] == "MORE"


def test_tail_may_come_in_pieces_and_more_than_once(chain, path):
    restored, lines = _restored(chain, path)
    with closing(restored):
        assert restored.absorb(lines[:2]) == 1
        assert restored.absorb(lines[1:3]) == 1
        assert restored.absorb(lines[1:]) == 1
        assert restored.head == chain.head


def _resigned(lines, signer):
    """Return the same records, signed by somebody else."""
    for record in map(Record.from_line, lines):
        yield replace(record, signature=signer.sign(DOMAIN + record.digest)).line()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[2:],
        lambda lines: [lines[1], lines[3], lines[2]],
        lambda lines: [*lines[:2], lines[3]],
        lambda lines: [lines[0], lines[1], lines[1].replace("NOTE", "NOTA"), *lines[2:]],
        lambda lines: [line.replace("NOTE", "NOTA") for line in lines],
        lambda lines: list(_resigned(lines, OTHER)),
        lambda lines: [*lines[:3], *_resigned(lines[3:], OTHER)],
        lambda lines: [*lines, "no line"],
        lambda lines: [*lines[:3], lines[3][:-5]],
        lambda lines: [*lines, ""],
        lambda lines: [*lines, "[]"],
        lambda lines: [*lines, "null"],
        lambda lines: [*lines, "[" * 100_000],
        lambda lines: [*lines, '{"body":{"a":0.5},"hash":"","prev":"","sig":""}'],
    ],
    ids=range(14),
)
def test_tail_that_is_not_the_lost_one_is_refused_whole(chain, path, spoil):
    restored, lines = _restored(chain, path)
    with closing(restored):
        before = restored.head
        with pytest.raises(LedgerError):
            restored.absorb(spoil(lines))
        assert restored.head == before
        assert restored.absorb(lines) == 3
        assert restored.head == chain.head


def test_foreign_records_are_refused(chain, path):
    genesis = {"type": "GENESIS", "key": OTHER.public.text()}
    with closing(Chain.create(path.with_name("south.db"), OTHER, [genesis])) as foreign:
        _add(foreign, "NOTE", "NOTE")
        for lines in (foreign.lines(), foreign.lines(1)):
            with pytest.raises(LedgerError):
                chain.absorb(lines)
    assert len(chain.lines()) == 1


def test_forked_tail_is_refused_by_both_branches(chain, path):
    restored, _ = _restored(chain, path)
    with closing(restored):
        _add(restored, "FORK")
        with pytest.raises(LedgerError, match="damaged at record"):
            restored.absorb(chain.lines())
        with pytest.raises(LedgerError, match="damaged at record"):
            chain.absorb(restored.lines())
        assert [b["type"] for b in restored.bodies] == ["GENESIS", "FORK"]


# ---- keys ----


def test_new_key_takes_over_and_the_old_one_ends(chain, path):
    new = Identity.generate(OWNER.public.name)
    before = chain.head.root
    chain.rotate(new)
    _add(chain, "NOTE")
    rotation = chain.of_type("KEYROT")[0]
    proof = store.base64.b64decode(rotation["proof"])
    assert new.public.verifies(proof, rotation_message(before, new.public))
    records = [Record.from_line(line) for line in chain.lines()]
    signers = [OWNER, OWNER, new]
    for record, signer in zip(records, signers, strict=True):
        assert signer.public.verifies(record.signature, DOMAIN + record.digest)
    chain.close()
    assert _types(path, new) == ["GENESIS", "KEYROT", "NOTE"]
    with pytest.raises(LedgerError, match="belongs to another key"):
        Chain(path, OWNER)


def test_chain_opens_right_after_a_rotation_and_rotates_again(chain, path):
    keys = [Identity.generate(OWNER.public.name) for _ in range(3)]
    chain.close()
    for old, new in zip([OWNER, *keys], keys, strict=False):
        with closing(Chain(path, old)) as opened:
            opened.rotate(new)
    assert _types(path, keys[-1]) == ["GENESIS"] + ["KEYROT"] * 3


def test_rotation_signed_by_the_new_key_alone_is_refused(chain, path):
    chain.close()
    thief = Identity.generate(OWNER.public.name)
    first = closing(sqlite3.connect(path))
    with first as db:
        prev = db.execute("SELECT hash FROM records").fetchone()[0]
        body = {"type": "KEYROT", "key": thief.public.text(), "proof": ""}
        store._insert(db, store._made(1, prev, body, thief))
        db.commit()
    for key in (OWNER, thief):
        with pytest.raises(LedgerError):
            Chain(path, key)


def test_connection_open_during_a_rotation_writes_nothing_with_the_old_key(chain, path):
    new = Identity.generate(OWNER.public.name)
    with closing(Chain(path, OWNER)) as second:
        second.rotate(new)
    with pytest.raises(LedgerError):
        _add(chain, "NOTE")
    assert _types(path, new) == ["GENESIS", "KEYROT"]


def test_absorbing_a_rotation_does_not_brick_the_file(chain, path):
    old = _copy(path, "old.db")
    new = Identity.generate(OWNER.public.name)
    chain.rotate(new)
    with closing(Chain(old, OWNER)) as restored:
        try:
            restored.absorb(chain.lines())
            _add(restored, "NOTE")
        except LedgerError:
            pass
    opened = 0
    for key in (OWNER, new):
        try:
            _types(old, key)
            opened += 1
        except LedgerError:
            pass
    assert opened == 1


# ---- the clock ----


class _Clock(datetime):
    shift = timedelta(0)

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + cls.shift


@pytest.mark.parametrize("back", [CLOCK_SLACK + timedelta(minutes=1), timedelta(days=1)], ids=str)
def test_clock_set_back_is_refused_until_it_is_right_again(chain, path, monkeypatch, back):
    monkeypatch.setattr(store, "datetime", _Clock)
    monkeypatch.setattr(_Clock, "shift", -back)
    with pytest.raises(LedgerError, match="clock"):
        _add(chain, "NOTE")
    monkeypatch.setattr(_Clock, "shift", timedelta(0))
    _add(chain, "NOTE")
    assert _types(path) == ["GENESIS", "NOTE"]


def test_clock_may_go_back_a_little_as_clocks_do(chain, monkeypatch):
    monkeypatch.setattr(store, "datetime", _Clock)
    monkeypatch.setattr(_Clock, "shift", -CLOCK_SLACK + timedelta(seconds=30))
    _add(chain, "NOTE")
    stamps = [datetime.fromisoformat(body["ts"]) for body in chain.bodies]
    assert stamps[1] < stamps[0]


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
    n_statements = _statements(chain, lambda: _add(chain, "NOTE"))
    assert n_statements == 4
    for fail_at in range(1, n_statements + 1):
        head, real = chain.head, chain._db
        chain._db = _Faulty(real, fail_at, for_good=for_good)
        with pytest.raises(LedgerError):
            _add(chain, "LOST")
        assert chain.head == head
        chain._db = real
        if real.in_transaction:
            real.execute("ROLLBACK")
        _add(chain, "NOTE")
    assert set(_types(path)) == {"GENESIS", "NOTE"}


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
        assert _types(path.with_name(f"{num}.db")) == ["GENESIS"]


def test_io_error_while_opening_is_a_clear_error(chain, path, monkeypatch):
    assert _fail_at_each_statement(monkeypatch, lambda _: Chain(path, OWNER).close()) == 3
    assert _types(path) == ["GENESIS"]


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
    assert _types(path) == ["GENESIS"]


def test_full_disk_while_appending_refuses_until_there_is_room(chain, path):
    chain.close()

    def work():
        with closing(Chain(path, OWNER)) as again:
            _add(again, "NOTE")
            size = path.with_name("north.db-wal").stat().st_size
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            for more in (0, 24, 4000, 4120):
                limit = size + more
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
                with pytest.raises(LedgerError, match="nothing was released"), again.writing():
                    again.append({"type": "LOST", "text": "x" * 9000})
                assert len(again.bodies) == 2
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            _add(again, "MORE")

    assert _in_child(work) == 0
    assert _types(path) == ["GENESIS", "NOTE", "MORE"]


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
    _add(chain, *["NOTE"] * 30)
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
