"""What a computation that fails at the silo costs, and what the server learns from it."""

import json

import numpy as np
import pytest
from builders import request_of, silo_of

from fondaco.client import agent as agent_module
from fondaco.client.agent import SiloAgent
from fondaco.client.home import SiloHome
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.errors import LedgerError, RefusalError
from fondaco.shared.privacy.ledger import Ledger

OWNER = Identity.seeded(0, key_name("north"))


@pytest.fixture
def home(tmp_path):
    return SiloHome(tmp_path, "north")


@pytest.fixture
def make_agent(plan, catalogue, home):
    """Return a function: the agent of a silo of two customers, as after a restart."""

    def make():
        dataset = silo_of([(0, 2), (1, 3)], users=("ann", "bob"))
        return SiloAgent(dataset, plan, catalogue, home)

    return make


@pytest.fixture
def run_failing(make_agent, plan, monkeypatch):
    """Return a function: answer the round with a computation that raises this error."""

    def run(error):
        def compute(*args):
            raise error

        with monkeypatch.context() as broken:
            broken.setattr(agent_module, "clipped_sum", compute)
            with pytest.raises(type(error)):
                make_agent().run_round(request_of(plan))

    return run


def _records(plan, home, *types):
    with Ledger(home.ledger, OWNER, plan) as ledger:
        return [r for r in ledger.records() if r["type"] in types]


BUGS = [ValueError("ann bought 7"), MemoryError(), np.linalg.LinAlgError("ann"), KeyError("ann")]


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_computation_that_failed_is_not_tried_again(make_agent, plan, home, run_failing, error):
    run_failing(error)
    for _ in range(2):
        with pytest.raises(RefusalError, match="new attempt"):
            make_agent().run_round(request_of(plan))
    assert len(_records(plan, home, "DEBIT")) == 1
    assert not _records(plan, home, "RELEASE")


def test_record_of_a_failed_computation_says_nothing_about_the_data(plan, home, run_failing):
    run_failing(ValueError("ann bought 7"))
    (record,) = _records(plan, home, "REFUSAL")
    assert (record["reason"], record["failed"]) == ("the computation failed", 1)
    assert "ann" not in json.dumps(record)


def test_new_attempt_after_a_failed_one_pays_again(make_agent, plan, home, run_failing):
    run_failing(ValueError())
    assert make_agent().run_round(request_of(plan, attempt=2))
    assert len(_records(plan, home, "DEBIT")) == 2


@pytest.mark.parametrize(
    "error",
    [OSError("no space"), LedgerError("locked"), RefusalError("not here yet"), KeyboardInterrupt()],
    ids=repr,
)
def test_failures_that_no_data_cause_leave_the_attempt_open(
    make_agent, plan, home, run_failing, error
):
    run_failing(error)
    assert make_agent().run_round(request_of(plan))
    assert len(_records(plan, home, "DEBIT", "RELEASE")) == 2
