"""What a silo signs for others, and which of their records it keeps."""

from contextlib import suppress
from dataclasses import replace

import pytest

from fondaco.shared.chain import witness
from fondaco.shared.chain.keys import Identity, PublicKey
from fondaco.shared.chain.notes import Checkpoint, cosigners
from fondaco.shared.chain.store import DOMAIN, Record, link
from fondaco.shared.chain.witness import Call, Offer
from fondaco.shared.errors import LedgerError


def _offer(lines, identity, since=0, size=None):
    size = size or len(lines)
    root = Record.from_line(lines[size - 1]).digest
    head = Checkpoint(origin=identity.public.name, size=size, root=root)
    return Offer(note=head.signed_by(identity), since=since, lines=tuple(lines[since:size]))


@pytest.fixture
def peer(federation, make_owner):
    """An agent, and the ledger of a peer of which it has co-signed the first three records."""
    with federation.ledger_of_peer(make_owner("silo-2")) as ledger:
        for _ in range(4):
            ledger.note_erasure(1)
        lines = ledger.chain.lines()
    agent = federation.agents["north"]
    said = agent.cosign(Call(offers=(_offer(lines, make_owner("silo-2"), size=3),)))
    assert set(said.cosigned) == {"fondaco/silo-2"}
    return agent, lines


def test_agent_signs_what_follows_and_says_so_once(peer, federation, make_owner):
    agent, lines = peer
    offer = _offer(lines, make_owner("silo-2"), since=3)
    said = agent.cosign(Call(offers=(offer,)))
    again = agent.cosign(Call(offers=(offer,)))
    for answer in (said, again):
        key = PublicKey.from_text(federation.plan.roster["north"])
        assert cosigners(offer.note + answer.cosigned["fondaco/silo-2"], [key]) == {key.name}
    assert [len(r["heads"]) for r in federation.records("COSIGN")] == [1, 1]
    restarted = federation.agent("north")
    refused = restarted.cosign(Call(offers=(_offer(lines, make_owner("silo-2"), size=4),)))
    assert refused.refused == {"fondaco/silo-2": 6}


@pytest.mark.parametrize(
    "change",
    [
        lambda lines, key: _offer(lines, key, size=2),
        lambda lines, key: _offer(lines, key, since=4),
        lambda lines, key: replace(_offer(lines, key, since=3), lines=()),
        lambda lines, key: replace(_offer(lines, key, since=3), since=2),
        lambda lines, key: replace(_offer(lines, key, since=3), since=-1),
        lambda lines, key: replace(_offer(lines, key, since=3), lines=tuple(lines[4:])),
        lambda lines, key: replace(_offer(lines, key, since=3), note=""),
        lambda lines, key: replace(_offer(lines, key, since=3), note="fondaco/silo-2\n6\n"),
        lambda lines, key: _offer(lines, Identity.generate(key.public.name), since=3),
        lambda lines, key: _offer(lines, Identity.generate("fondaco/stranger"), since=3),
        lambda lines, key: _offer(lines, Identity.generate("fondaco/north"), since=3),
    ],
    ids=["back", "gap", "bare", "since", "minus", "hole", "none", "torn", "key", "who", "own"],
)
def test_agent_refuses_to_sign_what_does_not_follow(peer, federation, make_owner, change):
    agent, lines = peer
    before = federation.lines()
    offer = change(lines, make_owner("silo-2"))
    said = agent.cosign(Call(offers=(offer,)))
    assert not said.cosigned
    assert len(said.refused) == 1
    assert federation.lines() == before


def test_agent_refuses_a_fork_of_what_it_signed(peer, federation, make_owner):
    agent, lines = peer
    key = make_owner("silo-2")
    agent.cosign(Call(offers=(_offer(lines, key, since=3),)))
    forked = _fork(lines, key)
    for size in (5, 6, 7):
        said = agent.cosign(Call(offers=(_offer(forked, key, since=3, size=size),)))
        assert said.refused == {"fondaco/silo-2": 6}


def _fork(lines, key):
    """Return another ledger of the same key with the same first three records."""
    forked, prev = lines[:3], Record.from_line(lines[2]).digest
    for num in range(4, 8):
        text = witness.canonical_json({"type": "FORK", "seq": num, "ts": "2026-01-01T00:00:00Z"})
        digest = link(prev, text)
        record = Record(prev=prev, body=text, digest=digest, signature=key.sign(DOMAIN + digest))
        forked.append(record.line())
        prev = digest
    return forked


def test_agent_signs_one_branch_of_a_fork_offered_at_once(peer, federation, make_owner):
    agent, lines = peer
    key = make_owner("silo-2")
    offers = (_offer(lines, key, since=3), _offer(_fork(lines, key), key, since=3))
    agent.cosign(Call(offers=offers))
    heads = [h for r in federation.records("COSIGN")[1:] for h in r["heads"]]
    assert [head["size"] for head in heads] == [6]


# ---- replicas at the silos ----


def _peer_replica(federation):
    path = federation.agents["north"]._home.replicas / "fondaco%2Fsilo-2.jsonl"
    return path, path.read_text().split("\n")[:-1]


def test_silo_keeps_the_records_that_it_signed_for(peer, federation, make_owner):
    agent, lines = peer
    agent.cosign(Call(offers=(_offer(lines, make_owner("silo-2"), since=3),)))
    assert _peer_replica(federation)[1] == lines


@pytest.mark.parametrize(
    "offered",
    [
        lambda lines: (0, lines),
        lambda lines: (2, lines[2:]),
        lambda lines: (0, ["garbage"] * 3 + lines[3:]),
        lambda lines: (1, ["garbage"] * 2 + lines[3:]),
    ],
    ids=["whole", "overlap", "garbage", "more"],
)
def test_replica_holds_nothing_twice_and_nothing_unchecked(peer, federation, make_owner, offered):
    agent, lines = peer
    since, records = offered(lines)
    offer = replace(_offer(lines, make_owner("silo-2"), since=3), since=since, lines=tuple(records))
    agent.cosign(Call(offers=(offer,)))
    kept = _peer_replica(federation)[1]
    assert kept == lines[-len(kept) :]
    assert len(kept) >= 3


@pytest.mark.parametrize("keep", [0.0, 0.4, 0.9])
def test_torn_replica_of_a_peer_is_never_glued_to_new_records(peer, federation, make_owner, keep):
    agent, lines = peer
    path, _ = _peer_replica(federation)
    blob = path.read_bytes()
    path.write_bytes(blob[: int(keep * len(blob))])
    agent.cosign(Call(offers=(_offer(lines, make_owner("silo-2"), since=3),)))
    kept = _peer_replica(federation)[1]
    assert kept[-3:] == lines[3:]
    assert [line for line in lines if line in kept] == kept


@pytest.mark.parametrize("change", [lambda lines: lines[1:], lambda lines: ["garbage"], list])
def test_first_replica_holds_what_leads_to_the_head_or_nothing(federation, make_owner, change):
    """The first head of somebody is taken as it is; records that do not lead to it are not."""
    key = make_owner("silo-2")
    with federation.ledger_of_peer(key) as ledger:
        ledger.note_erasure(1)
        lines = ledger.chain.lines()
    others = change(_fork([*lines[:3], *lines], key)) if change is not list else list(lines)
    offer = replace(_offer(lines, key), lines=tuple(others))
    with suppress(LedgerError):
        federation.agents["north"].cosign(Call(offers=(offer,)))
    path = federation.agents["north"]._home.replicas / "fondaco%2Fsilo-2.jsonl"
    kept = path.read_text().split("\n")[:-1] if path.is_file() else []
    assert kept == lines[: len(kept)]
    assert change is not list or kept == lines


def test_peers_replica_brings_lost_records_back(federation):
    coordinator = federation.coordinator()
    cohort = coordinator.roll_call()
    coordinator.witness(cohort)
    backup = federation.back_up("silo-2")
    federation.collect(coordinator, cohort, 1)
    coordinator.witness(cohort)
    lines = federation.lines("silo-2")
    federation.restore(backup, "silo-2")
    found = 0
    for silo in federation.silos:
        path = federation.agents[silo]._home.replicas / "fondaco%2Fsilo-2.jsonl"
        if path.is_file():
            with federation.ledger("silo-2") as ledger:
                found += ledger.chain.absorb(path.read_text().split("\n")[:-1])
    assert found
    kept = federation.lines("silo-2")
    assert kept == lines[: len(kept)]
    assert "RELEASE" in federation.types("silo-2")
