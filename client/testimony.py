"""A silo as witness of the others' ledgers."""

import time
from collections.abc import Sequence
from pathlib import Path

from fondaco.shared.chain.keys import Identity, PublicKey
from fondaco.shared.chain.notes import cosign
from fondaco.shared.chain.witness import Offer, Testimony, check_offer, known_heads
from fondaco.shared.errors import LedgerError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.workspace import folder_name


def cosign_offers(
    ledger: Ledger, identity: Identity, plan: RunPlan, offers: Sequence[Offer]
) -> Testimony:
    """Co-sign every offered head that follows from the last one co-signed of its owner.

    The signatures are in this silo's own ledger before they are returned.
    """
    seen = known_heads(ledger.chain.of_type("COSIGN"))
    keys = (PublicKey.from_text(text) for text in plan.roster.values())
    pinned = {key.name: key for key in keys if key != identity.public}
    cosigned: dict[str, str] = {}
    refused: dict[str, int] = {}
    newer = []
    for offer in offers:
        origin = origin_of(offer)
        known = seen.get(origin)
        try:
            head = check_offer(offer, known, pinned[origin])
        except (LedgerError, KeyError):
            refused[origin] = known.size if known else 0
            continue
        newer += [head] if head != known else []
        cosigned[origin] = cosign(offer.note, identity, int(time.time()))
    ledger.note_cosigned(newer)
    return Testimony(note=ledger.chain.note(), cosigned=cosigned, refused=refused)


def keep_replicas(folder: Path, offers: Sequence[Offer], said: Testimony) -> None:
    """Keep the records behind co-signed heads, for whoever loses his own."""
    for offer in offers:
        if origin_of(offer) in said.cosigned and offer.lines:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{folder_name(origin_of(offer))}.jsonl"
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in offer.lines)


def origin_of(offer: Offer) -> str:
    """Return whose head is offered, by its own account."""
    return offer.note.partition("\n")[0]
