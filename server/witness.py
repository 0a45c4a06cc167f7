"""What the coordinator knows of every silo's ledger, and the signatures it collects for it.

It keeps a replica of each ledger and signs, like any witness, only what follows from the last
head that it signed. Heads are on disk before anybody hears of the signature.
"""

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fondaco.shared.chain.keys import Identity, PublicKey
from fondaco.shared.chain.notes import (
    Checkpoint,
    checked_line,
    cosign,
    cosigners,
    is_signed,
    parse_note,
)
from fondaco.shared.chain.store import NOTHING, Record, check_links
from fondaco.shared.chain.witness import Call, Offer, Testimony
from fondaco.shared.errors import LedgerError
from fondaco.shared.files import folder_name, write_durably
from fondaco.shared.privacy.plan import RunPlan

HEADS = "heads.notes"


@dataclass
class _Known:
    """One silo's ledger as known here: its replica, newest note, and who has seen what.

    Attributes:
        root: hash of the replica's last record.
        lost: the silo's own records that it does not have any more.
        signed: names of the silos' keys under the note.
        asked: silos that were asked to sign the newest head.
        stored: lines of the replica on disk; -1 if its file must be written anew.
    """

    lines: list[str] = field(default_factory=list)
    root: bytes = NOTHING
    note: str = ""
    head: Checkpoint | None = None
    lost: tuple[str, ...] = ()
    signed: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    seen_by: dict[str, int] = field(default_factory=dict)
    stored: int = -1


class WitnessBook:
    """Heads and replicas of all silos of one plan.

    Args:
        folder: where they are kept.
        plan: names the silos' keys and how many witnesses a head needs.
        identity: the coordinator's.

    Raises:
        LedgerError: a kept head is damaged.
    """

    def __init__(self, folder: Path, plan: RunPlan, identity: Identity) -> None:
        self._folder = folder
        self._plan = plan
        self._identity = identity
        self._keys = {silo: PublicKey.from_text(text) for silo, text in plan.roster.items()}
        self._silo_of = {key.name: silo for silo, key in self._keys.items()}
        notes = self._read_notes()
        self._known = {silo: self._load(silo, notes) for silo in self._keys}

    @property
    def needed(self) -> bool:
        """Whether the plan asks for witnesses at all."""
        return self._plan.witnesses > 0

    def call(self, silo_id: str, *, witness_for: Sequence[str] = ()) -> bytes:
        """Return what a silo is told: its own co-signed head, and others' heads to sign."""
        known = self._known.get(silo_id)
        if known is None:
            return b""
        offers = tuple(self._offer(other, silo_id) for other in witness_for)
        since, lost = len(known.lines), known.lost
        return Call(since=since, note=known.note, lines=lost, offers=offers).to_bytes()

    def charges(self, present: Sequence[str], silent: Collection[str] = ()) -> dict[str, list[str]]:
        """Return whose heads each silo should sign next: of those that still lack signatures.

        The silos after it in the ring come first, and nobody is asked twice. A silo that lost
        records is told so, with nothing to sign. Those that were silent just now are not asked.
        """
        ring = sorted(silo for silo in present if silo in self._known)
        lost = [silo for silo in ring if self._known[silo].lost and silo not in silent]
        asked: dict[str, list[str]] = {silo: [] for silo in lost}
        for place, silo in enumerate(ring):
            known = self._known[silo]
            missing = max(0, self._plan.witnesses - len(known.signed))
            barred = known.asked.union(silent)
            others = [w for w in ring[place + 1 :] + ring[:place] if w not in barred]
            for witness in others[:missing]:
                known.asked.add(witness)
                asked.setdefault(witness, []).append(silo)
        return asked

    def hear(self, silo_id: str, blob: bytes) -> str:
        """Take in what a silo says of its own ledger; return why it cannot be right, or "".

        A silo whose ledger is shorter than it was gets its records back with the next call.

        Raises:
            CodecError: it is malformed.
            LedgerError: head or records are none.
        """
        if not self._keys:
            return ""
        known = self._known.get(silo_id)
        if known is None or not blob:
            return "is not in the plan's roster" if known is None else "shows no ledger"
        said, key = Testimony.from_bytes(blob), self._keys[silo_id]
        head, _ = parse_note(said.note)
        if head.origin != key.name or not is_signed(said.note, key):
            return f"the head of {silo_id}'s ledger was not signed by its pinned key"
        if known.head is not None and head.size < known.head.size:
            known.lost = tuple(known.lines[head.size :])
            return ""
        known.lost = ()
        return self._extend(known, said, head)

    def shows_release(self, silo_id: str, blob: bytes) -> bool:
        """Return whether the silo's ledger, as known here, holds the RELEASE of these bytes."""
        known = self._known.get(silo_id)
        if known is None:
            return not self._keys
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        bodies = (Record.from_line(line).parsed() for line in reversed(known.lines))
        return any(b["type"] == "RELEASE" and b.get("blob") == digest for b in bodies)

    def collect(self, witness: str, blob: bytes) -> None:
        """Take in a silo's signatures, and which heads it cannot sign yet.

        Raises:
            CodecError: it is malformed.
        """
        said = Testimony.from_bytes(blob)
        mine, key = self._known[witness], self._keys[witness]
        with suppress(LedgerError):  # its signatures count, whatever it says of its own ledger
            size = parse_note(said.note)[0].size
            if mine.head is not None and size < mine.head.size and is_signed(said.note, key):
                mine.lost = tuple(mine.lines[size:])
        for origin, line in said.cosigned.items():
            known = self._known.get(self._silo_of.get(origin, ""))
            if known is not None and known.head is not None and key.name not in known.signed:
                checked = checked_line(known.head, line, key)
                if checked:
                    known.note += checked
                    known.signed.add(key.name)
                    known.seen_by[witness] = known.head.size
        for origin, seen in said.refused.items():
            known = self._known.get(self._silo_of.get(origin, ""))
            if known and 0 <= seen <= len(known.lines) and known.seen_by.get(witness) != seen:
                known.seen_by[witness] = seen
                known.asked.discard(witness)

    def ask_again(self, witness: str) -> None:
        """Let a silo be asked once more for what it was asked: its signatures were lost."""
        for known in self._known.values():
            known.asked.discard(witness)

    def save(self) -> None:
        """Put replicas and heads on disk; before this nobody is told of a signature."""
        if not self.needed:
            return
        for silo_id, known in self._known.items():
            self._append_to(self._path(silo_id), known)
        notes = [known.note for known in self._known.values() if known.note]
        write_durably(self._folder / HEADS, "\n".join(notes).encode())

    def _append_to(self, path: Path, known: _Known) -> None:
        """Add the records that the replica's file lacks; a torn or stray tail is cut off."""
        if known.stored < 0:
            write_durably(path, "".join(f"{line}\n" for line in known.lines).encode())
        elif known.stored < len(known.lines):
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in known.lines[known.stored :])
        known.stored = len(known.lines)

    def _offer(self, silo_id: str, witness: str) -> Offer:
        known = self._known[silo_id]
        since = known.seen_by.get(witness, 0)  # all of it, if nothing is known of that witness
        return Offer(note=known.note, since=since, lines=tuple(known.lines[since:]))

    def _extend(self, known: _Known, said: Testimony, head: Checkpoint) -> str:
        """Append the records that lead to `head`, if they pass through the known one."""
        have = len(known.lines)
        records = [Record.from_line(line) for line in said.lines]
        fresh = [record for record in records if record.parsed()["seq"] > have]
        hashes = [known.root, *check_links(fresh, have, known.root)]
        if have + len(fresh) != head.size or hashes[-1] != head.root:
            return f"record {head.size} of its ledger does not follow from record {have}"
        if known.head is not None and hashes[known.head.size - have] != known.head.root:
            return f"its ledger was forked before record {known.head.size}"
        known.lines += [record.line() for record in fresh]
        known.root = head.root
        if head != known.head:
            known.head, known.signed, known.asked = head, set(), set()
            known.note = said.note + cosign(said.note, self._identity, int(time.time()))
        return ""

    def _load(self, silo_id: str, notes: Mapping[str, str]) -> _Known:
        """Return what was kept of a silo: its newest head, and the replica as far as it is whole.

        The replica's file may have a torn end, or lack what a power cut took.
        """
        note = notes.get(self._keys[silo_id].name, "")
        if not note:
            return _Known()
        head, _ = parse_note(note)
        known = _Known(note=note, head=head, signed=cosigners(note, self._keys.values()))
        path = self._path(silo_id)
        text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
        for line in text.split("\n")[: head.size]:
            try:
                (known.root,) = check_links([Record.from_line(line)], len(known.lines), known.root)
            except LedgerError:
                break
            known.lines.append(line)
        return known

    def _read_notes(self) -> dict[str, str]:
        path = self._folder / HEADS
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        return {parse_note(note)[0].origin: note for note in split_notes(text)}

    def _path(self, silo_id: str) -> Path:
        return self._folder / f"{folder_name(silo_id)}.jsonl"


def split_notes(text: str) -> list[str]:
    """Return the notes of a file in which they stand one after another."""
    notes: list[list[str]] = []
    for line in (f"{part}\n" for part in text.split("\n")):
        if line.startswith("fondaco/"):
            notes.append([])
        if notes and (line.strip() or len(notes[-1]) == 3):  # noqa: PLR2004  (text, blank, signatures)
            notes[-1].append(line)
    return ["".join(note) for note in notes]
