"""Ledgers that are rolled back, forked or given a new key: found, mended or dropped."""

from dataclasses import replace

import numpy as np
import pytest
from witnessed_federation import N_SILOS

from fondaco.client.agent import SiloAgent
from fondaco.shared.chain.keys import Identity
from fondaco.shared.chain.notes import parse_note
from fondaco.shared.chain.store import DOMAIN, Record, link
from fondaco.shared.chain.witness import Call
from fondaco.shared.errors import RefusalError, RoundError


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
    assert federation.debits() == [("popularity", 1), ("gram", 1)]


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

        def restored_first(agent, *asked):
            if agent.silo_id == "north" and backup.is_file():
                federation.restore(backup)
                backup.unlink()
            return run_round(agent, *asked)

        monkeypatch.setattr(SiloAgent, "run_round", restored_first)
    else:
        federation.restore(backup)
    result = federation.collect(coordinator, cohort, 2)
    assert len(result.present) >= N_SILOS - 1
    assert len(federation.run(2)[0].present) == N_SILOS
    assert federation.lines()[: len(lines)] == lines
    assert federation.debits() == [("popularity", 1), ("gram", 1)]


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
        federation.agents["north"].run_round(federation.request(2), note)
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
    assert ("gram", 1) not in federation.debits()


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
