"""Silos and coordinator as each other's witnesses: who rolls back, forks or forges gets nothing."""

import base64
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np
import pytest

from fondaco.client.agent import SiloAgent
from fondaco.client.app import make_app
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.home import SiloHome
from fondaco.server.app import Job, run_job
from fondaco.server.rounds import Coordinator
from fondaco.server.witness import HEADS, WitnessBook, split_notes
from fondaco.shared import codec
from fondaco.shared.chain import witness
from fondaco.shared.chain.keys import COORDINATOR, Identity, PublicKey
from fondaco.shared.chain.notes import Checkpoint, cosign, cosigners, parse_note
from fondaco.shared.chain.store import DOMAIN, Record, check_links, link
from fondaco.shared.chain.witness import Call, Offer
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import LedgerError, RefusalError, RoundError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import Cohort
from fondaco.shared.records import RoundRequest, SiloStatus
from fondaco.shared.workspace import Workspace
from fondaco.simulation.grid import InProcessGrid

N_SILOS = 4
HEAD = np.arange(4)
NONE = np.empty(0, dtype=np.int64)
SERVER = Identity.seeded(0, COORDINATOR)


def _dataset(silo_id):
    rows = Rows(user_nums=np.array([0, 0, 1]), item_nums=np.array([0, 2, 3]), times=np.zeros(3))
    empty = rows.take(np.zeros(3, dtype=bool))
    fold = Fold(user_nums=NONE, history=empty, targets=empty)
    users = np.array(["ann", "bob"])
    return SiloDataset(
        silo_id=silo_id, user_ids=users, n_items=5, train=rows, valid=fold, test=fold
    )


class Federation:
    """Four real agents behind Flower's messages, and a coordinator that can be started again."""

    def __init__(self, plan, catalogue, folder):
        self.plan, self.catalogue, self.folder = plan, catalogue, folder
        self.silos = list(plan.roster)
        self.agents = {silo: self.agent(silo) for silo in self.silos}
        self.dead = set()
        self.grid = InProcessGrid(make_app(self._connect), len(self.silos))

    def agent(self, silo_id):
        home = SiloHome(self.folder / "homes" / silo_id, silo_id)
        return SiloAgent(_dataset(silo_id), self.plan, self.catalogue, home, 0)

    def _connect(self, context):
        silo_id = self.silos[int(context.node_config["partition-id"])]
        if silo_id in self.dead:
            raise RefusalError("gone")
        return self.agents[silo_id]

    def book(self):
        return WitnessBook(self.folder / "witness", self.plan, SERVER)

    def coordinator(self):
        """Return a coordinator as if its process had just been started."""
        shapes = Shapes.of_plan(self.plan)
        return Coordinator(
            self.grid,
            self.plan,
            shapes,
            deadline_s=5,
            progress=lambda *news: None,
            book=self.book(),
        )

    def run(self, *rounds):
        """Call the roll and run some rounds; return their results."""
        coordinator = self.coordinator()
        cohort = coordinator.roll_call()
        return [self.collect(coordinator, cohort, num) for num in rounds]

    def collect(self, coordinator, cohort, round_num):
        head = HEAD if round_num == 2 else NONE
        return coordinator.collect(cohort, self.plan.releases[round_num - 1], head=head)

    def ledger(self, silo_id="north"):
        return Ledger(self.agents[silo_id]._home.ledger, self.agents[silo_id]._identity, self.plan)

    def types(self, silo_id="north"):
        with self.ledger(silo_id) as ledger:
            return [record["type"] for record in ledger.records()]

    def records(self, kind, silo_id="north"):
        with self.ledger(silo_id) as ledger:
            return ledger.chain.of_type(kind)

    def lines(self, silo_id="north"):
        with self.ledger(silo_id) as ledger:
            return ledger.chain.lines()

    def replica(self, silo_id="north"):
        return (self.folder / "witness" / f"{silo_id}.jsonl").read_text().split("\n")[:-1]

    def back_up(self, silo_id="north"):
        path = self.agents[silo_id]._home.ledger
        copy = path.with_suffix(".backup")
        with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(copy)) as target:
            db.backup(target)
        return copy

    def restore(self, copy, silo_id="north"):
        path = self.agents[silo_id]._home.ledger
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        shutil.copy(copy, path)
        path.chmod(0o600)


@pytest.fixture(scope="module")
def witnessed_plan(make_plan, make_roster):
    """Four silos, of which three must remain; two others co-sign every head."""
    cohort = Cohort(n_silos=N_SILOS, n_min=3, t_collude=1)
    return make_plan(n_silos=N_SILOS, **make_roster(N_SILOS), cohort=cohort)


@pytest.fixture
def federation(witnessed_plan, catalogue, tmp_path):
    return Federation(witnessed_plan, catalogue, tmp_path)


def _debits(federation, silo_id="north"):
    return [(r["kind"], r["attempt"]) for r in federation.records("DEBIT", silo_id)]


def _keys(federation):
    return [PublicKey.from_text(text) for text in federation.plan.roster.values()]


# ---- all honest ----


def test_whole_plan_runs_and_every_debit_shows_its_witnesses(federation, tmp_path):
    job = Job(
        plan=federation.plan,
        catalogue=federation.catalogue,
        workspace=Workspace(tmp_path),
        deadline_s=5,
        progress=lambda *news: None,
        identity=SERVER,
    )
    outcome = run_job(federation.grid, job)
    assert [len(result.present) for result in outcome.rounds] == [N_SILOS, N_SILOS]
    assert not outcome.dropped
    for silo in federation.silos:
        types = federation.types(silo)
        assert types.count("DEBIT") == types.count("RELEASE") == 2
        assert "REFUSAL" not in types
        with federation.ledger(silo) as ledger:
            for record in ledger.chain.of_type("DEBIT"):
                head, _ = parse_note(record["witnessed"])
                mine = ledger.chain._owner.public.name
                assert len(cosigners(record["witnessed"], _keys(federation)) - {mine}) == 2
                assert cosigners(record["witnessed"], [SERVER.public]) == {COORDINATOR}
                assert ledger.chain.root_at(head.size) == head.root
                assert head.size < record["seq"]


def test_coordinator_keeps_a_replica_and_a_cosigned_head_of_everybody(federation):
    federation.run(1, 2)
    notes = split_notes((federation.folder / "witness" / HEADS).read_text())
    heads = {parse_note(note)[0].origin: parse_note(note)[0] for note in notes}
    assert len(heads) == N_SILOS
    for silo, key in zip(federation.silos, _keys(federation), strict=True):
        replica, lines = federation.replica(silo), federation.lines(silo)
        assert replica == lines[: len(replica)]
        assert check_links(map(Record.from_line, replica))[-1] == heads[key.name].root


def test_signature_is_in_the_witness_own_ledger_before_it_leaves(federation):
    coordinator = federation.coordinator()
    coordinator.witness(coordinator.roll_call())
    offers = {head["origin"] for r in federation.records("COSIGN") for head in r["heads"]}
    notes = (federation.folder / "witness" / HEADS).read_text()
    signed = {
        parse_note(note)[0].origin
        for note in split_notes(notes)
        if "fondaco/north" in cosigners(note, _keys(federation))
    }
    assert signed
    assert signed <= offers
    assert "fondaco/north" not in offers


def test_killed_coordinator_resumes_with_its_witness_folder(federation):
    first = federation.run(1)[0]
    again, second = federation.run(1, 2)
    assert np.array_equal(first.total, again.total)
    assert len(second.present) == N_SILOS
    for silo in federation.silos:
        assert _debits(federation, silo) == [("popularity", 1), ("gram", 1)]


def test_coordinator_that_lost_its_witness_folder_starts_a_new_one(federation):
    federation.run(1)
    shutil.rmtree(federation.folder / "witness")
    assert len(federation.run(2)[0].present) == N_SILOS
    assert federation.replica() == federation.lines()[: len(federation.replica())]


@pytest.mark.parametrize("keep", [0, 0.3, 0.5, 0.999, 1.0])
def test_torn_replica_is_made_whole_again(federation, keep):
    federation.run(1)
    path = federation.folder / "witness" / "north.jsonl"
    blob = path.read_bytes()
    path.write_bytes(blob[: int(keep * len(blob))] + (b'{"bo' if keep == 1 else b""))
    assert len(federation.run(2)[0].present) == N_SILOS
    assert federation.replica() == federation.lines()[: len(federation.replica())]
    assert len(federation.replica()) > len(blob.splitlines())


def test_damaged_heads_are_refused_not_forgotten(federation):
    federation.run(1)
    path = federation.folder / "witness" / HEADS
    path.write_text(path.read_text().replace("fondaco/north\n", "fondaco/north\nx\n", 1))
    with pytest.raises(LedgerError):
        federation.book()


# ---- roll-back, fork, new key ----


@pytest.mark.parametrize("killed", ["later", "at once"])
def test_restored_ledger_gets_its_records_back_and_pays_nothing_twice(federation, killed):
    coordinator = federation.coordinator()
    cohort = coordinator.roll_call()
    coordinator.witness(cohort)
    backup = federation.back_up()
    before = federation.collect(coordinator, cohort, 1)
    lines = federation.lines()
    if killed == "later":
        coordinator.witness(cohort)
    federation.restore(backup)
    assert len(federation.lines()) < len(lines)
    again, second = federation.run(1, 2)
    assert np.array_equal(before.total, again.total)
    assert len(again.present) == len(second.present) == N_SILOS
    assert federation.lines()[: len(lines)] == lines
    assert _debits(federation) == [("popularity", 1), ("gram", 1)]


@pytest.mark.parametrize("when", ["before witnessing", "before the request"])
def test_ledger_restored_in_the_middle_of_a_run_is_found_and_comes_back(
    federation, when, monkeypatch
):
    coordinator = federation.coordinator()
    cohort = coordinator.roll_call()
    coordinator.witness(cohort)
    backup = federation.back_up()
    federation.collect(coordinator, cohort, 1)
    lines = federation.lines()
    if when == "before the request":
        run_round = SiloAgent.run_round

        def restored_first(agent, blob, witnessed=""):
            if agent.silo_id == "north" and backup.is_file():
                federation.restore(backup)
                backup.unlink()
            return run_round(agent, blob, witnessed)

        monkeypatch.setattr(SiloAgent, "run_round", restored_first)
    else:
        federation.restore(backup)
    result = federation.collect(coordinator, cohort, 2)
    assert len(result.present) >= N_SILOS - 1
    assert len(federation.run(2)[0].present) == N_SILOS
    assert federation.lines()[: len(lines)] == lines
    assert _debits(federation) == [("popularity", 1), ("gram", 1)]


def test_agent_behind_its_own_head_works_no_more_until_it_has_its_records(federation):
    coordinator = federation.coordinator()
    cohort = coordinator.roll_call()
    coordinator.witness(cohort)
    backup = federation.back_up()
    federation.collect(coordinator, cohort, 1)
    coordinator.witness(cohort)
    note = Call.from_bytes(coordinator._book.call("north")).note
    federation.restore(backup)
    with pytest.raises(RefusalError, match="once had") as caught:
        federation.agents["north"].run_round(_request(federation, 2), note)
    assert caught.value.code == "behind"
    assert "RELEASE" not in federation.types()


def _rewrite(federation, n_more):
    """Go on from the ledger's present state with other records than before."""
    with federation.ledger() as ledger:
        for _ in range(n_more):
            ledger.note_erasure(1)


@pytest.mark.parametrize("n_more", [1, 2, 3, 4, 5, 9])
def test_forked_ledger_is_dropped_and_named(federation, n_more):
    coordinator = federation.coordinator()
    cohort = coordinator.roll_call()
    coordinator.witness(cohort)
    backup = federation.back_up()
    federation.collect(coordinator, cohort, 1)
    coordinator.witness(cohort)
    replica = federation.replica()
    federation.restore(backup)
    _rewrite(federation, n_more)
    coordinator = federation.coordinator()
    cohort = coordinator.roll_call()
    result = federation.collect(coordinator, cohort, 2)
    named = {drop.silo_id: drop.reason for drop in (*cohort.dropped, *result.dropped)}
    assert set(named) == {"north"}
    assert named["north"]
    assert "north" not in result.present
    assert federation.replica()[: len(replica)] == replica
    assert ("gram", 1) not in _debits(federation)


@pytest.mark.parametrize("when", ["first contact", "later"])
def test_rekeyed_ledger_is_dropped_and_named(federation, when, monkeypatch):
    if when == "later":
        federation.run(1)
    thief = Identity.generate("fondaco/north")
    testify = SiloAgent.testify

    def rekeyed(agent, call):
        said = testify(agent, call)
        if agent.silo_id != "north":
            return said
        lines, prev = [], bytes(32)
        for record in map(Record.from_line, said.lines):
            signature = thief.sign(DOMAIN + link(prev, record.body))
            prev = link(prev, record.body)
            lines.append(replace(record, digest=prev, signature=signature).line())
        head = replace(parse_note(said.note)[0], root=prev)
        return replace(said, note=head.signed_by(thief), lines=tuple(lines))

    monkeypatch.setattr(SiloAgent, "testify", rekeyed)
    cohort = federation.coordinator().roll_call()
    assert [(d.silo_id, "pinned key" in d.reason) for d in cohort.dropped] == [("north", True)]


def test_silos_that_show_a_head_without_its_records_are_dropped(federation, monkeypatch):
    testify = SiloAgent.testify
    monkeypatch.setattr(
        SiloAgent, "testify", lambda agent, call: replace(testify(agent, call), lines=())
    )
    with pytest.raises(RoundError, match="does not follow"):
        federation.run(1)


# ---- what a silo signs for others ----


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


def _ledger_of_peer(self, identity):
    path = self.agents["silo-2"]._home.ledger
    return Ledger.open_or_create(path, "silo-2", identity, self.plan)


Federation.ledger_of_peer = _ledger_of_peer


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


# ---- a coordinator that cheats ----


def _request(federation, round_num=1, **changes):
    plan, kind = federation.plan, federation.plan.releases[round_num - 1].kind
    request = RoundRequest(
        plan_digest=plan.digest,
        code_digest=plan.code_digest,
        kind=kind,
        round_num=round_num,
        attempt=1,
        model_digest="",
        head=HEAD if kind == "gram" else NONE,
        parameters=np.empty(0, dtype=np.float32),
    )
    return codec.encode(replace(request, **changes))


@pytest.fixture
def signed(federation, make_owner):
    """North after its first round: its present head, signed by nobody else yet; an older note."""
    coordinator = federation.coordinator()
    cohort = coordinator.roll_call()
    coordinator.witness(cohort)
    old = Call.from_bytes(coordinator._book.call("north")).note
    federation.collect(coordinator, cohort, 1)
    with federation.ledger() as ledger:
        return ledger.chain.note(), old


def _cosigned(note, *signers):
    return note + "".join(cosign(note, signer, 1_700_000_000) for signer in signers)


def test_enough_witnesses_open_the_next_round(federation, signed, make_owner):
    note = _cosigned(signed[0], SERVER, make_owner("silo-2"), make_owner("silo-4"))
    assert federation.agents["north"].run_round(_request(federation, 2), note)
    assert _debits(federation)[-1] == ("gram", 1)


def _forgeries(note, old, make_owner):
    """Notes that a cheating coordinator might show: name -> note."""
    two, three = make_owner("silo-2"), make_owner("silo-3")
    north, stranger = make_owner("north"), Identity.generate("fondaco/stranger")
    fake = Identity.generate(three.public.name)
    head = parse_note(note)[0]
    other_root = replace(head, root=bytes(32)).signed_by(north)
    foreign = replace(head, origin="fondaco/silo-2").signed_by(two)
    line = cosign(note, three, 5)
    blob = base64.b64decode(line.split(" ")[2])
    later = base64.b64encode(blob[:11] + b"\x06" + blob[12:]).decode()
    return {
        "none": "",
        "bare": note,
        "withheld": _cosigned(note, SERVER, two),
        "no coordinator": _cosigned(note, two, three),
        "own cosignature": _cosigned(note, SERVER, two, north),
        "twice the same": _cosigned(note, SERVER, two, two),
        "stranger": _cosigned(note, SERVER, two, stranger),
        "forged key": _cosigned(note, SERVER, two, fake),
        "coordinator as silo": _cosigned(note, SERVER, SERVER, two),
        "old": old,
        "old head, all signed": _cosigned(old.split("\u2014")[0], SERVER, two, three),
        "other root": _cosigned(other_root, SERVER, two, three),
        "other silo's": _cosigned(foreign, SERVER, two, three),
        "unsigned": _cosigned(head.text() + "\n", SERVER, two, three),
        "line of another head": _cosigned(note, SERVER, two) + cosign(old, three, 5),
        "changed time": _cosigned(note, SERVER, two) + f"\u2014 {three.public.name} {later}\n",
        "truncated line": _cosigned(note, SERVER, two) + line[:-20] + "\n",
        "text": "all is well",
        "two notes": _cosigned(note, SERVER, two, three) + "\n" + note,
    }


NAMES = [
    "none",
    "bare",
    "withheld",
    "no coordinator",
    "own cosignature",
    "twice the same",
    "stranger",
    "forged key",
    "coordinator as silo",
    "old",
    "old head, all signed",
    "other root",
    "other silo's",
    "unsigned",
    "line of another head",
    "changed time",
    "truncated line",
    "text",
    "two notes",
]


@pytest.mark.parametrize("name", NAMES)
def test_coordinator_without_true_witnesses_gets_only_refusals(
    federation, signed, make_owner, name
):
    note = _forgeries(*signed, make_owner)[name]
    agent = federation.agents["north"]
    with pytest.raises(RefusalError) as caught:
        agent.run_round(_request(federation, 2), note)
    assert caught.value.code == "not-witnessed"
    assert federation.records("REFUSAL")[-1]["code"] == "not-witnessed"
    assert _debits(federation) == [("popularity", 1)]
    with federation.ledger() as ledger:
        fresh = _cosigned(ledger.chain.note(), SERVER, make_owner("silo-2"), make_owner("silo-3"))
    assert agent.run_round(_request(federation, 2), fresh)


def test_forgeries_are_all_tried(federation, signed, make_owner):
    assert list(_forgeries(*signed, make_owner)) == NAMES


def test_first_round_needs_witnesses_too(federation):
    with pytest.raises(RefusalError) as caught:
        federation.agents["north"].run_round(_request(federation), "")
    assert caught.value.code == "not-witnessed"


def test_note_of_half_a_character_is_a_refusal(federation, signed):
    with pytest.raises(RefusalError):
        federation.agents["north"].run_round(
            _request(federation, 2), signed[0].replace("north", "nor\ud800", 1)
        )


# ---- silos that cheat as witnesses ----


def _spoil(monkeypatch, silo_id, change):
    cosigned = SiloAgent.cosign

    def spoilt(agent, call):
        said = cosigned(agent, call)
        return change(said) if agent.silo_id == silo_id else said

    monkeypatch.setattr(SiloAgent, "cosign", spoilt)


def _each(change):
    return lambda said: replace(
        said, cosigned={origin: change(line) for origin, line in said.cosigned.items()}
    )


SPOILT = {
    "garbage": _each(lambda line: "garbage"),
    "no end": _each(lambda line: line.rstrip("\n")),
    "more lines": _each(lambda line: line + "\u2014 x AAAA\n"),
    "empty line": _each(lambda line: line + "\n"),
    "long": _each(lambda line: line + "\u2014 x AAAA\n" * 8000),
    "twice": _each(lambda line: line * 2),
    "nothing": lambda said: replace(said, cosigned={}),
    "huge size": lambda said: replace(
        said, cosigned={}, refused=dict.fromkeys(said.cosigned, 2**50)
    ),
    "minus": lambda said: replace(said, cosigned={}, refused=dict.fromkeys(said.cosigned, -3)),
    "strangers": lambda said: replace(said, cosigned={"fondaco/x": "y"}, refused={"z": 3}),
    "forged": _each(lambda line: line.replace("A", "B")),
}


@pytest.mark.parametrize("name", SPOILT)
def test_one_bad_witness_costs_nobody_else_the_round(federation, monkeypatch, name):
    _spoil(monkeypatch, "silo-2", SPOILT[name])
    for result in federation.run(1, 2):
        assert {"north", "silo-3", "silo-4"} <= set(result.present)


def test_silo_that_dies_after_the_roll_call_costs_nobody_else_the_round(federation):
    coordinator = federation.coordinator()
    cohort = coordinator.roll_call()
    federation.dead.add("silo-2")
    result = federation.collect(coordinator, cohort, 1)
    assert set(result.present) == {"north", "silo-3", "silo-4"}
    assert [drop.silo_id for drop in result.dropped] == ["silo-2"]


def test_refused_size_of_any_number_does_not_end_the_run(federation):
    federation.run(1)
    book = federation.book()
    raw = '{"note":"","lines":[],"cosigned":{},"refused":{"fondaco/north":%d}}'
    for size in (2**60, -(2**60), 0, 3):
        book.collect("silo-2", (raw % size).encode())
        assert Call.from_bytes(book.call("silo-2", witness_for=["north"])).offers


# ---- silos that hide their ledgers ----


class _Silence:
    def to_bytes(self):
        return b""


def test_silo_that_says_nothing_of_its_ledger_takes_no_part(federation, monkeypatch):
    testify = SiloAgent.testify
    monkeypatch.setattr(
        SiloAgent,
        "testify",
        lambda agent, call: _Silence() if agent.silo_id == "north" else testify(agent, call),
    )
    assert "north" not in federation.coordinator().roll_call().silos.values()


def test_silo_whose_key_nobody_pinned_takes_no_part(federation, monkeypatch):
    status = SiloAgent.status
    shapes = Shapes.of_plan(federation.plan)

    def disguised(agent):
        said = codec.decode(status(agent), SiloStatus, shapes)
        name = "stranger" if agent.silo_id == "north" else agent.silo_id
        return codec.encode(replace(said, silo_id=name))

    monkeypatch.setattr(SiloAgent, "status", disguised)
    assert "stranger" not in federation.coordinator().roll_call().silos.values()


def test_silo_that_answers_in_anothers_name_takes_no_part(federation, monkeypatch):
    """It knows the other's public id, but cannot sign the other's ledger."""
    status, testify = SiloAgent.status, SiloAgent.testify
    shapes = Shapes.of_plan(federation.plan)

    def disguised(agent):
        said = codec.decode(status(agent), SiloStatus, shapes)
        name = "silo-4" if agent.silo_id == "north" else agent.silo_id
        return codec.encode(replace(said, silo_id=name))

    monkeypatch.setattr(SiloAgent, "status", disguised)
    monkeypatch.setattr(
        SiloAgent,
        "testify",
        lambda agent, call: _Silence() if agent.silo_id == "north" else testify(agent, call),
    )
    cohort = federation.coordinator().roll_call()
    assert cohort.silos[1003] == "silo-4"
    assert 1000 not in cohort.silos


def test_release_that_the_silos_ledger_does_not_show_is_not_taken(federation, monkeypatch):
    coordinator = federation.coordinator()
    cohort = coordinator.roll_call()
    testify, old = SiloAgent.testify, {}
    old["north"] = testify(federation.agents["north"], Call())
    monkeypatch.setattr(
        SiloAgent,
        "testify",
        lambda agent, call: old.get(agent.silo_id) or testify(agent, call),
    )
    result = federation.collect(coordinator, cohort, 1)
    assert set(result.present) == {"silo-2", "silo-3", "silo-4"}
    assert [drop.silo_id for drop in result.dropped] == ["north"]
