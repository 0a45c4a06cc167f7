"""One message of each kind from fixed seeds, and hypothesis' idea of all others."""

from collections.abc import Mapping
from typing import get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from fondaco.shared.chain.canonical import MAX_INT
from fondaco.shared.secagg.keys import Secrets
from fondaco.shared.secagg.messages import (
    Certificate,
    Confirmation,
    Delivery,
    Hello,
    Message,
    Released,
    Roster,
    Shares,
    Survivors,
    Task,
    Unmasking,
    participants_digest,
)
from fondaco.shared.secagg.session import Session

KINDS = [
    Task,
    Hello,
    Roster,
    Shares,
    Delivery,
    Survivors,
    Confirmation,
    Certificate,
    Unmasking,
    Secrets,
    Released,
    Session,
]
each_kind = st.sampled_from(KINDS)


def samples():
    """Return kind -> a message that never changes."""
    task = Task(
        plan_digest="sha256:plan",
        run_id="run",
        kind="gram",
        round_num=1,
        attempt=2,
        request="sha256:request",
        expires=1_800_000_000,
    )
    hellos = tuple(_hello(task, name) for name in ("silo-000", "silo-001", "zürich"))
    roster = Roster(hellos=hellos)
    silos = tuple(roster.by_silo)
    survivors = Survivors(
        task=task,
        roster=roster.digest,
        participants=participants_digest(roster.digest, silos),
        silos=dict(zip(silos[:2], (b"first", b"second"), strict=True)),
    )
    parts = {name: bytes(range(num)) for num, name in enumerate(silos)}
    secrets = Secrets(mask_seed=b"m" * 16, self_seed=b"s" * 16, share_seed=b"k" * 32, hybrid="")
    return {
        Task: task,
        Hello: hellos[0],
        Roster: roster,
        Shares: Shares(
            silo_id="zürich",
            roster=roster.digest,
            parcels=parts,
            mask_digests=parts,
            self_digests={},
            signature=b"\xff",
        ),
        Delivery: Delivery(participants=parts, parcels={}),
        Released: Released(silo_id="silo-000", signature=b"sig"),
        Survivors: survivors,
        Confirmation: Confirmation(silo_id="silo-000", signature=b"\x00" * 3),
        Certificate: Certificate(survivors=survivors, confirmations=parts),
        Unmasking: Unmasking(
            silo_id="silo-001",
            self_seed=b"s" * 16,
            self_shares=parts,
            mask_shares={},
            pair_secrets=parts,
        ),
        Secrets: secrets,
        Session: Session(
            hello=hellos[0],
            secrets=secrets,
            roster=b"{}",
            participants=silos,
            mask_shares=parts,
            self_shares=parts,
            pair_secrets={},
            survivors=silos[:2],
        ),
    }


def _hello(task, name):
    seed = name.encode()[:1]
    return Hello(
        task=task,
        silo_id=name,
        mask_key=seed * 32,
        share_key=seed * 31 + b"+",
        mask_kem=b"",
        share_kem=b"",
        commitment=seed * 30 + b"//",
        signature=seed * 64,
    )


def messages(kind):
    """Return a strategy of all messages of a kind, small ones."""
    return st.builds(
        kind,
        **{
            name: _values(hint)
            for name, hint in get_type_hints(kind).items()
            if name != "max_bytes"
        },
    )


def _values(hint):
    if get_origin(hint) is tuple:
        return st.lists(_values(get_args(hint)[0]), max_size=3).map(tuple)
    if get_origin(hint) is Mapping:
        return st.dictionaries(_values(str), _values(get_args(hint)[1]), max_size=3)
    if issubclass(hint, Message):
        return messages(hint)
    return _SIMPLE[hint]


_PRINTABLE = st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]) | st.just(" ")
_SIMPLE = {
    str: st.text(_PRINTABLE, max_size=12),
    bytes: st.binary(max_size=12),
    int: st.integers(0, MAX_INT),
}
