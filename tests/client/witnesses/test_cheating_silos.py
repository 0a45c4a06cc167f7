"""Silos that cheat as witnesses or hide their ledgers harm nobody else."""

from dataclasses import replace

import pytest

from fondaco.client.agent import SiloAgent
from fondaco.shared import codec
from fondaco.shared.chain.witness import Call
from fondaco.shared.codec import Shapes
from fondaco.shared.records import SiloStatus

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
