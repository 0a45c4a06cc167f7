import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import zero_model
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fondaco.server.rounds import About, Coordinator
from fondaco.server.witness import WitnessBook
from fondaco.shared import codec
from fondaco.shared.calibration import Statistic
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import RoundError
from fondaco.shared.models import MODELS, Sizes
from fondaco.shared.models.autoencoder import AutoencoderTerms
from fondaco.shared.parts import from_message, to_message
from fondaco.shared.records import PrivateUpdate, RoundRequest, SiloStatus
from fondaco.simulation.grid import InProcessGrid

N_SILOS = 10  # of which the plan needs 9


class _Silo:
    """A silo that sends its own number; tests make one misbehave."""

    def __init__(self, num, plan):
        self.num, self.plan, self.shapes = num, plan, Shapes.of_plan(plan)
        self.asked = []

    def status(self):
        return SiloStatus(
            silo_id=f"s{self.num}",
            plan_digest=self.plan.digest,
            code_digest=self.plan.code_digest,
            ledger_seq=2,
            ledger_digest="sha256:head",
        )

    def update(self, request):
        dim = self.plan.event_for(request.kind, request.round_num).dim
        return PrivateUpdate(
            silo_id=f"s{self.num}",
            plan_digest=request.plan_digest,
            kind=request.kind,
            round_num=request.round_num,
            attempt=request.attempt,
            debit_seq=3,
            values=np.full(dim, 10**self.num),
        )

    def answer(self, message, make):
        blob = from_message(message.content)[0]
        self.asked.append(blob)
        return Message(to_message(codec.encode(make(blob))), reply_to=message)


class _LateGrid(InProcessGrid):
    """Holds back the answers of some nodes for ever."""

    late = ()

    def pull_messages(self, message_ids):
        held = {i for i, m in self._pending.items() if m.metadata.dst_node_id in self.late}
        return super().pull_messages([i for i in message_ids if i not in held])


def _app(silos):
    app = ClientApp()

    def silo(context):
        return silos[int(context.node_config["partition-id"])]

    @app.query("status")
    def status(message: Message, context: Context) -> Message:
        return silo(context).answer(message, lambda _: silo(context).status())

    @app.train("release")
    def release(message: Message, context: Context) -> Message:
        its = silo(context)
        return its.answer(
            message, lambda blob: its.update(codec.decode(blob, RoundRequest, its.shapes))
        )

    @app.train("publish")
    def publish(message: Message, context: Context) -> Message:
        return silo(context).answer(message, lambda _: silo(context).status())

    return app


@pytest.fixture
def silos(plan):
    return [_Silo(num, plan) for num in range(N_SILOS)]


@pytest.fixture
def grid(silos):
    return _LateGrid(_app(silos), N_SILOS)


@pytest.fixture
def heard():
    return []


def _coordinator(grid, plan, *, deadline_s=60, progress=lambda *news: None, **options):
    shapes = Shapes.of_plan(plan)
    book = WitnessBook(Path("unused"), plan, Identity.seeded(0, COORDINATOR))
    return Coordinator(
        grid, plan, shapes, deadline_s=deadline_s, progress=progress, book=book, **options
    )


@pytest.fixture
def coordinate(grid, plan, heard):
    """Return a coordinator that waits for `deadline_s`."""

    def make(deadline_s):
        def tell(*news):
            heard.append(news)

        return _coordinator(grid, plan, deadline_s=deadline_s, progress=tell)

    return make


@pytest.fixture
def coordinator(coordinate):
    return coordinate(60)


def _misbehave(silo, **changes):
    honest = silo.update
    silo.update = lambda request: replace(honest(request), **changes)


def _fail(*args):
    raise RuntimeError("RefusalError: not planned")


def _collect(coordinator, plan):
    cohort = coordinator.roll_call()
    return coordinator.collect(cohort, plan.releases[0])


def test_roll_call_finds_every_silo(coordinator):
    cohort = coordinator.roll_call()
    assert sorted(cohort.silos.values()) == [f"s{num}" for num in range(N_SILOS)]
    assert cohort.dropped == ()


def test_round_adds_up_every_silo_once(coordinator, plan):
    result = _collect(coordinator, plan)
    assert result.total.tolist() == [1_111_111_111] * 5
    assert result.present == tuple(f"s{num}" for num in range(N_SILOS))
    assert (result.kind, result.round_num, result.dropped) == ("popularity", 1, ())


def test_round_tells_its_progress(coordinator, heard, plan):
    _collect(coordinator, plan)
    assert heard[-1] == ("popularity", N_SILOS, N_SILOS)
    assert heard[0] == ("roll call", 0, N_SILOS)


def test_round_asks_every_silo_the_same_question(coordinator, silos, plan):
    _collect(coordinator, plan)
    questions = {silo.asked[1] for silo in silos}
    assert len(questions) == 1
    request = codec.decode(questions.pop(), RoundRequest, Shapes.of_plan(plan))
    assert (request.plan_digest, request.attempt) == (plan.digest, 1)


MISBEHAVIOUR = {
    "shape": {"values": np.zeros(4, dtype=np.int64)},
    "dtype": {"values": np.zeros(5)},
    "another's id": {"silo_id": "s4"},
    "plan": {"plan_digest": "sha256:other"},
    "statistic": {"kind": "gram", "values": np.zeros(10, dtype=np.int64)},
    "round": {"round_num": 2},
    "attempt": {"attempt": 2},
}


@pytest.mark.parametrize("changes", MISBEHAVIOUR.values(), ids=MISBEHAVIOUR.keys())
def test_silo_that_sends_something_else_is_named_and_dropped(coordinator, silos, changes, plan):
    _misbehave(silos[3], **changes)
    result = _collect(coordinator, plan)
    assert result.total.tolist() == [1_111_110_111] * 5
    assert [d.silo_id for d in result.dropped] == ["s3"]
    assert "s3" not in result.present


def test_silo_that_raises_is_named_with_its_public_reason(coordinator, silos, plan):
    silos[3].update = _fail
    (dropped,) = _collect(coordinator, plan).dropped
    assert (dropped.silo_id, dropped.round_num) == ("s3", 1)
    assert "not planned" in dropped.reason


def test_silo_that_sends_garbage_is_named_and_dropped(coordinator, silos):
    silos[3].answer = lambda message, make: Message(to_message(b"?"), reply_to=message)
    cohort = coordinator.roll_call()
    assert "CodecError" in cohort.dropped[0].reason


def test_silo_that_is_late_is_dropped_at_the_deadline(coordinate, grid, plan):
    coordinator = coordinate(1)
    cohort = coordinator.roll_call()
    grid.late = (1003,)
    start = time.monotonic()
    result = coordinator.collect(cohort, plan.releases[0])
    assert 1 <= time.monotonic() - start < 10
    assert [(d.silo_id, d.reason) for d in result.dropped] == [("s3", "no answer within 1 s")]
    assert result.total.tolist() == [1_111_110_111] * 5


def test_round_with_too_few_silos_fails_and_says_why(coordinator, silos, plan):
    cohort = coordinator.roll_call()
    for num in (3, 4):
        silos[num].update = _fail
    with pytest.raises(RoundError, match=r"8 silos answered, the plan needs 9 \(s3: .*s4: "):
        coordinator.collect(cohort, plan.releases[0])


def test_roll_call_with_too_few_silos_fails(coordinate, grid):
    grid.late = (1003, 1004)
    with pytest.raises(RoundError, match="roll call: 8 silos answered"):
        coordinate(1).roll_call()


@pytest.mark.parametrize("name", ["plan_digest", "code_digest"])
def test_roll_call_drops_a_silo_of_another_plan_or_code(coordinator, silos, name):
    honest = silos[3].status()
    silos[3].status = lambda: replace(honest, **{name: "sha256:other"})
    cohort = coordinator.roll_call()
    assert "s3" not in cohort.silos.values()
    assert "another plan or other code" in cohort.dropped[0].reason


def test_roll_call_counts_a_silo_once(coordinator, silos):
    silos[7].status = silos[3].status
    cohort = coordinator.roll_call()
    assert sorted(cohort.silos.values()).count("s3") == 1
    (dropped,) = cohort.dropped
    assert (dropped.silo_id, dropped.reason) == ("node 1007", "s3 answered from two nodes")


def test_round_that_the_plan_does_not_hold_gets_no_answer(coordinator, plan):
    cohort = coordinator.roll_call()
    with pytest.raises(RoundError, match="0 silos answered"):
        coordinator.collect(cohort, replace(plan.releases[0], round_num=2))


def test_request_carries_what_the_statistic_builds_upon(make_plan, silos, grid, plan):
    terms = AutoencoderTerms(rounds=1, width=1, items=2)
    count = MODELS["autoencoder"].n_parameters(terms, Sizes(n_items=5, head=4))
    step = Statistic(kind="autoencoder", share=1, dim=count)
    plan = make_plan([("popularity", 1, 5), step], models={"autoencoder": terms.as_text()})
    for silo in silos:
        silo.plan, silo.shapes = plan, Shapes.of_plan(plan)
    coordinator = _coordinator(grid, plan)
    parameters = np.arange(count, dtype=np.float32)
    about = About(parameters=parameters, model_digest="sha256:m")
    coordinator.collect(coordinator.roll_call(), plan.releases[1], about)
    request = codec.decode(silos[3].asked[1], RoundRequest, Shapes.of_plan(plan))
    assert (request.kind, request.model_digest) == ("autoencoder", "sha256:m")
    assert np.array_equal(request.parameters, parameters)
    assert len(request.head) == 0


def test_average_weighs_silos_by_public_weights(grid, plan):
    """Silo n sends 10^n; s0 counts three times, nine others once."""
    coordinator = _coordinator(grid, plan, weights={"s0": 3.0})
    cohort = coordinator.roll_call()
    result = coordinator.collect(cohort, plan.releases[0], aggregator="mean")
    assert result.total == pytest.approx([1_111_111_113 / 12] * 5)
    summed = coordinator.collect(cohort, plan.releases[0])
    assert summed.total.tolist() == [1_111_111_111] * 5


def test_publish_names_the_silos_that_did_not_take_the_model(coordinator, silos, plan):
    cohort = coordinator.roll_call()
    silos[3].status = _fail
    dropped = coordinator.publish(cohort, zero_model(plan))
    assert [(d.silo_id, d.round_num) for d in dropped] == [("s3", 3)]
