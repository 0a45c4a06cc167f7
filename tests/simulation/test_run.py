import json
from dataclasses import replace

import numpy as np
import pytest

from fondaco.client import dataset_files
from fondaco.client.dataset_files import load_silo
from fondaco.client.state import open_state
from fondaco.server.app import Outcome
from fondaco.server.global_model import model_digest
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.errors import ConfigError, RoundError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.workspace import Workspace
from fondaco.simulation import ray_engine
from fondaco.simulation import run as runs

OWNER = Identity.seeded(0, key_name("north"))

UNSTABLE = ("machine", "timings_s", "peak_rss_bytes")


def _stable(simulation):
    kept = {name: value for name, value in simulation.result.items() if name not in UNSTABLE}
    kept["models"] = {name: facts | {"train_s": 0} for name, facts in kept["models"].items()}
    return json.loads(json.dumps(kept))


def _records(folder, plan):
    """Type of every record of every ledger, in order, but for signatures under others' heads."""
    found = {}
    for path in sorted((folder / "ledgers").glob("*.db")):
        with Ledger(path, Identity.seeded(0, key_name(path.stem)), plan) as ledger:
            types = [record["type"] for record in ledger.records()]
            found[path.stem] = [kind for kind in types if kind != "COSIGN"]
    return found


def test_same_seed_gives_the_same_result(tiny_run, run_tiny, tmp_path):
    assert _stable(run_tiny(tmp_path)) == _stable(tiny_run)


def test_another_seed_gives_another_model_and_cut(tiny_run, run_tiny, tmp_path):
    other = run_tiny(tmp_path, "seed=1")
    assert other.result["model_digest"] != tiny_run.result["model_digest"]
    assert other.result["quality"] != tiny_run.result["quality"]


def test_passing_messages_as_bytes_changes_nothing(tiny_run, run_tiny, tmp_path):
    other = run_tiny(tmp_path, "engine.serialise=true")
    assert other.result["model_digest"] == tiny_run.result["model_digest"]
    assert other.result["quality"] == tiny_run.result["quality"]


def test_noise_shares_add_up_to_the_planned_noise(tiny_run):
    """The sum of all releases minus the sum of all clipped sums has the planned deviation."""
    plan, (popularity, gram) = tiny_run.prepared.plan, tiny_run.outcome.rounds
    event = plan.event_for("gram", 2)
    exact = np.zeros(event.dim)
    for silo in tiny_run.prepared.silos:
        taken = silo.train.incidence(silo.n_users, silo.n_items)[:, tiny_run.outcome.model.head]
        lengths = np.maximum(np.asarray(taken.sum(axis=1)).ravel(), 1)
        matrix = (taken.multiply(1 / lengths[:, None]).T @ taken).toarray()
        upper = matrix[np.triu_indices(len(matrix), 1)]
        exact += np.concatenate([np.diag(matrix), np.sqrt(2) * upper])
    noise = gram.total / plan.grid - exact
    stddev = event.silo_stddev_grid * np.sqrt(len(popularity.present)) / plan.grid
    # 210 draws: the ratio's deviation is 0.05, a false alarm beyond five of them is 6e-7.
    assert noise.std() == pytest.approx(stddev, rel=0.25)


def test_trust_silo_adds_more_noise_and_says_so(tiny_run, run_tiny, tmp_path):
    six = ("silos.count=6", "privacy.epsilon=8")
    silo = run_tiny(tmp_path / "silo", "privacy.trust=silo", *six).result["privacy"]
    shared = run_tiny(tmp_path / "shared", *six).result["privacy"]
    assert (silo["trust"], silo["secure_aggregation"]) == ("silo", "none")
    assert (shared["trust"], shared["secure_aggregation"]) == ("aggregate", "masked-sum")
    for one, other in zip(silo["releases"], shared["releases"], strict=True):
        # Masked sums have a coarser grid, and noise is rounded up to a step of it.
        assert one["noise_multiplier"] == pytest.approx(other["noise_multiplier"], abs=2**-16)
        assert one["silo_noise_multiplier"] == one["noise_multiplier"]
        assert other["silo_noise_multiplier"] < other["noise_multiplier"]


def test_every_ledger_has_one_debit_per_release(tiny_run):
    out = tiny_run.agents[0]._home.folder
    found = _records(out, tiny_run.prepared.plan)
    assert sorted(found) == sorted(tiny_run.prepared.silo_ids)
    assert all(types.count("DEBIT") == 2 for types in found.values())


def test_running_again_in_the_folder_debits_nothing_more(run_tiny, tmp_path):
    first = run_tiny(tmp_path)
    before = _records(tmp_path, first.prepared.plan)
    again = run_tiny(tmp_path)
    assert _stable(again) == _stable(first)
    assert _records(tmp_path, again.prepared.plan) == before


def test_measuring_again_with_another_mix_keeps_the_model(run_tiny, tmp_path):
    first = run_tiny(tmp_path)
    again = run_tiny(tmp_path, "fusion.fuser=rank")
    assert again.result["model_digest"] == first.result["model_digest"]
    assert again.result["mix"] != first.result["mix"]


@pytest.mark.parametrize(
    "settings",
    [("seed=1",), ("privacy.epsilon=2",), ("silos.count=5",), ("privacy.trust=silo",)],
)
def test_a_folder_of_another_run_is_refused(tiny_run, run_tiny, settings):
    out = tiny_run.agents[0]._home.folder
    with pytest.raises(ConfigError, match="holds another run"):
        run_tiny(out, *settings)


@pytest.mark.parametrize("setting", ["dataset.n_users=121", "dataset.valid_from=2024-09-30"])
def test_a_folder_of_a_run_on_other_rows_is_refused(tiny_run, run_tiny, tmp_path, setting):
    """Public facts may be the same: rounds of other rows must not be taken for these."""
    out = tiny_run.agents[0]._home.folder
    with pytest.raises(ConfigError, match="holds a"):
        run_tiny(out, setting)


def test_what_cannot_be_measured_is_refused_before_anything_is_spent(run_tiny, tmp_path):
    for setting in (
        'baselines=["popularty"]',
        "evaluation.headline=mrr@10",
        "evaluation.headline=ndcg@101",
        "evaluation.headline=coverage@10",
        "evaluation.bootstrap=0",
        "evaluation.silos=-1",
        "seed=-1",
    ):
        with pytest.raises(ConfigError):
            run_tiny(tmp_path, setting)
    assert not any(tmp_path.iterdir())


def test_a_server_app_that_ends_without_a_result_is_an_error(tiny_scenario, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run_server_app", lambda app, grid: None)
    with pytest.raises(RoundError, match="without a result"):
        runs.simulate(runs.prepare(tiny_scenario()), tmp_path)


def test_a_silo_that_fails_is_named_and_the_others_go_on(tiny_scenario, tmp_path, monkeypatch):
    prepared = runs.prepare(tiny_scenario("silos.count=12", "dataset.n_users=240"))

    def broken(agent, *asked):
        if agent.silo_id == "merchant-03":
            raise OSError("disk of ann's till is full")
        return run_round(agent, *asked)

    run_round = runs.SiloAgent.run_round
    monkeypatch.setattr(runs.SiloAgent, "run_round", broken)
    result = runs.simulate(prepared, tmp_path).result
    assert {d["silo_id"] for d in result["dropped"]} == {"merchant-03"}
    assert [release["n_silos"] for release in result["privacy"]["releases"]] == [11, 11]
    assert "ann" not in json.dumps(result["dropped"])


def test_too_many_failures_end_the_run(tiny_scenario, tmp_path, monkeypatch):
    def broken(agent, *asked):
        raise OSError

    monkeypatch.setattr(runs.SiloAgent, "run_round", broken)
    with pytest.raises(RoundError, match="the plan needs 4"):
        runs.simulate(runs.prepare(tiny_scenario()), tmp_path)


def test_progress_is_told_stage_by_stage_to_the_end(tiny_scenario, tmp_path):
    told = []
    prepared = runs.prepare(tiny_scenario(), lambda *facts: told.append(facts))
    runs.simulate(prepared, tmp_path, lambda *facts: told.append(facts))
    last = {stage: (done, of) for stage, done, of in told}
    assert next(iter(last)) == "load"
    assert {"popularity", "gram", "personal models"} <= set(last)
    assert all(done == of for done, of in last.values())


def test_compare_loads_once_and_keeps_one_folder_per_budget(tiny_scenario, tmp_path, monkeypatch):
    loads = []
    load = runs.load
    monkeypatch.setattr(runs, "load", lambda *args: loads.append(args) or load(*args))
    results = runs.compare(tiny_scenario(), [1.0, 4.0], tmp_path)
    assert len(loads) == 1
    assert [round(r["privacy"]["epsilon"], 2) for r in results] == [1.0, 4.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epsilon-1", "epsilon-4"]
    alone = [r["quality"]["silo_alone"] for r in results]
    assert alone[0] == alone[1]


@pytest.mark.parametrize("text", ["", "a", "1,,2", "0", "-1", "1,nan", "inf"])
def test_budgets_that_are_no_positive_numbers_are_refused(text):
    with pytest.raises(ConfigError, match="--epsilon"):
        runs.parse_epsilons(text)


def test_budgets_are_read_in_order():
    assert runs.parse_epsilons("8, 1,2.5") == [8.0, 1.0, 2.5]


def test_a_prepared_workspace_holds_every_silo(tiny_scenario, tmp_path):
    prepared = runs.prepare(tiny_scenario())
    runs.write_workspace(prepared, tmp_path)
    runs.write_workspace(prepared, tmp_path)
    workspace = Workspace(tmp_path)
    assert workspace.read_plan() == prepared.plan
    assert workspace.read_silos() == (prepared.silo_ids, 0)
    assert all(workspace.silo(silo_id).is_dir() for silo_id in prepared.silo_ids)


def test_a_workspace_of_other_rows_is_refused(tiny_scenario, tmp_path):
    prepared = runs.prepare(tiny_scenario())
    runs.write_workspace(prepared, tmp_path)
    fewer = replace(prepared.silos[0], train=prepared.silos[1].train)
    with pytest.raises(ConfigError, match="other rows"):
        runs.write_workspace(replace(prepared, silos=[fewer, *prepared.silos[1:]]), tmp_path)


@pytest.mark.parametrize("changed", ["times", "validation"])
def test_a_workspace_of_other_times_or_validation_rows_is_refused(tiny_scenario, tmp_path, changed):
    """Models may read the clock, and the fusion's weights rest on validation rows."""
    prepared = runs.prepare(tiny_scenario())
    runs.write_workspace(prepared, tmp_path)
    first = prepared.silos[0]
    if changed == "times":
        other = replace(first, train=replace(first.train, times=first.train.times[::-1].copy()))
    else:
        other = replace(first, valid=prepared.silos[1].valid)
    with pytest.raises(ConfigError, match="other rows"):
        runs.write_workspace(replace(prepared, silos=[other, *prepared.silos[1:]]), tmp_path)


def test_outcome_model_is_the_saved_one(tiny_run):
    assert isinstance(tiny_run.outcome, Outcome)
    assert model_digest(tiny_run.outcome.model) == tiny_run.result["model_digest"]
    assert all(agent.model is not None for agent in tiny_run.agents)


def test_agents_have_the_model_of_a_run_in_other_processes(
    tiny_run, tiny_scenario, tmp_path, monkeypatch
):
    """Ray's processes have agents of their own; the driver's serve and are kept."""
    monkeypatch.setattr(ray_engine, "federate_with_ray", lambda job, silos: tiny_run.outcome)
    prepared = runs.prepare(tiny_scenario("engine.kind=ray"))
    agents = runs.simulate(prepared, tmp_path, keep_silos=True).agents
    assert all(model_digest(a.model) == tiny_run.result["model_digest"] for a in agents)
    folder = Workspace(tmp_path).silo(prepared.silo_ids[0])
    assert open_state(folder).recommend(str(prepared.silos[0].user_ids[0]), 3)


def test_a_prepare_killed_while_writing_a_silo_is_completed_by_the_next(
    tiny_scenario, tmp_path, monkeypatch
):
    prepared = runs.prepare(tiny_scenario())
    second = Workspace(tmp_path).silo(prepared.silo_ids[1])

    def die(path, *args, **kwargs):
        if second.name in str(path):
            raise KeyboardInterrupt
        return sha256(path)

    sha256 = dataset_files._sha256
    monkeypatch.setattr(dataset_files, "_sha256", die)
    with pytest.raises(KeyboardInterrupt):
        runs.write_workspace(prepared, tmp_path)
    assert [path.name for path in second.parent.iterdir()] == [prepared.silo_ids[0]]
    monkeypatch.undo()
    runs.write_workspace(prepared, tmp_path)
    assert len(load_silo(second).user_ids) == prepared.silos[1].n_users
