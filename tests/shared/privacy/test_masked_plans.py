"""Masked sums in a plan: among whom, in which ring, and cut off where."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fondaco.shared.errors import ConfigError
from fondaco.shared.plan_text import from_toml, to_toml
from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.ledger import Debit
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.privacy.plan import MAX_STDDEV_GRID, Cohort, RunPlan
from fondaco.shared.privacy.release import release

RINGS = pytest.mark.parametrize("ring_bits", [32, 64])


class Extreme(NoiseStream):
    """Draws the largest noise there is; at angle 0 it is positive, at half a turn negative."""

    def __init__(self, turn):
        super().__init__(bytes(32), "test")
        self._turns = iter([0, turn])

    def _words(self, n):
        return np.full(n, next(self._turns), dtype=np.uint64)


LEFT, RIGHT = 2**63, 0


@pytest.fixture
def masked(make_plan, make_masked):
    return make_plan(**make_masked())


def test_masked_plan_survives_both_of_its_texts(masked):
    assert from_toml(to_toml(masked)) == RunPlan.from_json(masked.to_json()) == masked


@pytest.mark.parametrize("key_agreement", ["x25519", "x25519-mlkem768"])
def test_masks_let_silos_share_noise_in_a_deployment(make_plan, make_masked, key_agreement):
    terms = make_masked(mode="deploy", witnesses=2, key_agreement=key_agreement)
    assert make_plan(**terms).trust == "aggregate"


POOR = {
    "noise of each silo": {"trust": "silo"},
    "no key agreement": {"key_agreement": ""},
    "no ring": {"ring_bits": 0},
    "no roster": {"roster": {}, "coordinator": ""},
    "unknown ring": {"ring_bits": 16},
    "unknown key agreement": {"key_agreement": "rsa"},
    "few silos remain": {"cohort": Cohort(n_silos=10, n_min=6, t_collude=1)},
    "most collude": {"cohort": Cohort(n_silos=10, n_min=9, t_collude=8)},
}


@pytest.mark.parametrize("name", POOR)
def test_masks_that_hide_nothing_are_refused(make_plan, make_masked, name):
    with pytest.raises(ConfigError):
        make_plan(**make_masked(**POOR[name]))


@pytest.mark.parametrize("change", [{"key_agreement": "x25519"}, {"ring_bits": 64}])
@pytest.mark.parametrize("trust", ["aggregate", "silo"])
def test_plan_without_masks_names_no_ring_or_keys(make_plan, trust, change):
    with pytest.raises(ConfigError, match="belong to masked sums only"):
        make_plan(trust=trust, **change)


@pytest.mark.parametrize("hidden", ["simulated", "none"])
def test_deployment_never_shares_noise_in_the_clear(make_plan, make_roster, hidden):
    with pytest.raises(ConfigError, match="needs secure_aggregation='masked-sum'"):
        make_plan(secure_aggregation=hidden, **make_roster(mode="deploy"))


@pytest.mark.parametrize(
    ("n_silos", "n_min", "t_collude", "fits"),
    [
        (2, 2, 0, False),
        (3, 3, 1, True),
        (3, 3, 2, False),
        (3, 2, 0, False),
        (4, 3, 1, True),
        (9, 7, 4, True),
        (9, 7, 5, False),
        (9, 6, 1, False),
        (1000, 900, 100, True),
        (1001, 901, 100, False),
    ],
)
def test_masks_need_enough_honest_silos(n_silos, n_min, t_collude, fits):
    cohort = Cohort(n_silos=n_silos, n_min=n_min, t_collude=t_collude)
    assert cohort.may_mask == fits


@given(n_silos=st.integers(1, 2000), data=st.data())
def test_two_agreeing_groups_have_an_honest_silo_in_common(n_silos, data):
    n_min = data.draw(st.integers(1, n_silos))
    t_collude = data.draw(st.integers(0, n_min - 1))
    threshold = Cohort(n_silos=n_silos, n_min=n_min, t_collude=t_collude).threshold
    in_common = 2 * threshold - n_silos  # at least, of any two such groups
    assert in_common > t_collude
    assert threshold <= n_silos
    assert 3 * threshold > 2 * n_silos


def released(n_silos, ring_bits, stddev, values, noise):
    """Return what `release` makes of a sum in a plan of so many silos, and the bound."""
    event = PrivacyEvent(
        kind="sum",
        round_num=1,
        dim=len(values),
        sens_grid=2**16,
        stddev_grid=stddev,
        silo_stddev_grid=stddev,
    )
    plan = SimpleNamespace(ring_bits=ring_bits, cohort=SimpleNamespace(n_silos=n_silos))
    bound = RunPlan.sum_bound(plan, event)
    assume(bound > 0)
    debit = Debit(
        silo_id="north",
        plan_digest="",
        event=event,
        attempt=1,
        bound=bound,
        seq=1,
        released="",
    )
    total = ClippedSum(values=np.array(values, dtype=np.int64), sens_grid=2**16)
    return release(total, debit, noise).values, bound


@RINGS
@given(
    n_silos=st.integers(3, 1000),
    stddev=st.integers(100, MAX_STDDEV_GRID),
    turn=st.sampled_from([LEFT, RIGHT]),
)
def test_no_sum_of_all_silos_wraps_even_with_the_largest_noise(ring_bits, n_silos, stddev, turn):
    far = np.iinfo(np.int64).max if turn == RIGHT else np.iinfo(np.int64).min
    (value, _), bound = released(n_silos, ring_bits, stddev, [far, far], Extreme(turn))
    assert abs(value) > bound + 9 * stddev
    whole, half = n_silos * int(value), 2 ** (ring_bits - 1)
    assert -half < whole < half
    assert (whole + half) % 2**ring_bits - half == whole


@RINGS
@given(n_silos=st.integers(3, 1000), stddev=st.integers(100, MAX_STDDEV_GRID))
def test_ring_is_used_up_to_a_few_units(ring_bits, n_silos, stddev):
    _, bound = released(n_silos, ring_bits, stddev, [0, 0], Extreme(RIGHT))
    assert n_silos * (2 * bound + 19 * stddev + 8) > 2**ring_bits


@given(values=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=9))
def test_sum_is_cut_off_before_noise_and_never_after(values):
    update, bound = released(10, 32, 2**20, values, NoiseStream.seeded(1))
    noise = NoiseStream.seeded(1).gaussian(len(values), 2**20)
    assert (update - noise).tolist() == [max(-bound, min(bound, value)) for value in values]


@given(value=st.integers(-(2**33), 2**33), step=st.integers(0, 2**16))
def test_cutting_off_moves_no_two_sums_apart(value, step):
    update, _ = released(10, 32, 2**20, [value, value + step], NoiseStream.seeded(1))
    one, other = update - NoiseStream.seeded(1).gaussian(2, 2**20)
    assert 0 <= other - one <= step


@RINGS
def test_plans_releases_fit_their_ring(make_plan, make_masked, ring_bits):
    plan = make_plan(**make_masked(ring_bits=ring_bits))
    for event in plan.releases:
        assert plan.sum_bound(event) >= event.sens_grid


def test_noise_that_leaves_no_room_in_the_ring_is_refused(make_plan, make_masked):
    terms = make_masked(ring_bits=32)
    with pytest.raises(ConfigError, match="does not fit into a ring of 32 bits"):
        make_plan(epsilon=0.02, **terms)
    assert make_plan(epsilon=0.02, **{**terms, "ring_bits": 64})


def test_plans_without_masks_cut_off_where_no_customers_reach(plan):
    far = 10**9 * plan.grid
    assert all(plan.sum_bound(event) > far for event in plan.releases)
    assert plan.sum_bound(plan.releases[0]) * plan.cohort.n_silos <= 2**62


def test_masked_plan_costs_what_the_same_plan_costs_without(masked):
    bare = {"secure_aggregation": "simulated", "key_agreement": "", "ring_bits": 0}
    assert masked.epsilons() == replace(masked, **bare).epsilons()
