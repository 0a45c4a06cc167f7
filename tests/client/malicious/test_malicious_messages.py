"""What a malicious server sends beside orders: messages, claims about ledgers and models."""

import json
from contextlib import suppress

import numpy as np
import pytest
from builders import CANARY
from malicious_orders import CALLS, MODELS_SENT, OTHER

from fondaco.client.app import make_app
from fondaco.shared import codec
from fondaco.shared.chain.witness import Call
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import (
    CodecError,
    FondacoError,
    RefusalError,
)
from fondaco.shared.parts import from_message, to_message
from fondaco.shared.records import PrivateUpdate
from fondaco.simulation.grid import InProcessGrid

# ---- through Flower's messages ----


def _grid(silo):
    return InProcessGrid(make_app(lambda context: silo.agent), 1)


def _send(silo, kind, blob=b"", ledger=b""):
    grid = _grid(silo)
    message = grid.create_message(to_message(blob, ledger), kind, 1000, "g")
    (reply,) = grid.send_and_receive([message])
    return reply


def test_release_ordered_by_another_message_is_not_given(silo):
    before = silo.records()
    for kind in ("query.status", "query.witness", "train.publish"):
        call = Call(note=silo.witnessed()).to_bytes()
        reply = _send(silo, kind, silo.request(), call)
        if not reply.has_error():
            blob = from_message(reply.content).record
            with pytest.raises(CodecError):
                codec.decode(blob, PrivateUpdate, Shapes.of_plan(silo.plan))
    for kind in ("query.release", "train.status", "train.x", "evaluate.release"):
        assert _send(silo, kind, silo.request()).has_error()
    assert silo.records() == before
    silo.works()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["query.status", "query.witness", "train.release"])
def test_garbage_about_ledgers_changes_nothing(silo, kind, name):
    before = silo.records()
    reply = _send(silo, kind, silo.request(), CALLS[name])
    assert reply.has_error()
    assert "CodecError" in reply.error.reason
    assert silo.records() == before
    silo.works()


@pytest.mark.parametrize("lines", [["x"], ["{}"], ["null"], ["[]"], [""]], ids=str)
def test_records_that_are_not_this_silos_are_never_taken(silo, lines):
    before = silo.records()
    reply = _send(silo, "query.witness", ledger=Call(lines=tuple(lines)).to_bytes())
    assert reply.has_error()
    assert str(silo.home.folder) not in reply.error.reason
    assert silo.records() == before
    silo.works()


@pytest.mark.parametrize("since", [-5, 0, 2, 10**9])
def test_asking_for_any_records_gives_public_records_only(silo, since):
    reply = _send(silo, "query.status", ledger=Call(since=since).to_bytes())
    said = from_message(reply.content).ledger
    assert CANARY.encode() not in said
    assert len(json.loads(said)["lines"]) == max(0, 3 - max(since, 0))


# ---- models ----


@pytest.mark.parametrize("name", MODELS_SENT)
def test_model_that_is_not_the_plans_is_refused_and_not_kept(silo, name, make_model):
    changes, error = MODELS_SENT[name]
    with pytest.raises(error):
        silo.agent.receive(make_model(silo.plan, after_round=1, **changes))
    assert silo.agent.model is None
    assert not silo.home.models.exists()
    silo.works()


def test_refused_model_is_written_down(silo, make_model):
    with pytest.raises(RefusalError):
        silo.agent.receive(make_model(silo.plan, after_round=1, plan_digest=OTHER))
    assert [r["code"] for r in silo.records("REFUSAL")] == ["other-plan"]


def test_models_of_any_number_do_not_fill_the_disk(silo, make_model):
    for num in range(30):
        with suppress(FondacoError):
            silo.agent.receive(
                make_model(silo.plan, after_round=1, noise_edge=np.array(num, dtype=np.float32))
            )
    assert len(list(silo.home.models.iterdir())) <= len(silo.plan.releases) + 1
