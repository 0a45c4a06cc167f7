"""A server that orders whatever it likes from a real agent of a deployed plan: all is refused."""

import json
import struct
from contextlib import suppress

import numpy as np
import pytest
from builders import CANARY, HEAD
from malicious_orders import BYTES, CALLS, COHORTS, FIELDS, HEADS, MODELS_SENT, NOTES, ORDERS, OTHER

from fondaco.client import agent as agent_module
from fondaco.shared.errors import (
    BudgetError,
    RefusalError,
)
from fondaco.shared.privacy import ledger as ledger_module


def test_honest_server_is_answered(silo):
    silo.works()
    silo.ask(silo.request("gram"))
    assert [r["type"] for r in silo.records()][3:] == ["DEBIT", "RELEASE"] * 2
    assert [r["rng"] for r in silo.records("RELEASE")] == ["getrandom chacha20"] * 2


@pytest.mark.parametrize("name", ORDERS)
def test_order_outside_of_the_plan_is_refused(silo, name):
    changes, code = ORDERS[name]
    silo.refused(lambda: silo.ask(silo.request(**changes)), code)


@pytest.mark.parametrize("name", HEADS)
def test_head_that_is_none_is_refused(silo, name):
    head = np.array(HEADS[name], dtype=np.int64)
    silo.refused(lambda: silo.ask(silo.request("gram", head=head)), "bad-head")


def test_same_round_with_another_request_is_refused(silo):
    silo.ask(silo.request("gram"))
    other = silo.request("gram", head=HEAD[::-1].copy())
    silo.refused(lambda: silo.ask(other), "other-request")


def test_same_round_with_another_model_is_refused(silo):
    silo.ask(silo.request())
    silo.refused(lambda: silo.ask(silo.request(model_digest=OTHER)), "other-request")


def test_replay_gets_the_same_bytes_and_nothing_new(silo):
    first = silo.ask(silo.request())
    before = silo.records()
    for note in ("", silo.witnessed(), "garbage"):
        assert silo.ask(silo.request(), note) == first
    assert silo.records() == before


def test_replay_whose_bytes_are_lost_is_refused(silo, deployed, make_silo):
    silo.ask(silo.request())
    path = silo.home.outbox("popularity", 1, 1)
    blob = path.read_bytes()
    path.unlink()
    with pytest.raises(BudgetError):
        silo.ask(silo.request())
    assert silo.records("REFUSAL")[-1]["code"] == "bytes-gone"
    path.write_bytes(blob)
    silo.works()


def test_attempts_end_with_the_budget(silo):
    """Every other attempt is paid for; when the budget is gone, all the rest is refused."""
    silo.ask(silo.request())
    for attempt in range(2, 12):
        silo.ask(silo.request(attempt=attempt))
        if len(silo.records("REFUSAL")):
            break
        left = silo.records("DEBIT")[-1]["left"]
        cost = silo.records("DEBIT")[-1]["cost"]
        if left < cost:
            break
    silo.refused(lambda: silo.ask(silo.request(attempt=99)), "budget")
    silo.refused(lambda: silo.ask(silo.request("gram")), "budget")
    spent = sum(r["cost"] for r in silo.records("DEBIT"))
    assert spent <= silo.plan.budget_units
    assert "left" in silo.records("REFUSAL")[-1]["reason"]


def test_attempt_that_failed_once_stays_closed(silo, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(agent_module, "clipped_sum", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            silo.ask(silo.request("gram"))
    silo.refused(lambda: silo.ask(silo.request("gram")), "failed-before")


# ---- heads ----


@pytest.mark.parametrize("name", NOTES)
def test_order_without_true_witnesses_is_refused(silo, name):
    note = NOTES[name](silo)
    silo.refused(lambda: silo.ask(silo.request("gram"), note), "not-witnessed")


def test_stale_note_is_refused(silo):
    old = silo.witnessed()
    silo.ask(silo.request())
    silo.refused(lambda: silo.ask(silo.request("gram"), old), "not-witnessed")


# ---- bytes that are no order ----


def _raw(blob, **header):
    """Return the request with its header changed and its length put right."""
    magic, length = struct.unpack_from("<4sI", blob)
    text = json.loads(blob[8 : 8 + length])
    for name, value in header.items():
        text["fields"][name] = value
    raw = json.dumps(text).encode()
    return struct.pack("<4sI", magic, len(raw)) + raw + blob[8 + length :]


@pytest.mark.parametrize("name", FIELDS)
def test_order_with_an_impossible_field_changes_nothing(silo, name):
    blob = _raw(silo.request(), **FIELDS[name])
    silo.unreadable(lambda: silo.ask(blob))


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_order_change_nothing(silo, name):
    blob = BYTES[name](silo.request())
    silo.unreadable(lambda: silo.ask(blob))


# ---- all of it ----


def test_refusals_of_any_number_do_not_fill_the_disk(silo, monkeypatch):
    monkeypatch.setattr(ledger_module, "MAX_REFUSALS", 5)
    for round_num in range(10, 30):
        with pytest.raises(RefusalError):
            silo.ask(silo.request(round_num=round_num))
    assert len(silo.records("REFUSAL")) == 5
    silo.works()


def test_nothing_that_was_refused_holds_a_customer(silo):
    for changes, _ in ORDERS.values():
        with suppress(RefusalError):
            silo.ask(silo.request(**changes))
    with silo.ledger() as ledger:
        text = "".join(ledger.chain.lines())
    assert CANARY not in text


def test_script_has_at_least_twenty_orders():
    tables = ORDERS, HEADS, NOTES, FIELDS, BYTES, MODELS_SENT, COHORTS, CALLS
    assert sum(map(len, tables)) >= 60
    assert len(ORDERS) + len(HEADS) + len(NOTES) >= 19
