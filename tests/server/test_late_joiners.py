"""Silos that come after the roll call, and rounds that are rehearsed without data."""

import re
import time
from pathlib import Path

import pytest
from builders import silo_of, zero_model

from fondaco.client.agent import SiloAgent
from fondaco.client.answers import answer, public_reason
from fondaco.client.boundary.app import carrier
from fondaco.client.home import SiloHome
from fondaco.server import rounds
from fondaco.server.cohort import Unheard
from fondaco.server.rounds import Coordinator
from fondaco.server.watch import Watch
from fondaco.server.witness import WitnessBook
from fondaco.shared import codec
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import CodecError, RefusalError, RoundError
from fondaco.shared.parts import Parts
from fondaco.shared.preflight import NONCE, check, question, reply
from fondaco.simulation.grid import InProcessGrid

LATE = 1009


class Grid(InProcessGrid):
    """Nodes may be away, and are silent if they are."""

    away = frozenset()

    def get_node_ids(self):
        return [node for node in super().get_node_ids() if node not in self.away]

    def pull_messages(self, message_ids):
        held = {i for i, m in self._pending.items() if m.metadata.dst_node_id in self.away}
        return super().pull_messages([i for i in message_ids if i not in held])


class World:
    """Ten silos, real ones, of which nine are needed."""

    def __init__(self, plan, catalogue, folder):
        self.plan, self.dropped, self.asked, self.told = plan, [], [], []
        self.agents = [
            SiloAgent(_dataset(num), plan, catalogue, SiloHome(folder, name), seed=0)
            for num, name in enumerate(plan.roster)
        ]
        self.instead = {}
        self.grid = Grid(carrier(self._answer, public_reason), len(self.agents))
        self.coordinator = self.coordinate()

    def _answer(self, context, action, parts):
        num = int(context.node_config["partition-id"])
        self.asked.append((num, action))
        act = self.instead.get((num, action), answer)
        return act(self.agents[num], action, parts)

    def coordinate(self, deadline_s=1.0):
        watch = Watch()
        watch.dropped = lambda silo_id, reason: self.dropped.append((silo_id, reason))
        return Coordinator(
            self.grid,
            self.plan,
            Shapes.of_plan(self.plan),
            deadline_s=deadline_s,
            progress=lambda *news: self.told.append(news),
            book=WitnessBook(Path("unused"), self.plan, Identity.seeded(0, COORDINATOR)),
            watch=watch,
        )

    def actions(self, num):
        return [action for asked, action in self.asked if asked == num]

    def ledgers(self):
        return [agent.status() for agent in self.agents]


def _dataset(num):
    name = "north" if num == 0 else f"silo-{num + 1}"
    return silo_of([(0, num % 5), (0, 2), (1, 3)], silo_id=name)


@pytest.fixture
def world(make_plan, make_roster, catalogue, tmp_path, hasty):
    return World(make_plan(**make_roster(witnesses=0)), catalogue, tmp_path)


def _without_the_late(world):
    world.grid.away = {LATE}
    cohort = world.coordinator.roll_call()
    assert len(cohort.silos) == 9
    world.grid.away = frozenset()
    return cohort


def test_late_silo_is_told_the_model_before_it_is_asked_and_takes_part(world):
    cohort = _without_the_late(world)
    joined = world.coordinator.welcome(cohort, zero_model(world.plan, after_round=0))
    assert joined.silos[LATE] == "silo-10"
    result = world.coordinator.collect(joined, world.plan.releases[0])
    assert "silo-10" in result.present
    assert world.actions(9) == ["status", "publish", "release"]
    assert world.actions(0) == ["status", "release"]


def test_late_silo_is_told_nothing_before_there_is_a_model(world):
    joined = world.coordinator.welcome(_without_the_late(world), None)
    assert LATE in joined.silos
    assert world.actions(9) == ["status"]


def test_nobody_is_asked_where_nobody_is_new_or_nobody_is_missing(world):
    world.grid.away = {LATE}
    cohort = world.coordinator.roll_call()
    before = len(world.asked)
    assert world.coordinator.welcome(cohort, None) is cohort
    world.grid.away = frozenset()
    whole = world.coordinator.roll_call()
    world.grid._contexts[1010] = world.grid._contexts[1001]
    after = len(world.asked)
    assert world.coordinator.welcome(whole, None) is whole
    assert len(world.asked) == after > before


def _other_status(**changes):
    def act(agent, action, parts):
        said = answer(agent, action, parts)
        status = codec.decode(said.record, codec.SiloStatus, Shapes.of_plan(agent.plan))
        for name, value in changes.items():
            object.__setattr__(status, name, value)
        return Parts(codec.encode(status), said.ledger, said.masking)

    return act


def _not_signed(agent, action, parts):
    said = answer(agent, action, parts)
    return Parts(said.record, said.ledger, b"\x00" * 64)


def _replayed(agent, action, parts):
    """Signed well, once, for another nonce."""
    return answer(agent, action, Parts(parts.record, parts.ledger, b"n" * 32))


STRANGERS = {
    "other code": (_other_status(code_digest="sha256:other"), "another plan or other code"),
    "another's name": (_other_status(silo_id="silo-2"), "did not sign"),
    "no signature": (_not_signed, "did not sign"),
    "an old signature": (_replayed, "did not sign"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_late_node_that_cannot_show_who_it_is_stays_out(world, name):
    act, why = STRANGERS[name]
    cohort = _without_the_late(world)
    world.instead[9, "status"] = act
    joined = world.coordinator.welcome(cohort, zero_model(world.plan, after_round=0))
    assert joined.silos == cohort.silos
    assert why in joined.dropped[-1].reason
    assert "publish" not in world.actions(9)
    world.coordinator.collect(joined, world.plan.releases[0])
    assert "release" not in world.actions(9)
    again = world.coordinator.welcome(joined, None)
    assert again.dropped == joined.dropped  # said once, however often it comes


def test_silo_that_comes_from_a_second_node_is_counted_once(world):
    cohort = _without_the_late(world)
    world.agents[9] = world.agents[0]
    joined = world.coordinator.welcome(cohort, None)
    assert joined.silos == cohort.silos
    assert [(d.silo_id, d.reason) for d in joined.dropped] == [
        (f"node {LATE}", "north answered from two nodes")
    ]


def test_silo_whose_old_node_was_shut_out_goes_on_from_its_new_one(world):
    """Its owner changed the node key: nobody is missing, and the old node never comes back."""
    cohort = world.coordinator.roll_call()
    world.grid._contexts[1010] = world.grid._contexts[LATE]
    world.grid.away = {LATE}
    joined = world.coordinator.welcome(cohort, zero_model(world.plan, after_round=0))
    assert (joined.silos[1010], len(joined.silos)) == ("silo-10", 10)
    assert LATE not in joined.silos
    assert joined.dropped == ()
    assert world.actions(9) == ["status", "status", "publish"]
    result = world.coordinator.collect(joined, world.plan.releases[0])
    assert len(result.present) == 10


@pytest.mark.parametrize("act", ["not_signed", "replayed"])
def test_node_that_cannot_sign_takes_no_place_of_a_silo_that_is_away(world, act):
    cohort = world.coordinator.roll_call()
    world.grid._contexts[1010] = world.grid._contexts[LATE]
    world.grid.away = {LATE}
    world.instead[9, "status"] = {"not_signed": _not_signed, "replayed": _replayed}[act]
    joined = world.coordinator.welcome(cohort, None)
    assert joined.silos == cohort.silos
    (dropped,) = joined.dropped
    assert dropped.silo_id == "node 1010"


def test_node_that_never_answers_holds_up_ever_fewer_rounds(world, monkeypatch):
    """Its courier is up and its agent is not: each question waits until the deadline."""
    world.grid.get_node_ids = lambda: sorted(world.grid._contexts)
    world.grid.away = {LATE}
    monkeypatch.setattr(rounds, "LATE_S", 0.1)
    cohort, asked = world.coordinator.roll_call(), []
    for round_num in range(1, 31):
        before = len(world.told)
        cohort = world.coordinator.welcome(cohort, None)
        asked += [round_num] if len(world.told) > before else []
    assert asked == [2, 6, 14, 30]
    world.grid.away = frozenset()
    for _ in range(31, 47):
        assert LATE not in cohort.silos
        cohort = world.coordinator.welcome(cohort, None)
    assert (cohort.silos[LATE], cohort.dropped) == ("silo-10", ())


def test_node_that_refuses_at_once_is_asked_before_every_round(world):
    def refuse(agent, action, parts):
        raise RefusalError("not yet", "not-approved")

    cohort = _without_the_late(world)
    world.instead[9, "status"] = refuse
    for _ in range(3):
        cohort = world.coordinator.welcome(cohort, None)
    assert world.actions(9) == ["status"] * 3
    world.instead.clear()
    assert world.coordinator.welcome(cohort, None).silos[LATE] == "silo-10"


def test_node_that_answers_again_was_only_put_off():
    unheard = Unheard()
    unheard.note(7)
    assert [unheard.due([9, 7, 8]) for _ in range(2)] == [[8, 9], [7, 8, 9]]


def test_silo_that_was_refused_may_join_once_it_is_right(world):
    cohort = _without_the_late(world)
    world.instead[9, "status"] = STRANGERS["other code"][0]
    refused = world.coordinator.welcome(cohort, None)
    assert [drop.silo_id for drop in refused.dropped] == ["silo-10"]
    world.instead.clear()
    joined = world.coordinator.welcome(refused, None)
    assert joined.silos[LATE] == "silo-10"
    assert joined.dropped == ()


def test_late_silo_that_is_silent_is_not_waited_for_beyond_the_deadline(world):
    cohort = _without_the_late(world)
    world.grid.get_node_ids = lambda: sorted(world.grid._contexts)
    world.grid.away = {LATE}
    start = time.monotonic()
    joined = world.coordinator.welcome(cohort, None)
    assert time.monotonic() - start < 1.2
    assert joined.silos == cohort.silos


def test_rehearsal_moves_as_many_bytes_and_nothing_else(world):
    cohort = world.coordinator.roll_call()
    before = world.ledgers()
    sizes = []
    rehearsed = []

    def act(agent, action, parts):
        said = answer(agent, action, parts)
        sizes.append((len(parts.masking), len(said.masking)))
        rehearsed.append(said)
        return said

    world.instead = {(num, "preflight"): act for num in range(10)}
    world.coordinator.rehearse(cohort)
    shapes, largest = Shapes.of_plan(world.plan), max(e.dim for e in world.plan.releases)
    assert sizes == [(NONCE + shapes.most_bytes(), 8 * largest)] * 10
    assert all(said.record == said.ledger == b"" for said in rehearsed)
    assert [(s.ledger_seq, s.ledger_digest) for s in map(_seen, world.ledgers())] == [
        (s.ledger_seq, s.ledger_digest) for s in map(_seen, before)
    ]
    assert world.dropped == []


def _seen(blob):
    if not isinstance(blob, bytes):
        return blob
    shapes = Shapes(n_items=5, head=4, update_dims={}, n_parameters={}, fusion=(4, 2))
    return codec.decode(blob, codec.SiloStatus, shapes)


def _refuse(agent, action, parts):
    raise RefusalError("no")


WRONG = {
    "nothing": lambda agent, action, parts: Parts(),
    "an echo": lambda agent, action, parts: Parts(masking=parts.masking),
    "too short": lambda agent, action, parts: Parts(
        masking=answer(agent, action, parts).masking[:-1]
    ),
    "too long": lambda agent, action, parts: Parts(
        masking=answer(agent, action, parts).masking + b"\x00"
    ),
    "one bit": lambda agent, action, parts: Parts(
        masking=b"\x00" + answer(agent, action, parts).masking[1:]
    ),
    "a refusal": _refuse,
}


@pytest.mark.parametrize("name", WRONG)
def test_silo_whose_bytes_do_not_come_through_is_named(world, name):
    cohort = world.coordinator.roll_call()
    world.instead[3, "preflight"] = WRONG[name]
    world.coordinator.rehearse(cohort)
    assert [silo for silo, _ in world.dropped] == ["silo-4"]
    world.instead[4, "preflight"] = WRONG[name]
    with pytest.raises(RoundError, match="preflight: 8 silos answered"):
        world.coordinator.rehearse(cohort)


def test_silent_silo_fails_the_rehearsal_at_the_deadline(world):
    cohort = world.coordinator.roll_call()
    world.grid.away = {1003, 1004}
    start = time.monotonic()
    with pytest.raises(RoundError, match=re.escape("8 silos answered, the plan needs 9")):
        world.coordinator.rehearse(cohort)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("change", ["nonce", "cut", "longer", "bit", "empty"])
def test_question_that_did_not_arrive_whole_is_refused(plan, change):
    nonce = bytes(range(NONCE))
    asked = question(nonce, plan)
    changed = {
        "nonce": b"x" * NONCE + asked[NONCE:],
        "cut": asked[:-1],
        "longer": asked + b"\x00",
        "bit": asked[:-1] + bytes([asked[-1] ^ 1]),
        "empty": b"",
    }[change]
    with pytest.raises(RefusalError, match="not those of this plan"):
        reply(changed, plan)
    check(nonce, reply(asked, plan), plan)
    with pytest.raises(CodecError):
        check(b"y" * NONCE, reply(asked, plan), plan)
