"""What the coordinator knows of every silo's ledger, and the signatures it collects for it.

It keeps a replica of each ledger and signs, like any witness, only what follows from the last
head that it signed. Heads are on disk before anybody hears of the signature.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fondaco.shared.chain.keys import Identity, PublicKey
from fondaco.shared.chain.notes import Checkpoint, cosign, cosigners, parse_note
from fondaco.shared.chain.store import NOTHING
from fondaco.shared.chain.witness import Call, Offer, Testimony, check_offer
from fondaco.shared.errors import LedgerError
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.workspace import folder_name, write_durably

HEADS = "heads.notes"


@dataclass
class _Known:
    """One silo's ledger as known here: its replica, newest note, and who has seen what."""

    lines: list[str] = field(default_factory=list)
    note: str = ""
    head: Checkpoint | None = None
    lost: tuple[str, ...] = ()
    signed: set[str] = field(default_factory=set)
    stored: int = -1
    seen_by: dict[str, int] = field(default_factory=dict)


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
        self._kept_notes = self._read_notes()
        self._known = {silo: self._load(silo) for silo in self._keys}

    @property
    def needed(self) -> bool:
        """Whether the plan asks for witnesses at all."""
        return self._plan.witnesses > 0

    def call(self, silo_id: str, *, witness_for: Sequence[str] = ()) -> bytes:
        """Return what a silo is told: its own co-signed head, and others' heads to sign."""
        known = self._known.get(silo_id)
        if known is None:
            return b""
        offers = [self._offer(other, silo_id) for other in witness_for]
        return Call(
            since=len(known.lines), note=known.note, lines=known.lost, offers=tuple(offers)
        ).to_bytes()

    def charges(self, present: Sequence[str]) -> dict[str, list[str]]:
        """Return whose heads each silo is asked to sign: those of the silos before it."""
        ring = sorted(silo for silo in present if silo in self._known)
        asked = min(self._plan.witnesses, len(ring) - 1)
        return {
            silo: [ring[place - step] for step in range(1, asked + 1)]
            for place, silo in enumerate(ring)
        }

    def hear(self, silo_id: str, blob: bytes) -> str:
        """Take in what a silo says of its own ledger; return why it cannot be right, or "".

        A silo whose ledger is shorter than it was gets its records back with the next call.

        Raises:
            CodecError: it is malformed.
            LedgerError: the head is no head.
        """
        known = self._known.get(silo_id)
        if known is None or not blob:
            return ""
        said = Testimony.from_bytes(blob)
        head, _ = parse_note(said.note)
        if known.head is not None and head.size < known.head.size:
            known.lost = tuple(known.lines[head.size :])
            return ""
        known.lost = ()
        if head == known.head:
            return ""
        start = known.head or Checkpoint(origin=head.origin, size=0, root=NOTHING)
        offer = Offer(note=said.note, since=len(known.lines), lines=said.lines)
        try:
            head = check_offer(offer, start, self._keys[silo_id])
        except LedgerError as error:
            return str(error)
        self._keep(silo_id, known, offer, head)
        return ""

    def collect(self, witness: str, blob: bytes) -> list[str]:
        """Take in a silo's signatures; return the silos whose heads it knows an older one of.

        Raises:
            CodecError: it is malformed.
        """
        said = Testimony.from_bytes(blob)
        for origin, line in said.cosigned.items():
            known = self._known.get(self._silo_of.get(origin, ""))
            if known is not None and known.head is not None:
                key = self._keys[witness]
                if cosigners(f"{known.head.text()}\n{line}", [key]) - known.signed:
                    known.note += line
                    known.signed.add(key.name)
                    known.seen_by[witness] = known.head.size
        again = []
        for origin, size in said.refused.items():
            silo_id = self._silo_of.get(origin, "")
            if silo_id in self._known and self._known[silo_id].seen_by.get(witness) != size:
                self._known[silo_id].seen_by[witness] = size
                again.append(silo_id)
        return again

    def save(self) -> None:
        """Put replicas and heads on disk; before this nobody is told of a signature."""
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
        since = known.seen_by.get(witness, len(known.lines))
        return Offer(note=known.note, since=since, lines=tuple(known.lines[since:]))

    def _keep(self, silo_id: str, known: _Known, offer: Offer, head: Checkpoint) -> None:
        known.lines += offer.lines[len(known.lines) - offer.since :]
        known.head, known.signed = head, set()
        known.note = offer.note + cosign(offer.note, self._identity, int(time.time()))

    def _load(self, silo_id: str) -> _Known:
        """Return what was kept of a silo: the replica up to the newest head that was signed."""
        path = self._path(silo_id)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        note = self._kept_notes.get(self._keys[silo_id].name, "")
        if not note:
            return _Known()
        head, _ = parse_note(note)
        signed = cosigners(note, self._keys.values())
        return _Known(lines=lines[: head.size], note=note, head=head, signed=signed)

    def _read_notes(self) -> dict[str, str]:
        path = self._folder / HEADS
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        return {parse_note(note)[0].origin: note for note in split_notes(text)}

    def _path(self, silo_id: str) -> Path:
        return self._folder / f"{folder_name(silo_id)}.jsonl"


def split_notes(text: str) -> list[str]:
    """Return the notes of a file in which they stand one after another."""
    notes: list[list[str]] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("fondaco/"):
            notes.append([])
        if notes and (line.strip() or len(notes[-1]) == 3):  # noqa: PLR2004  (text, blank, signatures)
            notes[-1].append(line)
    return ["".join(note) for note in notes]
