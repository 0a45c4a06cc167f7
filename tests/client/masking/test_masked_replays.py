"""Messages that come late, malformed, or once more, are refused; what is left is told by none."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from masked_silos import ME, STEPS

from fondaco.client import masking as masking_module


def _finishes(asked):
    """Hold that the honest order still goes to its end, under one debit."""
    asked.until("unmask")
    kinds = [r["type"] for r in asked.silos.records("DEBIT", "RELEASE", "UNMASK")]
    assert kinds == ["DEBIT", "RELEASE", "UNMASK"]


@pytest.mark.parametrize("step", STEPS)
def test_every_step_that_comes_late_is_refused_and_ends_the_session(silos, step, monkeypatch):
    asked = silos.round()
    if step != "hello":
        asked.until(STEPS[STEPS.index(step) - 1])
    hour = SimpleNamespace(time=lambda: time.time() + 2 * 3600)
    monkeypatch.setattr(masking_module, "time", hour)
    blobs = {"hello": "task", "share": "roster", "confirm": "survivors", "unmask": "certificate"}
    if step == "release":
        silos.refused("late", lambda: asked.release(asked.deliveries[ME]))
        assert silos.records("DEBIT") == []
        silos.me.status()
    else:
        silos.refused("late", lambda: asked.ask(step, getattr(asked, blobs[step])))
    assert silos.records("UNMASK") == []
    assert silos.session_files() == []


@pytest.mark.parametrize("step", ["hello", "share", "confirm", "unmask"])
@pytest.mark.parametrize(
    "blob",
    [b"", b"{}", b"[" * 100_000, b"\xff", b'{"a":' + b" " * (1 << 24) + b"1}"],
    ids=["nothing", "other fields", "deep", "no text", "oversize"],
)
def test_garbage_at_a_step_is_refused_and_written_down(silos, step, blob):
    asked = silos.round().until("hello")
    silos.malformed(lambda: asked.ask(step, blob))
    _finishes(asked)


@pytest.mark.parametrize("blob", [b"{}", b"garbage", b"x" * (1 << 25)], ids=["other", "no", "big"])
def test_garbage_for_a_delivery_is_refused_and_written_down(silos, blob):
    asked = silos.round().until("share")
    silos.refused("malformed", lambda: asked.release(blob))
    assert silos.records("DEBIT") == []
    _finishes(asked)


# ---- replays ----


def _first_attempt(silos):
    first = silos.round().until("confirm")
    return first, silos.round(attempt=2).until("confirm")


@pytest.mark.parametrize("step", ["share", "confirm", "unmask"])
def test_messages_of_an_earlier_attempt_are_refused(silos, step):
    first, second = _first_attempt(silos)
    old = {"share": first.roster, "confirm": first.survivors, "unmask": first.certificate}[step]
    silos.refused("no-session", lambda: first.ask(step, old))
    second.until("unmask")
    unmasked = [(r["kind"], r["attempt"]) for r in silos.records("UNMASK")]
    assert unmasked == [("popularity", 2)]


def test_delivery_of_an_earlier_attempt_is_refused(silos):
    first = silos.round().until("share")
    second = silos.round(attempt=2).until("share")
    silos.refused("bad-signature", lambda: second.release(first.deliveries[ME]))
    silos.refused("no-session", lambda: first.release(first.deliveries[ME]))
    assert silos.records("DEBIT") == []


def test_survivors_of_an_earlier_round_do_not_unmask_this_one(silos):
    first = silos.round().until("confirm")
    second = silos.round("gram").until("release")
    mixed = replace(first.survivors, task=second.task)
    silos.refused("other-roster", lambda: second.ask("confirm", mixed))
    certificate = second.certified(mixed)
    silos.refused_as_before("other-roster", lambda: second.ask("unmask", certificate))


def test_released_bytes_are_sent_again_even_if_the_session_is_gone(silos):
    asked = silos.round().until("release")
    silos.me._masked.forget()
    assert asked.release(asked.deliveries[ME]) == asked.sent[ME]
    assert len(silos.records("DEBIT")) == len(silos.records("RELEASE")) == 1
