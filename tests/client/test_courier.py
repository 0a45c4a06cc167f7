"""The ClientApp between Flower and the agent: what it lets through in both directions."""

from pathlib import Path

import numpy as np
import pytest

from fondaco.client.agent import SiloAgent
from fondaco.client.app import make_app
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.home import SiloHome
from fondaco.server.rounds import Coordinator
from fondaco.server.witness import WitnessBook
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import DataError
from fondaco.shared.parts import from_message, to_message
from fondaco.simulation.grid import InProcessGrid

NONE = np.empty(0, dtype=np.int64)
CANARY = "canary-customer-4711"


def _dataset(num):
    rows = Rows(
        user_nums=np.array([0, 0, 1]), item_nums=np.array([num % 5, 2, 3]), times=np.zeros(3)
    )
    empty = rows.take(np.zeros(3, dtype=bool))
    fold = Fold(user_nums=NONE, history=empty, targets=empty)
    users = np.array([CANARY, f"{CANARY}-too"])
    return SiloDataset(
        silo_id=f"s{num}", user_ids=users, n_items=5, train=rows, valid=fold, test=fold
    )


@pytest.fixture
def agents(plan, catalogue, tmp_path):
    return [
        SiloAgent(_dataset(num), plan, catalogue, SiloHome(tmp_path, f"s{num}"), seed=0)
        for num in range(10)
    ]


@pytest.fixture
def grid(agents):
    return InProcessGrid(make_app(lambda c: agents[int(c.node_config["partition-id"])]), 10)


def _broken_grid(error):
    def connect(context):
        raise error

    return InProcessGrid(make_app(connect), 1)


def _ask(grid, message_type, blob=b""):
    message = grid.create_message(to_message(blob), message_type, 1000, "g")
    (reply,) = grid.send_and_receive([message])
    return reply


def _coordinator(grid, plan):
    book = WitnessBook(Path("unused"), plan, Identity.seeded(0, COORDINATOR))
    return Coordinator(
        grid, plan, Shapes.of_plan(plan), deadline_s=10, progress=lambda *news: None, book=book
    )


def test_courier_brings_every_agents_release_to_the_coordinator(grid, plan):
    coordinator = _coordinator(grid, plan)
    result = coordinator.collect(coordinator.roll_call(), plan.releases[0])
    assert len(result.present) == 10
    assert np.abs(result.total).max() < 10 * plan.releases[0].stddev_grid


def test_killed_coordinator_gets_the_same_sum_again(grid, agents, plan):
    sums = []
    for _ in range(2):
        coordinator = _coordinator(grid, plan)
        sums.append(coordinator.collect(coordinator.roll_call(), plan.releases[0]).total)
    assert np.array_equal(*sums)


@pytest.mark.parametrize("message_type", ["query.status", "train.release", "train.publish"])
@pytest.mark.parametrize("error", [DataError(CANARY), KeyError(CANARY), OSError(CANARY)])
def test_courier_never_carries_a_foreign_text(message_type, error):
    reply = _ask(_broken_grid(error), message_type)
    assert CANARY not in reply.error.reason
    assert "details stay at the silo" in reply.error.reason


def test_courier_carries_the_reason_of_a_refusal(grid):
    assert "too few for a record" in _ask(grid, "train.release", b"?").error.reason


def test_nothing_on_the_wire_or_in_the_ledger_names_a_customer(grid, plan, tmp_path):
    blobs = [from_message(_ask(grid, "query.status").content)[0]]
    coordinator = _coordinator(grid, plan)
    coordinator.collect(coordinator.roll_call(), plan.releases[0])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 30
    blobs += [path.read_bytes() for path in files]
    assert not any(CANARY.encode() in blob for blob in blobs)
