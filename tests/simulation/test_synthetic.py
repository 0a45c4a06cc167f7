import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.errors import ConfigError
from fondaco.simulation.synthetic import START, YEAR, SyntheticSpec, make_marketplace, zipf_sizes


def spec(**changes):
    return SyntheticSpec(**({"n_users": 600, "n_items": 400, "n_silos": 5} | changes))


def sold_by(market):
    """silo -> the item numbers of its rows"""
    rows = market.interactions
    items = rows["item_id"].cat.codes
    return {s: set(items[rows["silo_id"] == s]) for s in rows["silo_id"].cat.categories}


def test_same_seed_gives_the_same_marketplace_and_another_seed_another():
    one, two = make_marketplace(spec(), 1)[0], make_marketplace(spec(), 1)[0]
    assert one.catalogue.digest == two.catalogue.digest
    assert one.interactions.equals(two.interactions)
    assert not make_marketplace(spec(), 2)[0].interactions.equals(one.interactions)


@given(st.integers(1, 500), st.integers(1, 200), st.floats(0, 3))
def test_zipf_sizes_sum_up_and_leave_nobody_empty(extra, n_parts, exponent):
    sizes = zipf_sizes(n_parts + extra, n_parts, exponent)
    assert sizes.sum() == n_parts + extra
    assert sizes.min() >= 1
    assert (np.diff(sizes) <= 0).all()


def test_every_silo_has_customers_and_time_covers_one_year():
    market, truth = make_marketplace(spec(n_silos=50), 0)
    assert market.sizes.n_silos == 50
    assert market.sizes.n_customers == 600
    times = market.interactions["time"].to_numpy()
    assert START <= times.min() < START + 10
    assert START + YEAR - 10 < times.max() <= START + YEAR
    items = market.interactions["item_id"].cat.codes.to_numpy()
    assert (times >= START + truth.launch[items]).all()


def test_disjoint_catalogues_share_no_item_and_overlap_shares_its_part():
    sold = list(sold_by(make_marketplace(spec(overlap=0.0), 0)[0]).values())
    assert sum(map(len, sold)) == len(set.union(*sold))
    half = list(sold_by(make_marketplace(spec(overlap=0.5), 0)[0]).values())
    assert max(set.intersection(*half)) < 200
    own = [items - set(range(200)) for items in half]
    assert sum(map(len, own)) == len(set.union(*own))


@pytest.mark.parametrize("overlap", [0.0, 0.3, 1.0])
def test_probabilities_sum_to_one_and_vanish_where_the_silo_sells_nothing(overlap):
    market, truth = make_marketplace(spec(overlap=overlap), 0)
    chances = truth.probabilities(np.arange(600))
    assert np.allclose(chances.sum(axis=1), 1.0)
    rows = market.interactions
    users = np.array([int(u.split("-")[1]) for u in rows["user_id"]])
    assert (chances[users, rows["item_id"].cat.codes] > 0).all()


def test_rows_follow_the_stated_probabilities():
    market, truth = make_marketplace(spec(n_users=3000, n_items=40, overlap=0.5), 0)
    rows = market.interactions
    users = np.array([int(u.split("-")[1]) for u in rows["user_id"]])
    expected = np.bincount(users, minlength=3000) @ truth.probabilities(np.arange(3000))
    found = np.bincount(rows["item_id"].cat.codes, minlength=40)
    # 40 counts, each within 5 standard deviations: false alarm below 1 in 40,000 seeds
    assert (np.abs(found - expected) < 5 * np.sqrt(expected) + 1).all()


def test_oracle_beats_popularity():
    market, truth = make_marketplace(spec(n_users=2000), 0)
    rows = market.interactions
    items = rows["item_id"].cat.codes.to_numpy()
    users = np.array([int(u.split("-")[1]) for u in rows["user_id"]])
    oracle = truth.probabilities(np.arange(2000))
    popular = np.bincount(items, minlength=400)
    top_popular = set(np.argsort(-popular)[:20])
    top_oracle = np.argsort(-oracle, axis=1)[:, :20]
    hit_oracle = (top_oracle[users] == items[:, None]).any(axis=1).mean()
    hit_popular = np.isin(items, list(top_popular)).mean()
    assert hit_oracle > 1.5 * hit_popular


def test_text_tells_the_factors():
    market, truth = make_marketplace(spec(n_items=1000), 0)
    categories = np.array(market.catalogue.categories)
    factors = truth.item_factors
    within = np.mean([factors[categories == c].var(axis=0).mean() for c in set(categories)])
    assert within < 0.7 * factors.var(axis=0).mean()
    assert all(c in t for c, t in zip(categories, market.catalogue.texts, strict=True))


def test_rates_are_zero_before_launch_and_average_to_one():
    truth = make_marketplace(spec(), 0)[1]
    assert (truth.rates(START)[truth.launch > 0] == 0).all()
    days = START + (np.arange(20_000) + 0.5) / 20_000 * YEAR
    mean = np.mean([truth.rates(day) for day in days[::10]], axis=0)
    assert np.allclose(mean, 1.0, atol=0.1)


@pytest.mark.parametrize(
    "changes", [{"overlap": 1.5}, {"n_silos": 0}, {"n_silos": 601}, {"overlap": 0, "n_items": 4}]
)
def test_impossible_marketplaces_are_refused(changes):
    with pytest.raises(ConfigError):
        spec(**changes)
