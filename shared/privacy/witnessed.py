"""Whether others have seen what a ledger released: without that nothing more may be debited."""

from ..chain.keys import PublicKey
from ..chain.notes import checked_note, is_signed, parse_note
from ..chain.store import Chain
from ..errors import LedgerError, RefusalError
from .plan import RunPlan


def witnessed_head(plan: RunPlan, silo_id: str, chain: Chain, note: str) -> str:
    """Return the co-signed head that covers all releases, without lines that prove nothing.

    Args:
        plan: names the witnesses; "" is returned where it asks for none.
        silo_id: whose ledger it is.
        chain: its records.
        note: the head with its signatures, as it came along.

    Raises:
        RefusalError: the head is not this ledger's, too old, or too few have signed it.
    """
    if not plan.witnesses:
        return ""
    keys = {silo: PublicKey.from_text(text) for silo, text in plan.roster.items()}
    central = PublicKey.from_text(plan.coordinator)
    try:
        mine = keys.pop(silo_id)
        head, clean, signed = checked_note(note, mine, [*keys.values(), central])
    except (LedgerError, KeyError):
        raise RefusalError("no co-signed head of this ledger came along", "not-witnessed") from None
    others = signed - {central.name}
    released = max((r["seq"] for r in chain.of_type("RELEASE")), default=1)
    sound = head.root == chain.root_at(head.size) and head.size >= released
    if not (sound and central.name in signed and len(others) >= plan.witnesses):
        raise RefusalError(
            f"{len(others)} of {plan.witnesses} witnesses co-signed what this ledger released",
            "not-witnessed",
        )
    return clean


def check_newest(chain: Chain, note: str) -> None:
    """Refuse to write anything after a lost record: that would fork the ledger for good.

    Args:
        chain: the ledger's records.
        note: a head of this ledger, as others have seen it; "" if none is at hand.

    Raises:
        RefusalError: this ledger's owner signed a longer one before.
    """
    try:
        head, _ = parse_note(note)
        signed = is_signed(note, chain.owner)
    except LedgerError:
        return
    if signed and head.size > len(chain.bodies):
        raise RefusalError(
            f"this ledger once had {head.size} records and has {len(chain.bodies)}; "
            "restore it or take its records back from a peer",
            "behind",
        )
