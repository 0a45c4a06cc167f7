"""A server that orders whatever it likes from a real agent of a deployed plan: all is refused."""

import json
import struct
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from fondaco.client import agent as agent_module
from fondaco.client.agent import SiloAgent
from fondaco.client.app import make_app
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.home import SiloHome
from fondaco.client.limits import new_policy
from fondaco.shared import codec
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.chain.notes import cosign, parse_note
from fondaco.shared.chain.store import Record, check_links
from fondaco.shared.chain.witness import Call
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import (
    BudgetError,
    CodecError,
    ConfigError,
    FondacoError,
    RefusalError,
)
from fondaco.shared.privacy import ledger as ledger_module
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import GlobalModel, PrivateUpdate, RoundRequest
from fondaco.simulation.grid import InProcessGrid

HEAD = np.array([4, 2, 0, 1])
NONE = np.empty(0, dtype=np.int64)
SERVER = Identity.seeded(0, COORDINATOR)
CANARY = "canary-customer-4711"
OTHER = "sha256:" + "0" * 64


def _dataset():
    rows = Rows(user_nums=np.array([0, 0, 1]), item_nums=np.array([0, 2, 3]), times=np.zeros(3))
    empty = rows.take(np.zeros(3, dtype=bool))
    fold = Fold(user_nums=NONE, history=empty, targets=empty)
    users = np.array([CANARY, f"{CANARY}-too"])
    return SiloDataset(
        silo_id="north", user_ids=users, n_items=5, train=rows, valid=fold, test=fold
    )


class Silo:
    """A silo in deploy mode whose owner has approved one plan, and what a server may do to it."""

    def __init__(self, plan, catalogue, folder, make_owner, *, approve=True):
        self.plan, self.make_owner = plan, make_owner
        self.identity = make_owner("north")
        self.home = SiloHome(folder, "north")
        if approve:
            with self.ledger() as ledger:
                ledger.adopt(new_policy(None, 50.0, 50.0, 1e-6))
                ledger.approve(plan)
        self.agent = SiloAgent(_dataset(), plan, catalogue, self.home, identity=self.identity)

    def ledger(self):
        return Ledger.open_or_create(self.home.ledger, "north", self.identity, self.plan)

    def request(self, kind="popularity", **changes):
        request = RoundRequest(
            plan_digest=self.plan.digest,
            code_digest=self.plan.code_digest,
            kind=kind,
            round_num={"popularity": 1, "gram": 2}[kind],
            attempt=1,
            model_digest="",
            head=HEAD if kind == "gram" else NONE,
            parameters=np.empty(0, dtype=np.float32),
        )
        return codec.encode(replace(request, **changes))

    def witnessed(self, *names):
        """Return the present head as honest witnesses would have signed it."""
        with self.ledger() as ledger:
            note = ledger.chain.note()
        signers = [SERVER, *map(self.make_owner, names or ("silo-2", "silo-3"))]
        return note + "".join(cosign(note, signer, 1_700_000_000) for signer in signers)

    def ask(self, blob, note=None):
        return self.agent.run_round(blob, self.witnessed() if note is None else note)

    def records(self, *types):
        with self.ledger() as ledger:
            return [r for r in ledger.records() if not types or r["type"] in types]

    def refused(self, work, code):
        """Hold that an order is refused, written down, paid for by nobody; then work honestly."""
        before = self.records()
        with pytest.raises(RefusalError) as caught:
            work()
        assert caught.value.code == code
        after = self.records()
        new = after[len(before) :]
        assert [record["type"] for record in new] == ["REFUSAL"]
        assert new[0]["code"] == code
        assert new[0]["reason"]
        assert after[: len(before)] == before
        self.works()

    def unreadable(self, work, *errors):
        """Hold that what cannot be read gives a clean error and no record."""
        before = self.records()
        with pytest.raises(errors or CodecError):
            work()
        assert self.records() == before
        self.works()

    def works(self):
        """Answer an honest request, and the same bytes once more."""
        blob = self.ask(self.request())
        update = codec.decode(blob, PrivateUpdate, Shapes.of_plan(self.plan))
        debits = self.records("DEBIT")
        assert update.debit_seq in [r["seq"] for r in debits]
        assert self.ask(self.request()) == blob
        assert self.records("DEBIT") == debits
        with self.ledger() as ledger:
            check_links(map(Record.from_line, ledger.chain.lines()))


@pytest.fixture(scope="module")
def deployed(make_plan, make_roster):
    return make_plan(trust="silo", **make_roster(mode="deploy"))


@pytest.fixture
def make_silo(catalogue, tmp_path, make_owner):
    def make(plan, **options):
        return Silo(plan, catalogue, tmp_path, make_owner, **options)

    return make


@pytest.fixture
def silo(deployed, make_silo):
    return make_silo(deployed)


def test_honest_server_is_answered(silo):
    silo.works()
    silo.ask(silo.request("gram"))
    assert [r["type"] for r in silo.records()][3:] == ["DEBIT", "RELEASE"] * 2
    assert [r["rng"] for r in silo.records("RELEASE")] == ["getrandom chacha20"] * 2


# ---- orders that a request can hold: changed fields, the code of the refusal ----

ORDERS = {
    "other plan": ({"plan_digest": OTHER}, "other-plan"),
    "no plan": ({"plan_digest": ""}, "other-plan"),
    "other code digest": ({"code_digest": OTHER}, "other-code"),
    "more rounds": ({"round_num": 3}, "not-in-plan"),
    "round zero": ({"round_num": 0}, "not-in-plan"),
    "round of another kind": ({"round_num": 2}, "not-in-plan"),
    "the last round there is": ({"round_num": codec.MAX_INT}, "not-in-plan"),
}
HEADS = {
    "duplicated head items": [4, 2, 2, 1],
    "head out of range": [4, 2, 0, 5],
    "negative head": [4, 2, 0, -1],
    "huge head": [4, 2, 0, 2**62],
}


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


# ---- plans that nobody approved ----


def test_plan_with_less_noise_is_refused_until_it_is_signed(silo, make_plan, make_roster):
    weaker = make_plan(epsilon=2.0, trust="silo", **make_roster(mode="deploy"))
    assert weaker.releases[0].stddev_grid < silo.plan.releases[0].stddev_grid
    order = silo.request(plan_digest=weaker.digest)
    silo.refused(lambda: silo.ask(order), "other-plan")


def test_agent_given_a_plan_that_was_not_approved_debits_nothing(
    silo, make_plan, make_roster, catalogue
):
    """Even whoever swaps the plan under the agent meets the ledger's own record of approval."""
    weaker = make_plan(epsilon=2.0, trust="silo", **make_roster(mode="deploy"))
    agent = SiloAgent(_dataset(), weaker, catalogue, silo.home, identity=silo.identity)
    order = silo.request(plan_digest=weaker.digest)
    silo.refused(lambda: agent.run_round(order, silo.witnessed()), "not-approved")


def test_silo_without_an_approved_plan_releases_nothing(deployed, make_silo):
    silo = make_silo(deployed, approve=False)
    with pytest.raises(RefusalError) as caught:
        silo.ask(silo.request())
    assert caught.value.code == "not-approved"
    assert [r["type"] for r in silo.records()] == ["GENESIS", "REFUSAL"]
    with silo.ledger() as ledger:
        ledger.approve(deployed)
    silo.works()


def test_withdrawn_plan_is_refused(silo):
    silo.works()
    with silo.ledger() as ledger:
        ledger.approve(silo.plan, approved=0, reason="enough")
    with pytest.raises(RefusalError, match="enough") as caught:
        silo.ask(silo.request("gram"))
    assert caught.value.code == "left"
    assert silo.records("REFUSAL")[-1]["code"] == "left"


class _Day(ledger_module.datetime):
    day = "2999-12-31T23:59:59+00:00"

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(cls.day)


def test_expired_plan_is_refused_on_the_day_after(silo, make_plan, make_roster, monkeypatch):
    monkeypatch.setattr(ledger_module, "datetime", _Day)
    monkeypatch.setattr(_Day, "day", "3000-01-01T00:00:00+00:00")
    with pytest.raises(RefusalError, match="2999-12-31") as caught:
        silo.ask(silo.request())
    assert caught.value.code == "expired"
    assert [r["type"] for r in silo.records()][3:] == ["REFUSAL"]
    monkeypatch.setattr(_Day, "day", "2999-12-31T23:59:59+00:00")
    silo.works()


OPEN_DEBIT = {
    "expired": lambda silo, patch: (
        patch.setattr(ledger_module, "datetime", _Day),
        patch.setattr(_Day, "day", "3000-01-01T00:00:00+00:00"),
    ),
    "left": lambda silo, patch: _leave(silo),
}


def _leave(silo):
    with silo.ledger() as ledger:
        ledger.approve(silo.plan, approved=0, reason="enough")


@pytest.mark.parametrize("code", OPEN_DEBIT)
def test_debit_left_open_by_a_crash_releases_nothing_once_the_plan_is_over(silo, monkeypatch, code):
    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record_release", die)
        with suppress(KeyboardInterrupt):
            silo.ask(silo.request())
    assert len(silo.records("DEBIT")) == 1
    OPEN_DEBIT[code](silo, monkeypatch)
    with pytest.raises(RefusalError) as caught:
        silo.ask(silo.request())
    assert caught.value.code == code
    assert not silo.records("RELEASE")


def test_limits_of_the_year_are_held_across_plans(silo, make_plan, make_roster):
    """A second plan, signed under tighter limits, ends where the year's budget does."""
    silo.ask(silo.request())
    silo.ask(silo.request("gram"))
    with silo.ledger() as ledger:
        spent = float(silo.plan.epsilons()["epsilon_rdp"])
        ledger.adopt(new_policy(None, spent * 1.05, 50.0, 1e-6))
        second = make_plan(trust="silo", public={"split": "2"}, **make_roster(mode="deploy"))
        ledger.approve(second)
    other = SiloAgent(_dataset(), second, silo.agent._catalogue, silo.home, identity=silo.identity)
    order = silo.request("gram", plan_digest=second.digest)
    with pytest.raises(BudgetError, match="per year") as caught:
        other.run_round(order, silo.witnessed())
    assert caught.value.code == "policy-budget"
    assert silo.records("REFUSAL")[-1]["code"] == "policy-budget"
    assert len(silo.records("DEBIT")) == 2


def test_plan_beyond_the_cap_if_masking_broke_cannot_be_approved(deployed, make_silo):
    silo = make_silo(deployed, approve=False)
    with silo.ledger() as ledger:
        ledger.adopt(new_policy(None, 50.0, 0.5, 1e-6))
        before = ledger.records()
        with pytest.raises(RefusalError) as caught:
            ledger.approve(deployed)
        assert caught.value.code == "masking-cap"
        assert ledger.records() == before


def test_limits_tightened_after_the_approval_stop_the_next_round(silo):
    with silo.ledger() as ledger:
        ledger.adopt(new_policy(None, 50.0, 0.5, 1e-6))
    with pytest.raises(RefusalError) as caught:
        silo.ask(silo.request())
    assert caught.value.code == "masking-cap"
    with silo.ledger() as ledger:
        ledger.adopt(new_policy(None, 50.0, 50.0, 1e-6))
    silo.works()


# ---- agents that are never made ----


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mode": "simulation", "roster": {}, "witnesses": 0}, None),
        ({"code_digest": OTHER}, "other-code"),
        ({"catalogue_digest": OTHER}, "catalogue"),
    ],
    ids=["simulation", "code", "catalogue"],
)
def test_agent_is_not_made_for_another_plan_code_or_catalogue(silo, catalogue, change, why):
    plan = replace(silo.plan, **change)
    if why is None:  # a simulation's plan has another digest, so nothing of it was approved
        agent = SiloAgent(_dataset(), plan, catalogue, silo.home, identity=silo.identity)
        order = silo.request(plan_digest=plan.digest)
        silo.refused(lambda: agent.run_round(order), "not-approved")
        return
    with pytest.raises(RefusalError):
        SiloAgent(_dataset(), plan, catalogue, silo.home, identity=silo.identity)


def test_agent_is_not_made_for_other_items_or_another_key(silo, catalogue):
    items = Catalogue(
        items=catalogue.items,
        texts=("x", *catalogue.texts[1:]),
        categories=catalogue.categories,
        brands=catalogue.brands,
        prices=catalogue.prices,
    )
    with pytest.raises(RefusalError, match="catalogue"):
        SiloAgent(_dataset(), silo.plan, items, silo.home, identity=silo.identity)
    thief = Identity.generate("fondaco/north")
    with pytest.raises(RefusalError, match="another key"):
        SiloAgent(_dataset(), silo.plan, catalogue, silo.home, identity=thief)


COHORTS = {
    "a single silo": {"n_silos": 1, "n_min": 1, "t_collude": 0},
    "a smaller cohort": {"n_silos": 10, "n_min": 2, "t_collude": 1},
    "nobody colludes": {"n_silos": 10, "n_min": 9, "t_collude": 0},
    "more than the roster": {"n_silos": 11, "n_min": 9, "t_collude": 1},
}


@pytest.mark.parametrize("name", COHORTS)
def test_plan_with_another_cohort_is_no_plan_or_not_approved(silo, catalogue, name):
    raw = json.loads(silo.plan.to_json())
    raw["cohort"] = COHORTS[name]
    try:
        plan = RunPlan.from_json(json.dumps(raw))
    except ConfigError:
        silo.works()
        return
    agent = SiloAgent(_dataset(), plan, catalogue, silo.home, identity=silo.identity)
    order = silo.request(plan_digest=plan.digest)
    silo.refused(lambda: agent.run_round(order, silo.witnessed()), "not-approved")


@pytest.mark.parametrize(
    "change",
    [
        {"stddev_grid": 10},
        {"silo_stddev_grid": 1},
        {"sens_grid": 1},
        {"kind": "customers"},
        {"kind": "a\u2028b"},
        {"dim": 0},
        {"round_num": 0},
        {"sampling_ppm": 0},
        {"steps": 10**6},
    ],
    ids=str,
)
def test_plan_whose_releases_were_changed_is_no_plan_or_cannot_run(silo, catalogue, change):
    raw = json.loads(silo.plan.to_json())
    raw["releases"][0] |= change

    def run():
        plan = RunPlan.from_json(json.dumps(raw))
        SiloAgent(_dataset(), plan, catalogue, silo.home, identity=silo.identity)

    with pytest.raises((ConfigError, RefusalError)):
        run()
    silo.works()


# ---- heads ----


def _note_of_other(silo):
    with silo.ledger() as ledger:
        head = replace(parse_note(ledger.chain.note())[0], origin="fondaco/silo-2")
    note = head.signed_by(silo.make_owner("silo-2"))
    signers = [SERVER, silo.make_owner("silo-3"), silo.make_owner("silo-4")]
    return note + "".join(cosign(note, signer, 5) for signer in signers)


NOTES = {
    "no note": lambda silo: "",
    "no cosignatures": lambda silo: silo.witnessed().split("\u2014 fondaco-coordinator")[0],
    "one is missing": lambda silo: silo.witnessed("silo-2"),
    "own cosignature": lambda silo: silo.witnessed("silo-2", "north"),
    "foreign cosignature": lambda silo: silo.witnessed("silo-2", "stranger"),
    "another silo's note": _note_of_other,
    "no text": lambda silo: "\x00",
    "long": lambda silo: silo.witnessed() + "\u2014 x AAAA\n" * 9000,
}


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


FIELDS = {
    "metrics": {"kind": "metrics"},
    "odd kind": {"kind": "popularity\x00"},
    "separator": {"kind": "a\u2028b"},
    "half a character": {"kind": "\ud800"},
    "path": {"kind": "../../popularity"},
    "long kind": {"kind": "x" * 100_000},
    "kind of a number": {"kind": 3},
    "negative round": {"round_num": -1},
    "huge round": {"round_num": 2**70},
    "half a round": {"round_num": 1.5},
    "true": {"attempt": True},
    "null": {"attempt": None},
    "huge attempt": {"attempt": 2**63},
    "more fields": {"sigma": 1},
}


@pytest.mark.parametrize("name", FIELDS)
def test_order_with_an_impossible_field_changes_nothing(silo, name):
    blob = _raw(silo.request(), **FIELDS[name])
    silo.unreadable(lambda: silo.ask(blob))


BYTES = {
    "nothing": lambda blob: b"",
    "garbage": lambda blob: bytes(range(256)),
    "torn": lambda blob: blob[:-1],
    "longer": lambda blob: blob + b"\x00",
    "oversize": lambda blob: blob + bytes(1 << 24),
    "other magic": lambda blob: b"XXXX" + blob[4:],
    "endless header": lambda blob: blob[:4] + b"\xff" * 4 + blob[8:],
    "deep": lambda blob: blob[:4] + struct.pack("<I", 60_000) + b"[" * 60_000,
    "a status": lambda blob: blob.replace(b"RoundRequest", b"SiloStatus--"),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_order_change_nothing(silo, name):
    blob = BYTES[name](silo.request())
    silo.unreadable(lambda: silo.ask(blob))


# ---- through Flower's messages ----


def _grid(silo):
    return InProcessGrid(make_app(lambda context: silo.agent), 1)


def _send(silo, kind, blob=b"", ledger=b""):
    grid = _grid(silo)
    message = grid.create_message(codec.to_message(blob, ledger), kind, 1000, "g")
    (reply,) = grid.send_and_receive([message])
    return reply


def test_release_ordered_by_another_message_is_not_given(silo):
    before = silo.records()
    for kind in ("query.status", "query.witness", "train.publish"):
        call = Call(note=silo.witnessed()).to_bytes()
        reply = _send(silo, kind, silo.request(), call)
        if not reply.has_error():
            blob, _ = codec.from_message(reply.content)
            with pytest.raises(CodecError):
                codec.decode(blob, PrivateUpdate, Shapes.of_plan(silo.plan))
    for kind in ("query.release", "train.status", "train.x", "evaluate.release"):
        assert _send(silo, kind, silo.request()).has_error()
    assert silo.records() == before
    silo.works()


CALLS = {
    "garbage": b"\xff",
    "no JSON": b"{",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "other fields": b'{"since":0}',
    "float": b'{"since":0.5,"note":"","lines":[],"offers":[]}',
    "numbers": b'{"since":0,"note":"","lines":[1],"offers":[]}',
}


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
    _, said = codec.from_message(reply.content)
    assert CANARY.encode() not in said
    assert len(json.loads(said)["lines"]) == max(0, 3 - max(since, 0))


# ---- models ----


def _model(plan, **changes):
    def zeros(*shape):
        return np.zeros(shape, dtype=np.float32)

    items, head, shapes = plan.n_items, plan.head, Shapes.of_plan(plan)
    model = GlobalModel(
        plan_digest=plan.digest,
        catalogue_digest=plan.catalogue_digest,
        after_round=1,
        noisy_popularity=zeros(items),
        popularity=zeros(items),
        head=HEAD,
        head_popularity=zeros(head),
        gram_factors=zeros(head, 1),
        gram_diagonal=zeros(head),
        gram_top=zeros(head),
        kernel_weights=zeros(1),
        item_in=zeros(head, 1),
        item_out=zeros(items, 1),
        spectrum=zeros(head),
        noise_edge=zeros(),
        parameters=zeros(sum(shapes.n_parameters.values())),
        fusion=zeros(*shapes.fusion),
    )
    return codec.encode(replace(model, **changes))


MODELS_SENT = {
    "another plan": ({"plan_digest": OTHER}, RefusalError),
    "another catalogue": ({"catalogue_digest": OTHER}, RefusalError),
    "duplicated head": ({"head": np.array([1, 1, 2, 3])}, RefusalError),
    "head out of range": ({"head": np.array([0, 1, 2, 9])}, RefusalError),
    "not finite": ({"popularity": np.full(5, np.nan, dtype=np.float32)}, CodecError),
    "infinite": ({"item_out": np.full((5, 1), np.inf, dtype=np.float32)}, CodecError),
    "of another length": ({"popularity": np.zeros(6, dtype=np.float32)}, CodecError),
    "of another type": ({"popularity": np.zeros(5)}, CodecError),
}


@pytest.mark.parametrize("name", MODELS_SENT)
def test_model_that_is_not_the_plans_is_refused_and_not_kept(silo, name):
    changes, error = MODELS_SENT[name]
    with pytest.raises(error):
        silo.agent.receive(_model(silo.plan, **changes))
    assert silo.agent.model is None
    assert not silo.home.models.exists()
    silo.works()


def test_refused_model_is_written_down(silo):
    with pytest.raises(RefusalError):
        silo.agent.receive(_model(silo.plan, plan_digest=OTHER))
    assert [r["code"] for r in silo.records("REFUSAL")] == ["other-plan"]


def test_models_of_any_number_do_not_fill_the_disk(silo):
    for num in range(30):
        with suppress(FondacoError):
            silo.agent.receive(_model(silo.plan, noise_edge=np.array(num, dtype=np.float32)))
    assert len(list(silo.home.models.iterdir())) <= len(silo.plan.releases) + 1


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
