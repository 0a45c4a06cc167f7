"""Who has seen a ledger: cosignatures, COSIGN records of others, and copies kept elsewhere.

A chain and its signatures do not stop its owner from cutting or rewriting it; whoever has seen a
later head does. Each function compares one such sighting with the ledger as it is shown now.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from .formats import (
    COORDINATOR,
    COSIGNED,
    DOMAIN,
    SIGNED,
    ZEROS,
    Key,
    Note,
    chain_hash,
    int_of,
    origin_of,
    read_key,
    read_note,
    text_of,
    unbase64,
)
from .plans import Plan
from .reading import Record, read_ledger
from .state import Backing, LedgerState

Problem = tuple[str, str]


class Signers(NamedTuple):
    """Who signed a note: its owner, other silos, the coordinator; and whose line is forged."""

    owner: bool
    silos: tuple[str, ...]
    coordinator: bool
    wrong: tuple[str, ...]


def signers_of(state: LedgerState, note: Note, plan: Plan) -> Signers:
    """Return who of a plan signed a note about the ledger of `state`."""
    others = tuple((name, key) for name, key in plan.roster.items() if name != state.silo_id)
    own = tuple(key for _, key in state.keys)
    return _signers(note, own, others, plan.coordinator)


@lru_cache(maxsize=256)
def _signers(
    note: Note, own: tuple[Key, ...], others: tuple[tuple[str, Key], ...], led_by: Key | None
) -> Signers:
    """Return who signed a note; remembered, because the releases of a round share one."""
    verdicts = {name: note.verdict(key, COSIGNED) for name, key in others}
    owner = [note.verdict(key, SIGNED) for key in own]
    led = note.verdict(led_by, COSIGNED) if led_by else None
    wrong = [name for name, verdict in verdicts.items() if verdict is False]
    wrong += ["the coordinator"] if led is False else []
    wrong += ["its owner"] if False in owner else []
    silos = tuple(name for name, verdict in verdicts.items() if verdict)
    return Signers(True in owner, silos, led is True, tuple(wrong))


def read_heads(heads: Iterable[object]) -> Iterator[tuple[str, int, bytes]]:
    """Yield (origin, size, root) of a COSIGN record's heads.

    Raises:
        ValueError: one of them is no head.
    """
    for head in heads:
        if not isinstance(head, dict) or set(head) != {"origin", "size", "root"}:
            raise ValueError(f"{head!r:.60} is no head")
        origin, size = text_of(head, "origin"), int_of(head, "size")
        if not origin or size < 0:
            raise ValueError(f"{head!r:.60} is no head")
        yield origin, size, unbase64(text_of(head, "root"), len(ZEROS))


def cosign(record: Record, state: LedgerState) -> Iterator[Problem]:
    """A witness signs for others, and never an older or another head than it signed before."""
    try:
        heads = list(read_heads(record.body["heads"]))
    except ValueError as error:
        yield "fields", str(error)
        return
    here: dict[str, tuple[int, bytes]] = {}
    for origin, size, root in heads:
        known = here.get(origin) or state.last_cosigned.get(origin)
        before, its_root = known or (0, ZEROS)
        if origin == state.origin:
            yield "cosign", "a silo cannot be its own witness"
        if size < before or (size == before and root != its_root and before):
            yield "cosign", f"it signs {size} records of {origin} after another head of {before}"
        here[origin] = size, root


def note_backings(state: LedgerState, note: Note, source: str) -> list[Backing]:
    """Return who, by a note's valid signatures, has seen the ledger of `state`."""
    found: set[str] = set()
    for plan in state.used_plans():
        signers = signers_of(state, note, plan)
        found.update(signers.silos)
        if signers.coordinator:
            found.add(COORDINATOR)
        if signers.owner:
            found.add(state.silo_id)
    if not state.used_plans() and any(note.verdict(key, SIGNED) for _, key in state.keys):
        found.add(state.silo_id)
    return [Backing(name, note.size, note.root, source) for name in sorted(found)]


def check_note(state: LedgerState, note: Note, source: str) -> Iterator[Problem]:
    """Compare a note about the ledger with the ledger."""
    wrong = {n for plan in state.used_plans() for n in signers_of(state, note, plan).wrong}
    if wrong:
        yield "cosignature", f"{source}: the signature of {', '.join(sorted(wrong))} is forged"
    elif not note_backings(state, note, source):
        yield "unknown-note", f"{source}: nobody the plan names has signed this note"
    else:
        yield from check_head(state, note.size, note.root, source)


def check_absent(note: Note, source: str, plans: Iterable[Plan]) -> Iterator[Problem]:
    """Judge a note about a ledger that is not here: somebody whom a plan names must know it."""
    signers = [
        _signers(
            note,
            tuple(key for silo, key in plan.roster.items() if origin_of(silo) == note.origin),
            tuple(pair for pair in plan.roster.items() if origin_of(pair[0]) != note.origin),
            plan.coordinator,
        )
        for plan in plans
    ]
    text = f"{source} speaks of {note.origin}, whose ledger was not handed in"
    if any(each.wrong for each in signers):
        yield "cosignature", f"{text}, and a signature of it is forged"
    elif any(each.owner or each.silos or each.coordinator for each in signers):
        yield "absent-ledger", text
    else:
        yield "unknown-note", f"{text}, and nobody whom a plan names has signed it"


def check_head(state: LedgerState, size: int, root: bytes, source: str) -> Iterator[Problem]:
    """Compare a head that somebody has seen with the ledger."""
    if size > state.seq:
        yield "rolled-back", f"{source} saw {size} records, here are {state.seq}"
    elif size and state.hashes.get(size) != root:
        yield "forked", f"{source} saw another record {size} than stands here"


class Copy(NamedTuple):
    """A copy of a ledger that somebody else keeps."""

    source: str
    silo_id: str
    hashes: Mapping[int, bytes]
    sound: bool
    torn: bool


def read_copy(path: Path) -> Copy:
    """Return the hashes of a copy, and whether it is a chain whose head its owner signed.

    Raises:
        LedgerError: it cannot be read, but for a last line that a power cut has torn.
    """
    hashes: dict[int, bytes] = {}
    head, silo_id, sound = ZEROS, "", True
    key: Key | None = None
    last: Record | None = None
    torn: list[int] = []
    for last in read_ledger(path, torn):
        sound = sound and last.prev == head and last.hash == chain_hash(last.prev, last.text)
        signer = key
        if last.body.get("type") in ("GENESIS", "KEYROT"):
            silo_id = silo_id or text_of(last.body, "silo_id")
            key = _key_or_none(last.body.get("key"))
            signer = signer or key
        head = hashes[len(hashes) + 1] = last.hash
    signed = last is not None and signer is not None
    signed = signed and signer.verifies(last.signature, DOMAIN + last.hash)  # type: ignore[union-attr]
    return Copy(path.name, silo_id, hashes, sound and signed, bool(torn))


def _key_or_none(text: object) -> Key | None:
    try:
        return read_key(text)
    except ValueError:
        return None


def copy_problems(copy: Copy) -> Iterator[Problem]:
    """Judge a copy by itself: one that proves nothing may have been made to."""
    if copy.torn:
        yield "torn-copy", f"{copy.source} ends in half a record, which was left out"
    if not copy.sound:
        yield "bad-copy", f"{copy.source} is no chain that its owner signed; it proves nothing"


def check_copy(state: LedgerState, copy: Copy) -> Iterator[Problem]:
    """Compare a sound copy kept elsewhere with the ledger."""
    differs = [
        seq for seq, digest in copy.hashes.items() if state.hashes.get(seq, digest) != digest
    ]
    if differs:
        yield "forked", f"{copy.source} holds another record {min(differs)} than stands here"
    elif len(copy.hashes) > state.seq:
        yield "rolled-back", f"{copy.source} holds {len(copy.hashes)} records, here are {state.seq}"


def witnessed_backings(record: Record, state: LedgerState) -> list[Backing]:
    """Return who had seen the ledger before a debit, as the debit itself shows."""
    plan = state.plans.get(record.body["plan_digest"])
    try:
        note = read_note(record.body["witnessed"]) if plan else None
    except ValueError:
        return []
    if plan is None or note is None or note.origin != origin_of(state.silo_id):
        return []
    signers = signers_of(state, note, plan)
    names = [*signers.silos, *([COORDINATOR] if signers.coordinator else [])]
    source = f"the debit {record.body['seq']}"
    return [Backing(name, note.size, note.root, source) for name in names]
