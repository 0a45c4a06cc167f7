import fcntl
import hashlib
import os
import stat
import threading
from dataclasses import replace

import numpy as np
import pytest

from fondaco.client import agent as agent_module
from fondaco.client.agent import SiloAgent
from fondaco.client.answers import public_reason
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.home import SiloHome
from fondaco.shared import codec
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import (
    BudgetError,
    CodecError,
    LedgerError,
    RefusalError,
)
from fondaco.shared.privacy.clipping import gram_sum, popularity_sum
from fondaco.shared.privacy.contribution import bound_contributions
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.records import PrivateUpdate, RoundRequest, SiloStatus

OWNER = Identity.seeded(0, key_name("north"))

PAIRS = [(0, 1), (0, 2), (0, 2), (1, 4), (1, 0), (2, 3)]
HEAD = np.array([4, 2, 0, 1])
NO_HEAD = np.empty(0, dtype=np.int64)


def _rows(pairs=()):
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    times = np.arange(len(array), dtype=np.float64)
    return Rows(user_nums=array[:, 0], item_nums=array[:, 1], times=times)


def _dataset(silo_id="north", pairs=PAIRS):
    fold = Fold(user_nums=NO_HEAD, history=_rows(), targets=_rows())
    users = np.array(["ann", "bob", "cy"])
    return SiloDataset(
        silo_id=silo_id, user_ids=users, n_items=5, train=_rows(pairs), valid=fold, test=fold
    )


@pytest.fixture
def make_agent(catalogue):
    """Return a function: plan, home -> the agent of a silo of three customers."""

    def make(plan, home, dataset=None, seed=None, **options):
        return SiloAgent(dataset or _dataset(), plan, catalogue, home, seed, **options)

    return make


@pytest.fixture
def home(tmp_path):
    return SiloHome(tmp_path, "north")


@pytest.fixture
def agent(make_agent, plan, home):
    return make_agent(plan, home)


def _request(plan, kind="popularity", **changes):
    head, round_num = (HEAD, 2) if kind == "gram" else (NO_HEAD, 1)
    request = RoundRequest(
        plan_digest=plan.digest,
        code_digest=plan.code_digest,
        kind=kind,
        round_num=round_num,
        attempt=1,
        model_digest="",
        head=head,
        parameters=np.empty(0, dtype=np.float32),
    )
    return codec.encode(replace(request, **changes))


def _read(plan, blob, record_type=PrivateUpdate):
    return codec.decode(blob, record_type, Shapes.of_plan(plan))


def _records(plan, home, *types):
    with Ledger(home.ledger, OWNER, plan) as ledger:
        return [r for r in ledger.records() if r["type"] in types]


def test_agent_answers_a_planned_round_with_a_paid_update(agent, plan, home):
    update = _read(plan, agent.run_round(_request(plan)))
    assert (update.silo_id, update.kind, update.round_num) == ("north", "popularity", 1)
    assert [r["seq"] for r in _records(plan, home, "DEBIT")] == [update.debit_seq]


def test_agent_releases_the_clipped_sum_plus_its_seeded_noise(make_agent, plan, home):
    agent = make_agent(plan, home, seed=3)
    users, items = np.array(PAIRS).T
    histories = bound_contributions(users, items, 3, 5)
    sums = {"popularity": popularity_sum(histories, plan.grid)}
    sums["gram"] = gram_sum(histories.restrict(HEAD), plan.grid)
    for event in plan.releases:
        update = _read(plan, agent.run_round(_request(plan, event.kind)))
        labels = "north", event.kind, str(event.round_num), "1"
        noise = NoiseStream.seeded(3, *labels).gaussian(event.dim, event.silo_stddev_grid)
        assert np.array_equal(update.values, sums[event.kind].values + noise)


def test_agent_draws_fresh_noise_from_the_system_by_default(make_agent, plan, tmp_path):
    blobs = []
    for folder in ("a", "b"):
        home = SiloHome(tmp_path / folder, "north")
        blobs.append(make_agent(plan, home).run_round(_request(plan)))
        assert _records(plan, home, "RELEASE")[0]["rng"] == "getrandom chacha20"
    assert blobs[0] != blobs[1]


def test_agent_asked_again_sends_the_identical_bytes_for_free(make_agent, agent, plan, home):
    first = agent.run_round(_request(plan))
    restarted = make_agent(plan, home)
    assert agent.run_round(_request(plan)) == restarted.run_round(_request(plan)) == first
    assert len(_records(plan, home, "DEBIT", "RELEASE")) == 2


def test_agents_debit_names_the_request_by_its_digest(agent, plan, home):
    request = _request(plan, "gram")
    agent.run_round(request)
    digest = f"sha256:{hashlib.sha256(request).hexdigest()}"
    assert [r["request"] for r in _records(plan, home, "DEBIT")] == [digest]


def test_agent_refuses_another_head_under_a_paid_debit(agent, plan, home):
    first = agent.run_round(_request(plan, "gram"))
    with pytest.raises(RefusalError, match="another request for gram in round 2"):
        agent.run_round(_request(plan, "gram", head=HEAD[::-1].copy()))
    assert agent.run_round(_request(plan, "gram")) == first
    assert len(_records(plan, home, "DEBIT", "RELEASE")) == 2
    assert [r["reason"] for r in _records(plan, home, "REFUSAL")] == [
        "another request for gram in round 2 was paid for"
    ]


def test_agent_killed_before_its_release_completes_the_round_under_one_debit(
    agent, plan, home, monkeypatch
):
    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "record_release", die)
    with pytest.raises(KeyboardInterrupt):
        agent.run_round(_request(plan, "gram"))
    monkeypatch.undo()
    unsent = home.outbox("gram", 2, 1).read_bytes()
    with pytest.raises(RefusalError, match="another request"):
        agent.run_round(_request(plan, "gram", head=HEAD[::-1].copy()))
    assert home.outbox("gram", 2, 1).read_bytes() == unsent
    sent = agent.run_round(_request(plan, "gram"))
    assert sent != unsent
    assert home.outbox("gram", 2, 1).read_bytes() == sent
    assert len(_records(plan, home, "DEBIT", "RELEASE")) == 2


def test_agent_pays_again_for_another_attempt_until_the_budget_ends(agent, plan, home):
    agent.run_round(_request(plan, "gram"))
    with pytest.raises(BudgetError):
        agent.run_round(_request(plan, "gram", attempt=2))
    assert len(_records(plan, home, "DEBIT", "RELEASE")) == 2


def test_agent_does_not_release_again_when_its_bytes_are_lost(agent, plan, home):
    agent.run_round(_request(plan))
    home.outbox("popularity", 1, 1).unlink()
    with pytest.raises(BudgetError, match="bytes are gone"):
        agent.run_round(_request(plan))
    assert len(_records(plan, home, "RELEASE")) == 1
    assert _records(plan, home, "REFUSAL")[0]["code"] == "bytes-gone"


def test_agent_does_not_send_bytes_that_were_changed(agent, plan, home):
    agent.run_round(_request(plan))
    home.outbox("popularity", 1, 1).write_bytes(b"something else")
    with pytest.raises(BudgetError, match="bytes are gone"):
        agent.run_round(_request(plan))


def test_agent_does_not_start_a_new_ledger_where_numbers_were_released(agent, plan, home):
    agent.run_round(_request(plan))
    for path in home.ledger.parent.iterdir():
        path.unlink()
    with pytest.raises(LedgerError, match="restore it"):
        agent.run_round(_request(plan))
    assert not home.ledger.exists()


REFUSED = [
    {"plan_digest": "sha256:another"},
    {"code_digest": "sha256:another"},
    {"round_num": 2},
    {"round_num": 0},
    {"kind": "gram", "head": HEAD, "round_num": 1},
    {"kind": "gram", "head": np.array([0, 0, 1, 2]), "round_num": 2},
    {"kind": "gram", "head": np.array([0, 1, 2, 5]), "round_num": 2},
    {"kind": "gram", "head": np.array([0, 1, 2, -1]), "round_num": 2},
]


@pytest.mark.parametrize("changes", REFUSED, ids=str)
def test_agent_refuses_and_records_what_the_plan_does_not_allow(agent, plan, home, changes):
    with pytest.raises(RefusalError):
        agent.run_round(_request(plan, **changes))
    assert not _records(plan, home, "DEBIT", "RELEASE")
    assert len(_records(plan, home, "REFUSAL")) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "counts"},
        {"attempt": -1},
        {"attempt": 2**60},
        {"head": HEAD},
        {"kind": "gram", "round_num": 2, "head": HEAD[:3]},
    ],
    ids=str,
)
def test_agent_refuses_a_malformed_request_before_it_opens_the_ledger(agent, plan, home, changes):
    with pytest.raises(CodecError):
        agent.run_round(_request(plan, **changes))
    assert not home.ledger.exists()


def test_agent_refuses_seeded_noise_outside_of_a_simulation(
    make_agent, make_plan, make_roster, owner, home
):
    plan = make_plan(trust="silo", **make_roster(mode="deploy"))
    assert make_agent(plan, home, identity=owner).silo_id == "north"
    with pytest.raises(RefusalError, match="protects nobody"):
        make_agent(plan, home, seed=0, identity=owner)
    with pytest.raises(RefusalError, match="owner's key"):
        make_agent(plan, home)


def test_agent_refuses_a_plan_for_other_code(make_agent, plan, home):
    with pytest.raises(RefusalError, match="other"):
        make_agent(replace(plan, code_digest="sha256:other"), home)


def test_agent_refuses_statistics_that_it_cannot_compute(make_agent, make_plan, home):
    with pytest.raises(RefusalError, match="counts"):
        make_agent(make_plan([("counts", 1, 1)]), home)


def test_agent_refuses_another_silos_ledger(make_agent, agent, plan, home):
    agent.status()
    other = make_agent(plan, home, _dataset("south"))
    with pytest.raises(LedgerError, match="another"):
        other.status()


@pytest.mark.parametrize("pairs", [(), [(0, item) for item in range(5)] * 2_000, PAIRS])
def test_agents_answer_has_one_size_whatever_its_customers_did(make_agent, plan, tmp_path, pairs):
    agent = make_agent(plan, SiloHome(tmp_path, "north"), _dataset(pairs=pairs))
    sizes = [len(agent.run_round(_request(plan, kind))) for kind in ("popularity", "gram")]
    plain = make_agent(plan, SiloHome(tmp_path / "plain", "north"))
    assert sizes == [len(plain.run_round(_request(plan, kind))) for kind in ("popularity", "gram")]


def test_agents_status_holds_public_facts(agent, plan, home):
    status = _read(plan, agent.status(), SiloStatus)
    assert (status.silo_id, status.plan_digest) == ("north", plan.digest)
    with Ledger(home.ledger, OWNER, plan) as ledger:
        assert (status.ledger_seq, status.ledger_digest) == (
            2,
            f"sha256:{ledger.chain.head.root.hex()}",
        )


def test_agent_takes_over_the_global_model_and_clears_its_outbox(agent, plan, home, make_model):
    agent.run_round(_request(plan))
    agent.run_round(_request(plan, attempt=2))
    agent.receive(make_model(plan))
    assert np.array_equal(agent.model.head, HEAD)
    assert not list(home.sent.glob("*.bin"))


@pytest.mark.parametrize("name", ["plan_digest", "catalogue_digest"])
def test_agent_refuses_a_model_of_another_plan_or_catalogue(agent, plan, name, make_model):
    with pytest.raises(RefusalError, match="another plan or catalogue"):
        agent.receive(make_model(plan, **{name: "sha256:another"}))
    assert agent.model is None


def test_agents_files_are_for_its_owner_alone(agent, plan, home):
    agent.run_round(_request(plan))
    files = [home.ledger, home.outbox("popularity", 1, 1), home.sent / "lock"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_agents_of_one_silo_wait_for_each_other(make_agent, agent, plan, home):
    agent.status()
    blobs = []
    threads = [
        threading.Thread(
            target=lambda: blobs.append(make_agent(plan, home).run_round(_request(plan)))
        )
        for _ in range(3)
    ]
    handle = os.open(home.sent / "lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    for thread in threads:
        thread.start()
    assert not _records(plan, home, "DEBIT")
    os.close(handle)
    for thread in threads:
        thread.join()
    assert len(blobs) == 3
    assert len(set(blobs)) == 1


def test_failure_while_computing_spends_the_debit_and_says_nothing(agent, plan, home, monkeypatch):
    def fail(*args):
        raise ValueError("ann bought 7")

    monkeypatch.setattr(agent_module, "clipped_sum", fail)
    with pytest.raises(ValueError, match="ann") as caught:
        agent.run_round(_request(plan))
    assert "ann" not in public_reason(caught.value)
    assert len(_records(plan, home, "DEBIT")) == 1
    assert not _records(plan, home, "RELEASE")
