"""Promises of a silo's agent; each takes the module `client.agent` or a broken copy of it."""

import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.home import SiloHome
from fondaco.shared import codec
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.errors import PrivacyError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.records import RoundRequest

_SPEC = importlib.util.spec_from_file_location(
    "planted_conftest", Path(__file__).parents[1] / "conftest.py"
)
common = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(common)

NOBODY = np.empty(0, dtype=np.int64)
OWNER = Identity.seeded(0, key_name("north"))


def _rows(users=(), items=()):
    return Rows(
        user_nums=np.array(users, dtype=np.int64),
        item_nums=np.array(items, dtype=np.int64),
        times=np.arange(len(users), dtype=np.float64),
    )


def _dataset():
    fold = Fold(user_nums=NOBODY, history=_rows(), targets=_rows())
    return SiloDataset(
        silo_id="north",
        user_ids=np.array(["ann", "bob"]),
        n_items=5,
        train=_rows((0, 0, 1), (1, 2, 4)),
        valid=fold,
        test=fold,
    )


def _request(plan, **changes):
    request = RoundRequest(
        plan_digest=plan.digest,
        code_digest=plan.code_digest,
        kind="popularity",
        round_num=1,
        attempt=1,
        model_digest="",
        head=NOBODY,
        parameters=np.empty(0, dtype=np.float32),
    )
    return codec.encode(replace(request, **changes))


def _agent(module, folder, plan, seed=None, identity=OWNER):
    home = SiloHome(Path(folder), "north")
    dataset = _dataset()
    return module.SiloAgent(dataset, plan, common.CATALOGUE, home, seed, identity=identity)


def _refused(attempt):
    try:
        attempt()
    except PrivacyError:
        return True
    return False


def agents_seed_no_deployment(module):
    """A seed is for simulations: a deployed agent refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        plan = common.build_plan(trust="silo", mode="deploy", **common.with_roster())
        _agent(module, folder, plan)
        assert _refused(lambda: _agent(module, folder, plan, seed=1)), "seeded in a deployment"


def agents_resend_the_same_bytes(module):
    """A retry gets what was sent, also from an agent that was started since."""
    with tempfile.TemporaryDirectory() as folder:
        plan = common.build_plan()
        first = _agent(module, folder, plan).run_round(_request(plan))
        try:
            again = _agent(module, folder, plan).run_round(_request(plan))
        except PrivacyError as error:
            raise AssertionError("a retry was refused") from error
        assert again == first, "a retry was computed anew"


def agents_answer_their_own_plan_only(module):
    """Orders for another plan or other code are refused before anything is paid for."""
    with tempfile.TemporaryDirectory() as folder:
        plan = common.build_plan()
        agent = _agent(module, folder, plan)
        for change in ({"plan_digest": "sha256:other"}, {"code_digest": "sha256:other"}):
            blob = _request(plan, **change)
            assert _refused(lambda blob=blob: agent.run_round(blob)), f"{change} was answered"


def commitments_are_keyed(module):
    """What a ledger says of private rows tells nothing to whoever can guess the rows."""
    told = set()
    for seed in (0, 1):
        owner = Identity.seeded(seed, key_name("north"))
        with tempfile.TemporaryDirectory() as folder:
            plan = common.build_plan()
            _agent(module, folder, plan, identity=owner).run_round(_request(plan))
            path = SiloHome(Path(folder), "north").ledger
            with Ledger(path, owner, plan) as ledger:
                told |= {r["commit"] for r in ledger.records() if r["type"] == "DEBIT"}
    assert len(told) == 2, "equal rows have equal commitments"


AGENT_PROPERTIES = {
    check.__name__: check
    for check in (
        agents_seed_no_deployment,
        agents_resend_the_same_bytes,
        agents_answer_their_own_plan_only,
        commitments_are_keyed,
    )
}
