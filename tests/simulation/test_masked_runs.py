"""Whole simulations whose sums are masked: the same numbers as without, and what they say."""

import gc
import warnings

import pytest

from fondaco.server import planning
from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.simulation.run import prepare

SIMULATED = 'privacy.secure_aggregation="simulated"'
HYBRID = 'privacy.key_agreement="x25519-mlkem768"'


def _totals(simulation):
    return [(r.kind, r.present, r.total.tolist()) for r in simulation.outcome.rounds]


@pytest.fixture
def one_grid(monkeypatch):
    """Masked sums on the grid of plain ones: then both can be compared bit for bit."""
    monkeypatch.setattr(planning, "_short_grid", lambda *given: 0)


def test_masked_and_simulated_runs_give_the_same_totals(one_grid, run_tiny, tmp_path):
    masked = run_tiny(tmp_path / "masked")
    plain = run_tiny(tmp_path / "plain", SIMULATED)
    assert masked.prepared.plan.secure_aggregation == "masked-sum"
    assert masked.prepared.plan.ring_bits == 64
    assert plain.prepared.plan.secure_aggregation == "simulated"
    assert masked.prepared.plan.grid == plain.prepared.plan.grid
    assert _totals(masked) == _totals(plain)
    assert masked.result["quality"] == plain.result["quality"]


@pytest.mark.slow
def test_masked_runs_with_network_models_give_the_same_totals(one_grid, run_tiny, tmp_path):
    """Gradients, and the statistic of the mix, go under masks too."""
    models = ('models=["gram", "mf"]', "mf.rounds=2", "privacy.epsilon=50")
    masked = run_tiny(tmp_path / "masked", *models)
    plain = run_tiny(tmp_path / "plain", SIMULATED, *models)
    assert {kind for kind, _, _ in _totals(masked)} >= {"popularity", "gram", "mf"}
    assert _totals(masked) == _totals(plain)


@pytest.mark.parametrize("count", [3, 5, 20])
@pytest.mark.parametrize("declared_users", [120, 3_000, 1_000_000])
def test_ring_holds_a_silo_that_has_all_declared_customers(tiny_scenario, count, declared_users):
    settings = (f"silos.count={count}", f"dataset.declared_users={declared_users}")
    plan = prepare(tiny_scenario(*settings)).plan
    assert plan.secure_aggregation == "masked-sum"
    assert plan.ring_bits == (32 if declared_users < 10_000 else 64)
    for event in plan.releases:
        assert plan.sum_bound(event) >= declared_users * plan.grid


def test_hybrid_run_gives_the_numbers_of_a_plain_one(run_tiny, tiny_run, tmp_path):
    hybrid = run_tiny(tmp_path, HYBRID)
    assert hybrid.prepared.plan.key_agreement == "x25519-mlkem768"
    assert _totals(hybrid) == _totals(tiny_run)
    assert hybrid.result["privacy"]["secure_aggregation"] == "masked-sum"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((), "masked-sum"),
        (('privacy.secure_aggregation="masked-sum"',), "masked-sum"),
        ((SIMULATED,), "simulated"),
        (("silos.count=3",), "masked-sum"),
        (("silos.count=2",), "simulated"),
        (("privacy.trust=silo",), "none"),
    ],
    ids=str,
)
def test_result_says_how_single_shares_are_hidden(run_tiny, tmp_path, settings, expected):
    simulation = run_tiny(tmp_path, *settings)
    assert simulation.result["privacy"]["secure_aggregation"] == expected
    hidden = {"masked-sum": True}.get(expected, False)
    for agent in simulation.agents:
        with Ledger(agent._home.ledger, agent._identity, agent.plan) as ledger:
            assert all(bool(r["masked"]) == hidden for r in ledger.chain.of_type("RELEASE"))
            releases, unmasks = (len(ledger.chain.of_type(t)) for t in ("RELEASE", "UNMASK"))
        assert unmasks == (releases if hidden else 0)
    assert not any((tmp_path / "sessions").glob("*"))
    assert not any((tmp_path / "journals").glob("*"))


IMPOSSIBLE = {
    "masked among two": (
        ("silos.count=2", 'privacy.secure_aggregation="masked-sum"'),
        ("secure_aggregation", "masked-sum"),
    ),
    "masked where each silo adds all noise": (
        ("privacy.trust=silo", 'privacy.secure_aggregation="masked-sum"'),
        ("privacy.secure_aggregation", "masked-sum", "trust"),
    ),
    "unknown way": (
        ('privacy.secure_aggregation="magic"',),
        ("privacy.secure_aggregation", "magic"),
    ),
    "unknown key agreement": (('privacy.key_agreement="rsa"',), ("key_agreement", "rsa")),
    "unknown key agreement of masks": (
        ('privacy.key_agreement="rsa"', 'privacy.secure_aggregation="masked-sum"'),
        ("key_agreement", "rsa"),
    ),
    "unknown key agreement without masks": (
        ('privacy.key_agreement="rsa"', SIMULATED),
        ("key_agreement", "rsa"),
    ),
    "too few must remain": (
        ("silos.min_present=2", 'privacy.secure_aggregation="masked-sum"'),
        ("secure_aggregation", "masked-sum"),
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_request_is_refused_in_one_line_with_knob_and_value(tiny_scenario, name):
    settings, words = IMPOSSIBLE[name]
    with pytest.raises(ConfigError) as caught:
        prepare(tiny_scenario(*settings))
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


@pytest.mark.slow
def test_ray_engine_gives_a_masked_run_of_the_in_process_one(run_tiny, tmp_path):
    three = ("silos.count=3", "engine.deadline_s=120")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of files that Ray never closes
        ray = run_tiny(tmp_path / "ray", "engine.kind=ray", *three)
        gc.collect()
    here = run_tiny(tmp_path / "here", *three)
    assert ray.prepared.plan.digest == here.prepared.plan.digest
    assert ray.result["privacy"]["secure_aggregation"] == "masked-sum"
    assert _totals(ray) == _totals(here)
    assert ray.result["model_digest"] == here.result["model_digest"]
    assert ray.result["quality"] == here.result["quality"]
    assert ray.outcome.dropped == ()
    assert not any((tmp_path / "ray" / "sessions").glob("*"))
