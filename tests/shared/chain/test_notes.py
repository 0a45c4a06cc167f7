"""Signed notes: C2SP's text, other people's vectors, and what is refused."""

import base64
import hashlib
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.chain import notes
from fondaco.shared.chain.keys import COSIGNATURE, NOTE, Identity, PublicKey, key_name
from fondaco.shared.chain.notes import (
    Checkpoint,
    checked_note,
    cosign,
    cosigners,
    is_signed,
    parse_note,
)
from fondaco.shared.errors import LedgerError

NORTH, SOUTH, WEST = (Identity.seeded(0, key_name(name)) for name in ("north", "south", "west"))
ROOT = bytes(range(32))
HEAD = Checkpoint(origin="fondaco/north", size=7, root=ROOT)
TEXT = "fondaco/north\n7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
NOTED = HEAD.signed_by(NORTH)


def _line(name, blob):
    return f"\u2014 {name} {base64.b64encode(blob).decode()}\n"


def test_checkpoint_is_written_as_c2sp_writes_it():
    assert HEAD.text() == TEXT
    assert HEAD.as_text() == {
        "origin": "fondaco/north",
        "size": 7,
        "root": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    }


def test_note_is_its_text_an_empty_line_and_the_signature():
    material = b"fondaco/north\n\x01" + NORTH.public.raw
    blob = hashlib.sha256(material).digest()[:4] + NORTH.sign(TEXT.encode())
    assert TEXT + "\n" + _line("fondaco/north", blob) == NOTED


def test_cosignature_is_version_1_of_tlog_cosignature():
    stamp = struct.pack(">Q", 1_700_000_000)
    message = f"cosignature/v1\ntime 1700000000\n{TEXT}".encode()
    key_id = hashlib.sha256(b"fondaco/south\n\x04" + SOUTH.public.raw).digest()[:4]
    expected = _line("fondaco/south", key_id + stamp + SOUTH.sign(message))
    assert cosign(NOTED, SOUTH, 1_700_000_000) == expected


def test_other_peoples_signed_note_verifies():
    """Source: documentation of golang.org/x/mod/sumdb/note."""
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    signature = (
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJ"
        "nAM="
    )
    key = PublicKey.from_text("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    blob = base64.b64decode(signature)
    assert blob[:4] == key.key_id(NOTE)
    assert key.verifies(blob[4:], text.encode())


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1),
    st.integers(1, 2**53),
    st.binary(min_size=32, max_size=32),
)
def test_note_survives_its_text(silo_id, size, root):
    owner = Identity.seeded(1, key_name(silo_id))
    head = Checkpoint(origin=owner.public.name, size=size, root=root)
    note = head.signed_by(owner) + cosign(head.signed_by(owner), SOUTH, size)
    parsed, lines = parse_note(note)
    assert parsed == head
    assert [name for name, _ in lines] == [owner.public.name, "fondaco/south"]
    assert is_signed(note, owner.public)
    assert cosigners(note, [SOUTH.public, WEST.public]) == {"fondaco/south"}


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "no note",
        NOTED.replace("\n7\n", "\n07\n"),
        NOTED.replace("\n7\n", "\n+7\n"),
        NOTED.replace("\n7\n", "\n 7\n"),
        NOTED.replace("\n7\n", "\n7.0\n"),
        NOTED.replace("\n7\n", "\n\u0667\n"),
        NOTED.replace("\n7\n", "\n0\n"),
        NOTED.replace("\n7\n", "\n-7\n"),
        NOTED.replace("\n7\n", "\n" + "9" * 5000 + "\n"),
        NOTED.replace("\n7\n", "\n7\nextension\n"),
        NOTED.replace("Hh8=", "Hh8"),
        NOTED.replace("Hh8=", "Hh9="),
        NOTED.replace("AAEC", "AA\nEC"),
        NOTED.replace("AAEC", "EC"),
        NOTED.replace("\u2014", "-"),
        NOTED + "more\n",
        NOTED + "\n" + NOTED,
        NOTED + _line("a b", b"x"),
        NOTED + "\u2014 x ====\n",
        NOTED + "\u2014 x AAA\n",
        NOTED + _line("x", b"y") * 8000,
    ],
    ids=lambda note: repr(note[:30]),
)
def test_what_is_no_checkpoint_is_refused(note):
    with pytest.raises(LedgerError, match="no checkpoint"):
        parse_note(note)


def test_checkpoint_without_signatures_counts_as_unsigned():
    assert parse_note(TEXT + "\n") == (HEAD, [])
    assert not is_signed(TEXT + "\n", NORTH.public)


@given(st.text(max_size=200) | st.tuples(st.integers(0, 180), st.characters()))
def test_damaged_note_is_refused_or_unsigned_and_never_another_error(damage):
    if isinstance(damage, tuple):
        place, letter = damage
        damage = NOTED[:place] + letter + NOTED[place + 1 :]
    with suppress(LedgerError):
        assert not is_signed(damage, NORTH.public) or parse_note(damage)[0] == HEAD


def test_note_of_half_a_character_is_refused_as_no_checkpoint():
    with pytest.raises(LedgerError):
        is_signed(NOTED.replace("north", "nor\ud800", 1), NORTH.public)


def test_signature_counts_under_its_own_name_key_and_text_only():
    imposter = Identity.generate("fondaco/north")
    assert is_signed(NOTED, NORTH.public)
    assert not is_signed(NOTED, SOUTH.public)
    assert not is_signed(NOTED, imposter.public)
    assert not is_signed(HEAD.signed_by(imposter), NORTH.public)
    assert not is_signed(HEAD.signed_by(SOUTH), NORTH.public)
    assert not is_signed(NOTED.replace("\n7\n", "\n8\n"), NORTH.public)
    renamed = NOTED.replace("\u2014 fondaco/north", "\u2014 fondaco/south")
    assert not is_signed(renamed, SOUTH.public)
    assert not is_signed(renamed, NORTH.public)


def test_cosignature_counts_for_its_note_time_and_kind_only():
    line = cosign(NOTED, SOUTH, 5)
    keys = [SOUTH.public, WEST.public, NORTH.public]
    assert cosigners(NOTED + line, keys) == {"fondaco/south"}
    assert cosigners(NOTED + line + line, keys) == {"fondaco/south"}
    other = Checkpoint(origin="fondaco/north", size=8, root=ROOT).signed_by(NORTH)
    assert cosigners(other + line, keys) == set()
    blob = base64.b64decode(line.split(" ")[2])
    later = blob[:4] + struct.pack(">Q", 6) + blob[12:]
    for changed in (later, blob[:12], blob[:8], blob[:3], bytes(4) + blob[4:]):
        assert cosigners(NOTED + _line("fondaco/south", changed), keys) == set()


def test_plain_signature_is_no_cosignature_nor_the_other_way_round():
    plain = SOUTH.public.key_id(NOTE) + SOUTH.sign(TEXT.encode())
    assert cosigners(NOTED + _line("fondaco/south", plain), [SOUTH.public]) == set()
    assert cosigners(NOTED, [NORTH.public]) == set()
    timed = f"{TEXT}\n{cosign(NOTED, NORTH, 5)}"
    assert not is_signed(timed, NORTH.public)
    assert cosigners(timed, [NORTH.public]) == {"fondaco/north"}


def test_cosigning_a_broken_note_signs_nothing():
    with pytest.raises(LedgerError):
        cosign("fondaco/north\n7\n", SOUTH, 5)


def test_longest_note_is_bounded():
    junk = _line("x", b"y")
    most = (notes.MAX_NOTE - len(NOTED)) // len(junk)
    assert len(parse_note(NOTED + junk * most)[1]) == most + 1
    with pytest.raises(LedgerError):
        parse_note(NOTED + junk * (most + 1))


def test_algorithm_bytes_are_those_of_signed_note():
    assert (NOTE, COSIGNATURE) == (1, 4)


@pytest.mark.parametrize(
    "junk",
    [
        "\u2014 junk AAAA\n",
        cosign(NOTED, WEST, 7),
        cosign(NOTED, SOUTH, 7)[:-20] + "A" * 18 + "==\n",
        cosign(NOTED, SOUTH, 7),
        NOTED.rpartition("\n\n")[2],
    ],
    ids=["junk", "stranger", "forged", "twice", "owner twice"],
)
def test_note_is_kept_without_lines_that_prove_nothing(junk):
    good = NOTED + cosign(NOTED, SOUTH, 7)
    with suppress(LedgerError):  # what is no signature line at all spoils the note
        _, kept, names = checked_note(good + junk, NORTH.public, [SOUTH.public])
        assert (kept, names) == (good, {SOUTH.public.name})


def test_note_that_its_owner_did_not_sign_is_refused():
    with pytest.raises(LedgerError, match="not signed"):
        checked_note(HEAD.signed_by(SOUTH), NORTH.public, [SOUTH.public])
