"""A witness that was silent for a whole deadline is not waited for again in the same round."""

import pytest

from fondaco.server.cohort import Cohort
from fondaco.server.rounds import Coordinator
from fondaco.server.witness import WitnessBook
from fondaco.shared.chain import witness as said_by
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.chain.store import Chain
from fondaco.shared.codec import Shapes

SILOS = ("north", "silo-2", "silo-3")


@pytest.fixture
def book(make_plan, make_roster, make_owner, tmp_path):
    plan = make_plan(n_silos=3, **make_roster(3))
    book = WitnessBook(tmp_path / "witness", plan, Identity.seeded(0, COORDINATOR))
    for silo in SILOS:
        owner = make_owner(silo)
        genesis = {"type": "GENESIS", "schema": 4, "silo_id": silo, "key": owner.public.text()}
        chain = Chain.create(tmp_path / f"{silo}.db", owner, [genesis])
        said = said_by.Testimony(note=chain.note(), lines=tuple(chain.lines(0)))
        chain.close()
        assert book.hear(silo, said.to_bytes()) == ""
    return book, plan


def test_silent_silo_is_no_witness(book):
    book, _ = book
    assert "silo-2" not in book.charges(SILOS, {"silo-2"})
    assert "silo-2" in book.charges(SILOS)


def test_silent_witness_is_asked_in_one_pass_only(book, monkeypatch):
    book, plan = book
    rounds = Coordinator(
        None, plan, Shapes.of_plan(plan), deadline_s=1.0, progress=lambda *news: None, book=book
    )
    passes = []

    def ask(message_type, blob, nodes, stage, *, calls):
        del message_type, blob, stage, calls
        passes.append(set(nodes.values()))
        for each in book._known.values():
            each.asked.clear()  # as where every head has grown meanwhile
        return [(node, None) for node, silo in nodes.items() if silo == "silo-2"]

    monkeypatch.setattr(rounds, "ask", ask)
    rounds.witness(Cohort(silos=dict(enumerate(SILOS)), dropped=()))
    assert "silo-2" in passes[0]
    assert len(passes) > 1
    assert all("silo-2" not in asked for asked in passes[1:])


def test_witness_whose_signatures_were_lost_is_asked_again(book):
    book, _ = book
    first = book.charges(SILOS)
    assert book.charges(SILOS) == {}
    book.ask_again("silo-2")
    assert book.charges(SILOS) == {"silo-2": first["silo-2"]}
