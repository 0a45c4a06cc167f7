"""Silos and coordinator as each other's witnesses, all of them honest."""

import shutil

import numpy as np
import pytest
from witnessed_federation import N_SILOS, SERVER

from fondaco.server.app import Job, run_job
from fondaco.server.witness import HEADS, split_notes
from fondaco.shared.chain.keys import COORDINATOR
from fondaco.shared.chain.notes import cosigners, parse_note
from fondaco.shared.chain.store import Record, check_links
from fondaco.shared.errors import LedgerError
from fondaco.shared.workspace import Workspace


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
                assert len(cosigners(record["witnessed"], federation.keys()) - {mine}) == 2
                assert cosigners(record["witnessed"], [SERVER.public]) == {COORDINATOR}
                assert ledger.chain.root_at(head.size) == head.root
                assert head.size < record["seq"]


def test_coordinator_keeps_a_replica_and_a_cosigned_head_of_everybody(federation):
    federation.run(1, 2)
    notes = split_notes((federation.folder / "witness" / HEADS).read_text())
    heads = {parse_note(note)[0].origin: parse_note(note)[0] for note in notes}
    assert len(heads) == N_SILOS
    for silo, key in zip(federation.silos, federation.keys(), strict=True):
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
        if "fondaco/north" in cosigners(note, federation.keys())
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
        assert federation.debits(silo) == [("popularity", 1), ("gram", 1)]


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
