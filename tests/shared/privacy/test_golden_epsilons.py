"""Accountants over a golden table, against Opacus' PRV accountant and Balle & Wang's curve.

`tests/golden/epsilons.json` holds 15 settings: sampled, unsampled and mixed. Adding or removing
one customer throughout.
"""

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from opacus.accountants import PRVAccountant
from scipy import optimize, stats

from fondaco.shared.errors import BudgetError
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.events import EVERYBODY, Mechanism, PrivacyEvent
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import GRID

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "golden" / "epsilons.json").read_text(encoding="utf-8")
)
SETTINGS = GOLDEN["settings"]
PRV_ERROR = 0.01
# Opacus bounds PRV's domain by its own RDP, whose best order need not be among its orders.
pytestmark = pytest.mark.filterwarnings("ignore:Optimal order is the:UserWarning")

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting["name"])

ROUND = Mechanism(Fraction(2), 50_000)
ORDER, PER_ROUND, BUDGET, LAST = "8.2", 3_210_684, 1_703_473_072, 530


def _mechanisms(setting):
    return tuple(
        Mechanism(Fraction(multiplier), ppm, steps)
        for multiplier, ppm, steps in setting["mechanisms"]
    )


def _prv(mechanisms, delta):
    oracle = PRVAccountant()
    oracle.history = [
        (float(m.multiplier), m.sampling_ppm / EVERYBODY, m.steps) for m in mechanisms
    ]
    with np.errstate(divide="ignore"):  # it takes the logarithm of 1 - q, also of q = 1
        return oracle.get_epsilon(delta, eps_error=PRV_ERROR)


def _exact(mechanisms, delta):
    """Balle & Wang 2018, Theorem 8, of the joint mu, by scipy."""
    mu = math.sqrt(sum(m.steps / float(m.multiplier) ** 2 for m in mechanisms))

    def excess(epsilon):
        tail = math.exp(epsilon + stats.norm.logcdf(-epsilon / mu - mu / 2))
        return stats.norm.cdf(-epsilon / mu + mu / 2) - tail - delta

    return optimize.brentq(excess, 0, 100, xtol=1e-10)


def test_table_holds_fifteen_settings_sampled_unsampled_and_mixed():
    sampled = [{ppm != EVERYBODY for _, ppm, _ in s["mechanisms"]} for s in SETTINGS]
    assert len(SETTINGS) == len({s["name"] for s in SETTINGS}) == 15
    assert all(sampled.count(kind) >= 2 for kind in ({True}, {False}, {True, False}))
    assert sum(len(s["mechanisms"]) > 1 for s in SETTINGS) >= 5
    assert GOLDEN["adjacency"] == "add-or-remove-one"


@each_setting
def test_epsilons_are_those_of_the_table(setting):
    several, delta = _mechanisms(setting), float(setting["delta"])
    assert abs(accountant.epsilon_pld(several, delta) - float(setting["pld"])) < 1e-3
    assert abs(accountant.epsilon_rdp(several, delta) - float(setting["rdp"])) < 1e-3


@each_setting
def test_pld_lies_below_rdp_and_within_two_hundredths_of_prv(setting):
    several, delta = _mechanisms(setting), float(setting["delta"])
    pld, prv = accountant.epsilon_pld(several, delta), _prv(several, delta)
    assert pld <= accountant.epsilon_rdp(several, delta)
    assert abs(pld - prv) <= 0.02
    assert abs(prv - float(setting["prv"])) < 1e-3


@each_setting
def test_epsilon_never_lies_below_what_prv_can_vouch_for(setting):
    """PRV errs by its error at most, and by the table's rounding."""
    least = float(setting["prv"]) - PRV_ERROR - 1e-3
    assert accountant.epsilon_pld(_mechanisms(setting), float(setting["delta"])) >= least


@pytest.mark.parametrize(
    "setting",
    [s for s in SETTINGS if all(ppm == EVERYBODY for _, ppm, _ in s["mechanisms"])],
    ids=lambda setting: setting["name"],
)
def test_epsilon_without_sampling_is_the_exact_one(setting):
    several, delta = _mechanisms(setting), float(setting["delta"])
    exact = _exact(several, delta)
    assert -1e-6 < accountant.epsilon_pld(several, delta) - exact < 1e-3
    assert abs(accountant.epsilon_bound(several, delta) - exact) < 1e-6


def test_budget_of_the_example_is_rounded_down():
    """sigma = 2, q = .05, epsilon 3.2 at delta = 1e-6: 530 rounds fit, 531 do not."""
    assert accountant.epsilon_at(BUDGET, Fraction(ORDER), 1e-6) <= 3.2
    assert accountant.epsilon_at(BUDGET + 1, Fraction(ORDER), 1e-6) > 3.2
    assert accountant.rdp_units(ROUND, Fraction(ORDER)) == PER_ROUND
    assert BUDGET // PER_ROUND == LAST
    spent = accountant.epsilon_at(LAST * PER_ROUND, Fraction(ORDER), 1e-6)
    assert round(spent, 3) == 3.198


@pytest.fixture(scope="module")
def example(make_plan):
    """The 530 rounds as a plan."""
    releases = tuple(
        PrivacyEvent(
            kind="popularity",
            round_num=num,
            dim=5,
            sens_grid=GRID,
            stddev_grid=2 * GRID,
            silo_stddev_grid=2 * GRID,
            sampling_ppm=ROUND.sampling_ppm,
        )
        for num in range(1, LAST + 1)
    )
    return replace(
        make_plan(trust="silo"),
        releases=releases,
        order=ORDER,
        budget_units=LAST * PER_ROUND,
        target_epsilon="3.2",
    )


@pytest.mark.parametrize("attempts", [1, 2, 7])
def test_filter_stops_at_the_planned_round_and_never_later(tmp_path, example, owner, attempts):
    """However often each round is tried, 530 releases are granted and the 531st is refused."""
    with Ledger.open_or_create(tmp_path / "north.db", "north", owner, example) as ledger:
        for count in range(LAST):
            round_num, attempt = 1 + count // attempts, 1 + count % attempts
            ledger.debit("popularity", round_num, attempt, request="sha256:asked")
        assert ledger.spent_units() == LAST * PER_ROUND <= BUDGET
        for round_num, attempt in ((LAST, attempts + 1), (1, attempts + 1)):
            with pytest.raises(BudgetError):
                ledger.debit("popularity", round_num, attempt, request="sha256:asked")
        assert sum(record["type"] == "DEBIT" for record in ledger.records()) == LAST
