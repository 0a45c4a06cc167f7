"""A silo as witness of the others' ledgers."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from fondaco.shared.chain.keys import Identity, PublicKey
from fondaco.shared.chain.notes import cosign
from fondaco.shared.chain.store import MAX_LINE, Record
from fondaco.shared.chain.witness import Call, Offer, Testimony, check_offer, known_heads
from fondaco.shared.errors import LedgerError
from fondaco.shared.files import folder_name
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import RunPlan


def cosign_offers(
    ledger: Ledger, identity: Identity, plan: RunPlan, call: Call, replicas: Path
) -> Testimony:
    """Co-sign every offered head that follows from the last one co-signed of its owner.

    The records behind it are kept, for whoever loses his own, and the signatures are in this
    silo's own ledger before they are returned.
    """
    seen = known_heads(ledger.chain.of_type("COSIGN"))
    keys = (PublicKey.from_text(text) for text in plan.roster.values())
    pinned = {key.name: key for key in keys if key != identity.public}
    cosigned: dict[str, str] = {}
    refused: dict[str, int] = {}
    newer = []
    first = {origin_of(offer): offer for offer in reversed(call.offers)}
    for origin, offer in first.items():
        known = seen.get(origin)
        try:
            head = check_offer(offer, known, pinned[origin])
        except (LedgerError, KeyError):
            refused[origin] = known.size if known else 0
            continue
        if head != known:
            if known is not None or not offer.since:
                fresh = offer.lines[(known.size if known else 0) - offer.since :]
                _keep_replica(replicas, origin, fresh)
            newer.append(head)
            seen[origin] = head
        cosigned[origin] = cosign(offer.note, identity, int(time.time()))
    ledger.note_cosigned(newer)
    return Testimony(note=ledger.chain.note(), cosigned=cosigned, refused=refused)


def _keep_replica(folder: Path, origin: str, lines: Sequence[str]) -> None:
    """Append checked records to a replica.

    A torn last line is cut off, a known record skipped; what a gap parts from the rest goes.
    """
    path = folder / f"{folder_name(origin)}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - MAX_LINE))
        tail = file.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        file.truncate(end - len(tail) + len(whole))
        last = whole.rstrip(b"\n").rpartition(b"\n")[2]
        newest = _seq(last.decode()) if last else 0
        fresh = [line for line in lines if _seq(line) > newest]
        if fresh and _seq(fresh[0]) != newest + 1:
            file.truncate(0)
        file.write("".join(f"{line}\n" for line in fresh).encode())


def _seq(line: str) -> int:
    return int(Record.from_line(line).parsed()["seq"])


def origin_of(offer: Offer) -> str:
    """Return whose head is offered, by its own account."""
    return offer.note.partition("\n")[0]
