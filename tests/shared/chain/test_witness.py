"""The rule of a witness: it signs what follows from what it signed before, and nothing else."""

import base64
import json
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.shared.chain import witness
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.chain.notes import Checkpoint
from fondaco.shared.chain.store import NOTHING, Chain, Record
from fondaco.shared.chain.witness import (
    Call,
    Offer,
    check_extension,
    check_offer,
    known_heads,
)
from fondaco.shared.errors import CodecError, LedgerError

OWNER, OTHER = (Identity.seeded(0, key_name(name)) for name in ("north", "south"))
START = Checkpoint(origin=OWNER.public.name, size=0, root=NOTHING)
TEXTS = st.text(max_size=30)
LINES = st.lists(TEXTS, max_size=3).map(tuple)
SIZES = st.integers(0, 2**40)


def _chain(folder, name, *kinds, owner=OWNER):
    genesis = {"type": "GENESIS", "key": owner.public.text()}
    with closing(Chain.create(folder / name, owner, [genesis])) as chain:
        for kind in kinds:
            with chain.writing():
                chain.append({"type": kind})
        return chain.lines()


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """The exported records of a ledger of six."""
    return _chain(tmp_path_factory.mktemp("lines"), "north.db", *"ABCDE")


@pytest.fixture(scope="module")
def forked(lines, tmp_path_factory):
    """The same key's other ledger: its first three records are those of `lines`."""
    path = tmp_path_factory.mktemp("forked") / "north.db"
    _chain(path.parent, path.name)
    with closing(Chain(path, OWNER)) as chain, chain.writing():
        chain._db.execute("DROP TRIGGER no_delete")
        chain._db.execute("DELETE FROM records")
        for record in map(Record.from_line, lines[:3]):
            chain._keep(record)
    with closing(Chain(path, OWNER)) as chain:
        for kind in "XYZ":
            with chain.writing():
                chain.append({"type": kind})
        assert chain.lines()[:3] == lines[:3]
        return chain.lines()


def _head(lines, size=None, owner=OWNER):
    size = size or len(lines)
    root = Record.from_line(lines[size - 1]).digest
    return Checkpoint(origin=owner.public.name, size=size, root=root)


def _offer(lines, since, size=None, owner=OWNER):
    return Offer(
        note=_head(lines, size).signed_by(owner), since=since, lines=tuple(lines[since:size])
    )


@pytest.mark.parametrize("size", [1, 3, 6])
@pytest.mark.parametrize("known", [1, 3, 6])
@pytest.mark.parametrize("since", [0, 1, 3, 6])
def test_head_is_signed_exactly_if_it_follows_and_the_records_came_along(lines, known, size, since):
    offer = _offer(lines, since, size)
    if size >= known >= since:
        assert check_offer(offer, _head(lines, known), OWNER.public) == _head(lines, size)
    else:
        with pytest.raises(LedgerError):
            check_offer(offer, _head(lines, known), OWNER.public)


def test_first_head_is_taken_as_it_is_and_from_nothing_with_all_records(lines):
    assert check_offer(_offer(lines, 6), None, OWNER.public) == _head(lines)
    assert check_offer(_offer(lines, 0), START, OWNER.public) == _head(lines)
    with pytest.raises(LedgerError):
        check_offer(_offer(lines, 1), START, OWNER.public)


@pytest.mark.parametrize("since", [0, 1, 3, 4])
@pytest.mark.parametrize("size", [4, 5, 6])
def test_fork_is_refused_at_any_length(lines, forked, since, size):
    with pytest.raises(LedgerError):
        check_offer(_offer(forked, since, size), _head(lines, 4), OWNER.public)


def test_fork_after_the_known_head_cannot_be_told_yet_and_then_is(lines, forked):
    assert check_offer(_offer(forked, 3, 4), _head(lines, 3), OWNER.public) == _head(forked, 4)
    with pytest.raises(LedgerError):
        check_offer(_offer(lines, 3), _head(forked, 4), OWNER.public)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[1:],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0], lines[2], lines[1]],
        lambda lines: [lines[0], lines[0], *lines[1:]],
        lambda lines: [lines[0], lines[1].replace('"D"', '"d"'), lines[2]],
        lambda lines: [*lines[:2], "{}"],
        lambda lines: [*lines[:2], ""],
        lambda lines: [*lines, ""],
        lambda lines: [],
    ],
    ids=range(10),
)
def test_extension_with_any_other_records_is_refused(lines, spoil):
    known, head = _head(lines, 3), _head(lines)
    check_extension(lines[3:], known, head)
    with pytest.raises(LedgerError, match="record 6 does not follow from 3"):
        check_extension(spoil(lines[3:]), known, head)


def test_rekeyed_or_foreign_head_is_refused(lines):
    thief = Identity.generate(OWNER.public.name)
    for known in (None, _head(lines, 3), _head(lines)):
        for signer in (thief, OTHER):
            with pytest.raises(LedgerError, match="pinned key"):
                check_offer(_offer(lines, 3, owner=signer), known, OWNER.public)
        with pytest.raises(LedgerError, match="pinned key"):
            check_offer(_offer(lines, 3), known, OTHER.public)


def test_head_of_another_ledger_with_this_owners_signature_is_refused(lines):
    root = Record.from_line(lines[5]).digest
    foreign = Checkpoint(origin=OTHER.public.name, size=6, root=root)
    with pytest.raises(LedgerError, match="pinned key"):
        check_offer(Offer(note=foreign.signed_by(OWNER)), None, OWNER.public)


def test_head_without_its_owners_signature_is_refused(lines):
    for note in ("", f"{_head(lines).text()}\n", _head(lines).text()):
        with pytest.raises(LedgerError):
            check_offer(Offer(note=note), None, OWNER.public)


@pytest.mark.parametrize("since", [-1, 4, 7, 2**60])
def test_offer_that_begins_after_what_is_known_is_refused(lines, since):
    offer = Offer(note=_head(lines).signed_by(OWNER), since=since, lines=tuple(lines[3:]))
    with pytest.raises(LedgerError):
        check_offer(offer, _head(lines, 3), OWNER.public)


def test_witness_remembers_the_newest_head_of_everybody():
    def record(*heads):
        return {"type": "COSIGN", "heads": [head.as_text() for head in heads]}

    def head(name, size):
        return Checkpoint(origin=name, size=size, root=bytes([size] * 32))

    records = [record(head("a", 1), head("b", 7)), {"type": "DEBIT"}, record(head("a", 2))]
    assert known_heads(records) == {"a": head("a", 2), "b": head("b", 7)}
    assert known_heads([]) == {}


# ---- what travels ----

OFFERS = st.builds(Offer, note=TEXTS, since=SIZES, lines=LINES)
CALLS = st.builds(
    Call, since=SIZES, note=TEXTS, lines=LINES, offers=st.lists(OFFERS, max_size=3).map(tuple)
)
TESTIMONIES = st.builds(
    witness.Testimony,
    note=TEXTS,
    lines=LINES,
    cosigned=st.dictionaries(TEXTS, TEXTS, max_size=3),
    refused=st.dictionaries(TEXTS, SIZES, max_size=3),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["since", "note", "lines", "offers", "cosigned", "refused", "a"],
            ),
            parts,
        )
    ),
)


@given(CALLS)
def test_call_survives_its_bytes(call):
    assert Call.from_bytes(call.to_bytes()) == call


@given(TESTIMONIES)
def test_testimony_survives_its_bytes(said):
    assert witness.Testimony.from_bytes(said.to_bytes()) == said


def test_nothing_asks_for_nothing():
    assert Call.from_bytes(b"") == Call()
    with pytest.raises(CodecError):
        witness.Testimony.from_bytes(b"")


@settings(max_examples=200)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_bytes_of_anything_are_read_or_refused(blob):
    for record_type in (Call, witness.Testimony):
        try:
            read = record_type.from_bytes(blob)
        except CodecError:
            continue
        assert record_type.from_bytes(read.to_bytes()) == read


@pytest.mark.parametrize(
    "change",
    [
        {"since": True},
        {"since": "1"},
        {"since": 1.0},
        {"note": None},
        {"note": ["x"]},
        {"lines": ["x", 1]},
        {"lines": "x"},
        {"lines": [None]},
        {"offers": [{}]},
        {"offers": [[]]},
        {"offers": [{"note": "x", "since": 0, "lines": [], "more": 1}]},
        {"offers": [{"note": "x", "since": True, "lines": []}]},
        {"offers": [{"note": "x", "since": 0, "lines": [1]}]},
        {"more": 1},
    ],
    ids=str,
)
def test_malformed_call_is_refused(change):
    raw = {"since": 0, "note": "", "lines": [], "offers": []} | change
    with pytest.raises(CodecError):
        Call.from_bytes(json.dumps(raw).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"cosigned": {"a": 1}},
        {"cosigned": []},
        {"refused": {"a": "1"}},
        {"refused": {"a": True}},
        {"refused": {"a": 1.0}},
        {"lines": [{}]},
        {"note": 1},
        {"since": 1},
    ],
    ids=str,
)
def test_malformed_testimony_is_refused(change):
    raw = {"note": "", "lines": [], "cosigned": {}, "refused": {}} | change
    with pytest.raises(CodecError):
        witness.Testimony.from_bytes(json.dumps(raw).encode())


def test_what_travels_is_bounded_in_bytes_lines_and_depth(monkeypatch):
    monkeypatch.setattr(witness, "MAX_LINES", 2)
    assert len(Call.from_bytes(Call(lines=("a", "b")).to_bytes()).lines) == 2
    with pytest.raises(CodecError, match="at most 2"):
        Call.from_bytes(Call(lines=("a", "b", "c")).to_bytes())
    with pytest.raises(CodecError, match="no JSON"):
        Call.from_bytes(b"[" * 1_000_000)
    monkeypatch.setattr(witness, "MAX_BYTES", 10)
    with pytest.raises(CodecError, match="more than 10"):
        Call.from_bytes(Call().to_bytes())


def test_head_in_a_record_is_the_head(lines):
    heads = known_heads([{"type": "COSIGN", "heads": [_head(lines).as_text()]}])
    assert heads == {OWNER.public.name: _head(lines)}
    assert base64.b64decode(_head(lines).as_text()["root"]) == _head(lines).root
