"""Golden numbers, and two ways to the same number."""

import math
from fractions import Fraction

import pytest

from fondaco.shared.audit.accounting import (
    Part,
    cost_of,
    exact_gaussian,
    rdp_epsilon,
    sampled_rdp,
    tight_epsilon,
)
from fondaco.shared.audit.losses import CLEAR, HONEST, SERVER, composed, loss, losses
from fondaco.shared.audit.plans import read_plan
from fondaco.shared.audit.promises import plan_problems
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.events import Mechanism

SAMPLED = Mechanism(Fraction(2), 50_000, 500)


@pytest.mark.parametrize(("k", "epsilon"), [(1, 2.87), (2, 6.29), (3, 10.14), (5, 19.05)])
def test_customer_of_silos_with_one_shared_sum_costs_golden_epsilon(k, epsilon):
    """A mixture of Gaussians with Binomial(k, q) contributions, delta 1e-6."""
    assert tight_epsilon([Part(SAMPLED, k, shared=True)], 1e-6) == pytest.approx(epsilon, abs=0.006)


@pytest.mark.parametrize(
    ("sigma", "ppm", "steps", "rdp", "pld"),
    [
        (1.0, 1_000_000, 10, 20.552, 19.424),
        (1.1, 10_000, 1000, 1.977, 1.753),
        (2.0, 50_000, 500, 3.102, 2.873),
        (4.0, 1_000_000, 100, 15.328, 14.451),
    ],
)
def test_epsilon_of_one_silo_is_golden(sigma, ppm, steps, rdp, pld):
    part = Part(Mechanism(Fraction(sigma), ppm, steps))
    assert rdp_epsilon([part], 1e-6) == pytest.approx(rdp, abs=1e-3)
    assert tight_epsilon([part], 1e-6) == pytest.approx(pld, abs=2e-3)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_unsampled_silos_cost_the_root_of_k_apart_and_k_in_one_sum(k):
    gaussian = Mechanism(Fraction(4))
    apart = tight_epsilon([Part(gaussian, k)], 1e-6)
    together = tight_epsilon([Part(gaussian, k, shared=True)], 1e-6)
    assert apart == pytest.approx(exact_gaussian(math.sqrt(k) / 4, 1e-6), rel=1e-9)
    assert together == pytest.approx(exact_gaussian(k / 4, 1e-6), rel=1e-9)


@pytest.mark.parametrize("ppm", [1_000, 50_000, 500_000])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("order", ["2/1", "8/1", "21/1"])
def test_own_integral_agrees_with_the_cost_that_plans_write(ppm, sigma, order):
    mechanism = Mechanism(Fraction(sigma), ppm, 3)
    units = accountant.rdp_units(mechanism, Fraction(order))
    own = 1e9 * sampled_rdp(mechanism, float(Fraction(order)))
    assert own - 1 <= units <= own * (1 + 1e-7) + 5
    assert cost_of(mechanism, Fraction(order)) == units


@pytest.mark.parametrize("order", ["3/2", "41/2"])
def test_cost_between_whole_orders_is_never_too_low(order):
    units = cost_of(SAMPLED, Fraction(order))
    assert units >= 1e9 * sampled_rdp(SAMPLED, float(Fraction(order))) - 1


def test_unsampled_cost_is_exact():
    assert cost_of(Mechanism(Fraction(3), steps=2), Fraction(10)) == math.ceil(10**9 * 20 / 18)


def test_two_accountants_agree_on_unlike_releases():
    mechanisms = (SAMPLED._replace(steps=20), Mechanism(Fraction(5)), Mechanism(Fraction(7)))
    own = tight_epsilon([Part(m) for m in mechanisms], 1e-6)
    assert own == pytest.approx(accountant.epsilon_pld(mechanisms, 1e-6), abs=1e-9)
    assert own <= rdp_epsilon([Part(m) for m in mechanisms], 1e-6)


def test_several_plans_cost_more_than_one_and_nothing_twice(kit):
    first = read_plan(kit.make_plan())
    raw = kit.make_plan(
        [kit.release("metric")],
        earlier=first.raw["releases"],
        earlier_digest=first.digest,
        target_epsilon="9.0",
    )
    second = read_plan(raw)
    assert len(list(composed([first, second]))) == 5
    assert len(list(composed([second]))) == 5
    both = loss([first, second], 1e-6, SERVER, 1)
    assert both.tight == pytest.approx(loss([second], 1e-6, SERVER, 1).tight)
    assert both.tight > loss([first], 1e-6, SERVER, 1).tight


def test_losses_follow_who_is_trusted(kit):
    half = kit.release(stddev=8 * 2**20, silo=6 * 2**20)
    plan = read_plan(kit.make_plan([half], cohort={"n_silos": 9, "n_min": 9, "t_collude": 3}))
    found = {(row.who, row.k): row.tight for row in losses([plan], 1e-6, most_silos=2)}
    assert found[HONEST, 1] < found[SERVER, 1] < found[CLEAR, 1]
    assert found[SERVER, 2] == pytest.approx(exact_gaussian(2 / 8, 1e-6))
    assert found[CLEAR, 2] == pytest.approx(exact_gaussian(math.sqrt(2) / 6, 1e-6))


def test_noise_of_each_silo_alone_costs_the_root_of_k(kit):
    plan = read_plan(kit.make_plan(trust="silo", secure_aggregation="none"))
    found = {row.who: row.tight for row in losses([plan], 1e-6) if row.k == 3}
    assert found[SERVER] == found[HONEST] == found[CLEAR]
    assert found[SERVER] == pytest.approx(exact_gaussian(math.sqrt(3 * 4) / 8, 1e-6))


BROKEN = {
    "budget": ({"budget_units": 1}, "budget"),
    "promise": ({"target_epsilon": "0.01"}, "promises"),
    "roster": ({"witnesses": 3}, "witnesses"),
    "open shares": ({"secure_aggregation": "none"}, "hides"),
    "cheap order": ({"order": "200/1"}, "attempts"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_plan_that_breaks_its_promise_is_found(name, kit):
    changes, word = BROKEN[name]
    assert any(word in problem for problem in plan_problems(read_plan(kit.make_plan(**changes))))


def test_plan_with_too_little_noise_is_found(kit):
    low = kit.release(stddev=8 * 2**20, silo=2**20)
    fine = kit.release(stddev=99)
    stepped = kit.release(steps=4)
    nobody = (fine, "nobody is protected")
    for event, word in [
        (low, "less noise"),
        (fine, "less noise"),
        (stepped, "local steps"),
        nobody,
    ]:
        plan = read_plan(kit.make_plan([event], target_epsilon="1e30", order="2/1"))
        assert any(word in problem for problem in plan_problems(plan))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 3},
        {"unit": "event"},
        {"hidden": 1},
        {"cohort": {"n_silos": 3, "n_min": 1, "t_collude": 1}},
        {"target_delta": "0"},
        {"expires": "soon"},
        {"roster": {"north": "north+0+0"}},
        {"releases": [{"kind": "gram"}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_unreadable_plan_is_refused(change, kit):
    with pytest.raises(ValueError, match=r".+"):
        read_plan({**kit.make_plan(), **change})
