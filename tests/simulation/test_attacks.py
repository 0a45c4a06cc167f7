"""Attacks on the real mechanisms: right code stays below its claim, broken code does not."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from typer.testing import CliRunner

from fondaco.server.checkpoint import RoundResult
from fondaco.server.learning import Learner
from fondaco.shared.calibration import gaussian_mu
from fondaco.shared.errors import ConfigError, PrivacyError
from fondaco.shared.privacy.accountant import as_dp_event, gaussian_delta
from fondaco.shared.privacy.events import EVERYBODY, Mechanism
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.privacy.plan import GRID
from fondaco.simulation.attacks import ATTACKS, TARGETS, attack, make_order, results_table
from fondaco.simulation.attacks.canaries import audit, coins, observe
from fondaco.simulation.attacks.gradient_targets import GradientTarget, gradients_of
from fondaco.simulation.attacks.mechanisms import BROKEN, RIGHT, Claim, controls, noisy_sum
from fondaco.simulation.attacks.membership import (
    AT_HOME,
    FUSED,
    GLOBAL,
    LOUD_COPIES,
    Signals,
    Sizes,
    infer,
)
from fondaco.simulation.attacks.reconstruction import (
    KNOWS_ALL,
    KNOWS_HALF,
    KNOWS_NONE,
    SUM,
    GradientStatistic,
    GramStatistic,
    reconstruct,
    success,
    views_of,
)
from fondaco.simulation.attacks.session import SETTINGS
from fondaco.simulation.attacks.targets import GramTarget
from fondaco.simulation.attacks.verdicts import membership_sizes
from fondaco.simulation.attacks.world import Federation, load_world

DELTA = 1e-5
SMALL = [
    "dataset.n_users=700",
    "dataset.n_items=150",
    "dataset.declared_users=700",
    "privacy.head=64",
]


def _order(settings=(), **changes):
    named = {"attacks": [], "targets": [], "epsilons": [], "runs": 1, "quick": True, "seed": 0}
    return make_order("synthetic", [*SMALL, *settings], **(named | changes))


def _everybody(n_users):
    return NoiseStream.seeded(0).sample(n_users, EVERYBODY)


@pytest.fixture(scope="module")
def world():
    return load_world(_order().scenario)


@pytest.fixture(scope="module")
def gram_target(world):
    plan = world.plan("gram")
    head = Federation(world=world, plan=plan, seed=0).base(world.baskets).model.head
    return GramTarget(world, 150, 600, head, np.random.default_rng(0), grid=plan.grid)


@pytest.fixture(scope="module")
def gradients(world):
    return {
        kind: gradients_of(world, kind, 0, epsilon=4.0, rounds=20) for kind in ("mf", "autoencoder")
    }


@pytest.fixture(scope="module")
def mf_target(world, gradients):
    rng = np.random.default_rng(0)
    return GradientTarget(world, 150, 600, gradients["mf"], rng, crafted=True)


def test_what_the_auditor_thinks_of_a_canary_is_what_the_core_adds(gram_target):
    """Up to the core's rounding down, below a grid unit for each of the numbers."""
    parts = gram_target.parts.toarray()
    for num in (0, 17, 599):
        added = gram_target.clipped([gram_target.canaries[num]]).values / gram_target.grid
        assert np.abs(added - parts[num]).max() < 2 / gram_target.grid
    assert np.linalg.norm(parts, axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["mf", "autoencoder"])
def test_a_crafted_canary_moves_the_sum_by_the_whole_sensitivity(world, gradients, kind):
    rng = np.random.default_rng(0)
    target = GradientTarget(world, 20, 40, gradients[kind], rng, crafted=True)
    sums = [
        run.clipped(_everybody(run.n_users)).values
        for run in (target.start(np.arange(40) == 3), target.start(np.zeros(40, dtype=bool)))
    ]
    moved = (sums[0] - sums[1]) / target.grid
    assert 0.99 < np.linalg.norm(moved) <= 1.0
    assert np.argmax(np.abs(moved)) == target.coordinates[3]


@pytest.mark.parametrize("kind", ["mf", "autoencoder"])
def test_data_canaries_go_through_the_clients_own_sum(world, gradients, kind):
    """`client.training` gives what the gradients that the auditor looks along add up to."""
    rng = np.random.default_rng(0)
    target = GradientTarget(world, 20, 30, gradients[kind], rng, crafted=False)
    run = target.start(np.ones(30, dtype=bool))
    sample = _everybody(run.n_users)
    total = np.zeros(gradients[kind].dim)
    for users, layers in run._sampled(sample):
        squares = np.sum([layer.in_float64().squared_norms() for layer in layers], axis=0)
        weights = 1 / np.maximum(np.sqrt(squares), gradients[kind].clip_norm)
        assert len(users) == len(weights)
        total += run._added_up(layers, weights)
    found = run.clipped(sample).values / target.grid
    assert np.linalg.norm(found - total) < 2e-3 * np.linalg.norm(total)


def test_noisy_sum_adds_the_cores_noise(gram_target):
    total = gram_target.clipped(gram_target.base)
    noisy = noisy_sum(total, 2 * gram_target.grid, NoiseStream.seeded(0)) - total.values
    assert noisy.dtype == np.int64
    assert noisy.std() == pytest.approx(2.0 * gram_target.grid, rel=0.1)


@pytest.mark.parametrize("kind", ["gram", "mf"])
def test_everything_is_on_the_plans_grid(gram_target, mf_target, kind):
    """Plans whose sums fit into 32 bits have a coarser grid than others."""
    target = {"gram": gram_target, "mf": mf_target}[kind]
    assert target.grid == 2**18 != GRID
    run = target.start(np.zeros(600, dtype=bool))
    assert run.clipped(_everybody(run.n_users)).sens_grid == target.grid


def test_a_claim_on_another_grid_is_refused(gram_target):
    claim = Claim.calibrated(2.0, DELTA, EVERYBODY, 1, grid=GRID)
    with pytest.raises(PrivacyError, match="a sum on the grid 262144 met a claim on 1048576"):
        observe(gram_target, RIGHT, claim, 0)


def test_the_server_learns_what_was_released_whatever_the_grid(mf_target):
    of = mf_target.gradients
    released = np.random.default_rng(0).normal(size=of.dim)
    learner = Learner("mf", of.plan, of.facts)
    total = np.rint(released * of.plan.grid).astype(np.int64)
    learner.absorb(RoundResult(kind="mf", round_num=2, total=total, present=("a",), dropped=()))
    run = mf_target.start(np.zeros(600, dtype=bool))
    run.move(released)
    assert np.array_equal(run._learner.parameters, learner.parameters)


def test_an_audit_is_the_same_for_the_same_seed(mf_target):
    claim = Claim.calibrated(2.0, DELTA, 200_000, 3, grid=mf_target.grid)
    first, again, other = (observe(mf_target, RIGHT, claim, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first.scores[name], again.scores[name]) for name in first.scores)
    assert not np.array_equal(first.included, other.included)


def test_coins_are_fair_and_independent_of_other_draws():
    assert 0.45 < coins(2000, 0).mean() < 0.55
    assert not np.array_equal(coins(50, 0), np.random.default_rng(0).random(50) < 0.5)


def test_only_sampled_claims_are_broken_by_not_sampling():
    assert set(controls(Claim.calibrated(2.0, DELTA, 200_000, 3, grid=GRID))) == set(BROKEN)
    whole = controls(Claim.calibrated(2.0, DELTA, EVERYBODY, 1, grid=GRID))
    assert set(BROKEN) - set(whole) == {"no sampling"}


def _check(found, claim, shares):
    """Both bounds below the claim on right code, the stronger one above it on broken code."""
    assert all(max(found.right[name]) < claim.epsilon for name in ("one-run", "one-run f-dp"))
    for control, values in found.broken.items():
        caught = sum(value > claim.epsilon for value in values["one-run f-dp"])
        assert caught >= shares * len(values["one-run f-dp"]), control


def test_gram_audit_tells_right_from_broken(gram_target):
    claim = Claim.calibrated(2.0, DELTA, EVERYBODY, 1, grid=gram_target.grid)
    _check(audit(gram_target, claim, 2, 0, lambda: None), claim, 1.0)


def test_sampled_gradient_audit_tells_right_from_broken(mf_target):
    claim = Claim.calibrated(1.0, DELTA, 200_000, 20, grid=mf_target.grid)
    _check(audit(mf_target, claim, 1, 0, lambda: None), claim, 1.0)


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_sampled_claims_lie_below_the_gaussian_that_is_refuted(epsilon):
    """What the bound by the trade-off curve rests on; the first few per mille are the PLD's."""
    claim = Claim.calibrated(epsilon, DELTA, 200_000, 30, grid=GRID)
    mechanism = Mechanism(Fraction(claim.stddev_grid, GRID), 200_000, 30)
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(as_dp_event((mechanism,)))
    mu = gaussian_mu(claim.epsilon, DELTA)
    for part in np.linspace(0, 1, 9):
        smaller = part * claim.epsilon
        assert accountant.get_delta(smaller) <= 1.005 * gaussian_delta(smaller, mu)


def test_ratios_never_look_at_their_own_shadow():
    included = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=bool)
    signal = np.array([[2.0, 0.0], [3.0, 2.0], [0.0, 1.0], [1.0, 3.0]])
    ratios = Signals(included=included, signal=signal).ratios()
    others = Signals(
        included=included, signal=signal + np.array([[9.0, 0], [0, 0], [0, 0], [0, 0]])
    )
    assert ratios.shape == (4, 2)
    assert ratios[0, 0] > 0 > ratios[2, 0]
    assert others.ratios()[0, 0] != ratios[0, 0]


def test_membership_shows_without_privacy_and_hides_with_it(world):
    """Too few shadows for rates of a per cent; those are looked at in a slow test."""
    sizes = Sizes(n_base=200, n_targets=60, n_shadows=6)
    plan = world.plan("gram", "mf")
    rng = np.random.default_rng(0)
    bare, private = (
        infer(world, plan, sizes, 0, lambda: None, systems=(GLOBAL,), copies=copies)[GLOBAL].rates(
            rng
        )
        for copies in (LOUD_COPIES, 1)
    )
    assert bare["auc"]["low"] > 0.65
    assert bare["tpr at fpr 0.01"]["value"] > 0.1
    assert private["auc"]["low"] < 0.55


def test_success_can_be_checked_by_hand():
    own = np.array([True, False, True, False])
    assert success(np.array([4.0, 3.0, 2.0, 1.0]), own) == (0.75, 0.5)
    assert success(np.zeros(3), np.zeros(3, dtype=bool)) == (0.5, 0.0)


def _statistic(world, gradients, kind):
    if kind == "gram":
        plan = world.plan("gram")
        head = Federation(world=world, plan=plan, seed=0).base(world.baskets).model.head
        return GramStatistic(head, plan.n_items, plan.grid), plan
    of = gradients[kind]
    return GradientStatistic(of, Learner(kind, of.plan, of.facts).parameters), of.plan


@pytest.mark.parametrize("kind", ["gram", "mf", "autoencoder"])
def test_reconstruction_works_without_noise_and_fails_with_it(world, gradients, kind):
    statistic, plan = _statistic(world, gradients, kind)
    event = next(event for event in plan.releases if event.kind == kind)
    views = views_of(plan, world.scenario.seed)

    def attacked(knows):
        found = reconstruct(
            statistic,
            event,
            (world.baskets[:40], world.baskets[40:360]),
            15,
            0,
            views=views,
            knows=knows,
            popularity=np.ones(len(statistic.head)),
            tell=lambda: None,
        )
        return {view: each.auc.mean() for view, each in found.items()}

    told = {knows: attacked(knows) for knows in (KNOWS_ALL, KNOWS_HALF, KNOWS_NONE)}
    assert told[KNOWS_ALL]["no noise"] > 0.97
    assert told[KNOWS_HALF]["no noise"] > 0.97
    assert told[KNOWS_NONE]["no noise"] < 0.9
    assert told[KNOWS_ALL]["full noise"] < 0.65
    assert told[KNOWS_HALF]["full noise"] < 0.75
    assert told[KNOWS_ALL][SUM] < 0.65
    assert told[KNOWS_HALF][SUM] < 0.75
    assert all(0.35 < auc["masked"] < 0.65 for auc in told.values())


def test_document_has_the_promised_shape(tmp_path):
    order = _order(attacks=["one-run", "cosine", "reconstruction"], targets=["gram"])
    told = []
    document = attack(order, lambda *step: told.append(step))
    assert json.loads(json.dumps(document)) == document
    assert (document["schema"], document["kind"]) == (1, "attacks")
    assert document["code_digest"].startswith("sha256:")
    assert [claim["target"] for claim in document["claims"]] == ["gram"]
    keys = {"attack", "target", "claim_epsilon", "delta", "estimate", "value", "confidence"}
    keys |= {"verdict", "power", "false_alarms", "settings"}
    assert all(set(row) == keys for row in document["results"])
    bounds = [row for row in document["results"] if row["estimate"] == "lower bound"]
    assert {row["verdict"] for row in bounds} == {"below claim"}
    assert all(row["settings"]["canaries"] == 2000 for row in bounds)
    views = {row["target"] for row in document["results"] if "reconstruction" in row["attack"]}
    assert views == {"gram share", "gram masked", "gram sum", "gram full noise"}
    assert all(done <= of for _, done, of in told)
    assert results_table(document).row_count == len(document["results"])


def test_unknown_names_and_impossible_pairs_are_refused():
    with pytest.raises(ConfigError, match="unknown attack 'one-rum'; did you mean 'one-run'"):
        _order(attacks=["one-rum"])
    with pytest.raises(ConfigError, match="unknown target"):
        _order(targets=["grammar"])
    with pytest.raises(ConfigError, match="runs=0 must be at least 1"):
        _order(runs=0)
    with pytest.raises(ConfigError, match="can be attacked"):
        attack(_order(attacks=["membership"], targets=["gram"]), lambda *_: None)


def test_too_few_customers_are_refused(world):
    with pytest.raises(ConfigError, match="customers are needed"):
        replace(world, baskets=world.baskets[:5]).drawn(6, np.random.default_rng(0))


def test_membership_makes_do_with_fewer_customers():
    order = _order(quick=False)
    assert membership_sizes(order, 2000) == Sizes(n_base=400, n_targets=200, n_shadows=24)
    assert membership_sizes(order, 643) == Sizes(n_base=343, n_targets=200, n_shadows=24)
    assert membership_sizes(order, 300).n_base == 200  # too few: refused when they are drawn


def test_every_target_has_settings_and_an_attack():
    assert set(SETTINGS) == set(TARGETS)
    assert set(TARGETS) == {target for entry in ATTACKS.values() for target in entry.targets}


def test_command_writes_what_it_prints(tmp_path):
    from fondaco.simulation.cli import app  # noqa: PLC0415  (Flower warns before pytest is ready)

    out = tmp_path / "attacks.json"
    command = ["attack", "--quick", "--attack", "reconstruction", "--target", "mf", "--json"]
    settings = [part for setting in SMALL for part in ("--set", setting)]
    ran = CliRunner().invoke(app, [*command, "--out", str(out), *settings])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout) == json.loads(out.read_text())


@pytest.mark.slow
def test_membership_of_fused_recommendations_meets_the_gate(world):
    """At epsilon 4 a TPR of 3 % at most at 1 % FPR; without privacy an AUC of .65 at least."""
    sizes = Sizes(n_base=200, n_targets=100, n_shadows=12)
    plan = world.plan("gram", "mf")
    rng = np.random.default_rng(0)
    systems = (GLOBAL, FUSED, AT_HOME)
    private = infer(world, plan, sizes, 0, lambda: None, systems=systems)
    bare = infer(world, plan, sizes, 0, lambda: None, systems=(FUSED,), copies=LOUD_COPIES)
    for system in (GLOBAL, FUSED):
        assert private[system].rates(rng)["tpr at fpr 0.01"]["value"] <= 0.03
    shown = bare[FUSED].rates(rng)["auc"]
    assert shown["value"] >= 0.65
    assert shown["low"] > 0.6
    assert private[AT_HOME].rates(rng)["auc"]["value"] > 0.65


@pytest.mark.slow
def test_audits_find_every_control_in_four_of_five_runs(world, gram_target, mf_target):
    for epsilon in (1.0, 4.0):
        for target, ppm, rounds in ((gram_target, EVERYBODY, 1), (mf_target, 200_000, 20)):
            claim = Claim.calibrated(epsilon, DELTA, ppm, rounds, grid=target.grid)
            _check(audit(target, claim, 5, 10, lambda: None), claim, 0.8)
