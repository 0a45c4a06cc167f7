import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.vocabulary import Vocabulary
from fondaco.simulation.marketplace import build_marketplace
from fondaco.simulation.partition import partition, partition_notes
from fondaco.simulation.scenario import DatasetConfig, SilosConfig
from fondaco.simulation.synthetic import SyntheticSpec, make_marketplace

BY_TIME = DatasetConfig(name="files", valid_from="1970-01-04", test_from="1970-01-07")
HELD_OUT = DatasetConfig(name="files", protocol="held-out", valid_users=20, test_users=30)
LAST_K = DatasetConfig(name="files", protocol="last-k", last_k=2)
MARKET = make_marketplace(SyntheticSpec(n_users=200, n_items=60, n_silos=6), 0)[0]


def market(rows, *, silos=True, n_items=5):
    """A marketplace of (user, item number, day, silo) rows."""
    ids = [f"i{num}" for num in range(n_items)]
    catalogue = Catalogue(
        items=Vocabulary(tuple(ids)),
        texts=("",) * n_items,
        categories=("odd|x", "even|x") * (n_items // 2) + ("odd|x",) * (n_items % 2),
        brands=("",) * n_items,
        prices=np.full(n_items, np.nan),
    )
    return build_marketplace(
        name="files",
        catalogue=catalogue,
        users=[r[0] for r in rows],
        items=[ids[r[1]] for r in rows],
        times=np.array([r[2] for r in rows], dtype=np.float64),
        silos=[r[3] for r in rows] if silos else None,
        has_clock=True,
    )


def n_rows(data):
    return len(data.train) + len(data.valid.targets) + len(data.test.targets)


def test_customer_belongs_with_all_rows_to_the_main_silo_and_ties_go_to_the_smaller():
    rows = [("a", 0, 1, "s2"), ("a", 1, 1, "s2"), ("a", 2, 1, "s1"), ("b", 0, 1, "s2")]
    rows += [("c", 0, 1, "s2"), ("c", 1, 1, "s1")]
    found = partition(market(rows), SilosConfig(min_users=1), BY_TIME, 0)
    assert [(d.silo_id, d.user_ids.tolist()) for d in found] == [("s1", ["c"]), ("s2", ["a", "b"])]
    assert [len(d.train) for d in found] == [2, 4]
    assert found[1].train.user_nums.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    "silos",
    [
        SilosConfig(min_users=1),
        SilosConfig(min_users=50),
        SilosConfig(partition="hash", count=7),
        SilosConfig(partition="dirichlet", count=7, concentration=0.3),
    ],
)
@pytest.mark.parametrize("dataset", [HELD_OUT, LAST_K])
def test_every_cut_keeps_every_customer_once(silos, dataset):
    found = partition(MARKET, silos, dataset, 0)
    users = np.concatenate([d.user_ids for d in found])
    assert sorted(users) == sorted(MARKET.interactions["user_id"].cat.categories)
    assert [d.silo_id for d in found] == sorted(d.silo_id for d in found)
    assert all(d.n_items == 60 for d in found)
    again = partition(MARKET, silos, dataset, 0)
    assert all((a.user_ids == b.user_ids).all() for a, b in zip(found, again, strict=True))


def test_hash_cut_is_sha256_of_the_customer_and_lists_empty_silos():
    found = partition(
        market([("zoë", 0, 1, "s")], silos=False),
        SilosConfig(partition="hash", count=12),
        BY_TIME,
        0,
    )
    assert len(found) == 12
    place = int(hashlib.sha256("zoë".encode()).hexdigest(), 16) % 12
    assert [d.n_users for d in found] == [int(num == place) for num in range(12)]
    assert found[place].silo_id == f"silo-{place:02d}"
    assert len(found[(place + 1) % 12].train) == 0


@given(st.lists(st.integers(1, 12), min_size=1, max_size=15), st.integers(1, 10))
def test_joined_silos_have_enough_customers_if_there_are_enough(sizes, min_users):
    rows = [
        (f"u{silo}-{num}", 0, 1, f"s{silo}") for silo, n in enumerate(sizes) for num in range(n)
    ]
    found = partition(market(rows), SilosConfig(min_users=min_users), BY_TIME, 0)
    assert sum(d.n_users for d in found) == sum(sizes)
    small = sum(n for n in sizes if n < min_users)
    for data in found:
        assert data.n_users >= min_users or data.n_users == small
    kept = {f"s{silo}" for silo, n in enumerate(sizes) if n >= min_users}
    assert kept <= {d.silo_id for d in found}


def test_merchants_without_rows_are_listed_when_a_count_is_given():
    base = market([("a", 0, 1, "s1"), ("b", 0, 1, "s2")])
    rows = base.interactions[base.interactions["silo_id"] == "s1"].copy()
    base = replace(base, name="synthetic", interactions=rows)
    found = partition(base, SilosConfig(min_users=0, count=2), BY_TIME, 0)
    assert [(d.silo_id, d.n_users) for d in found] == [("s1", 1), ("s2", 0)]


def test_natural_silos_asked_for_by_number_are_cut_by_a_hash():
    silos, stores = SilosConfig(count=3), replace(MARKET, name="files")
    assert len(partition(stores, silos, LAST_K, 0)) == 3
    assert "even parts by a hash" in partition_notes(stores, silos)[0]


def test_held_out_customers_do_not_depend_on_the_cut():
    def held(silos):
        found = partition(MARKET, silos, HELD_OUT, 3)
        return {
            (d.user_ids[u], i)
            for d in found
            for u, i in zip(d.test.targets.user_nums, d.test.targets.item_nums, strict=True)
        }

    ten = held(SilosConfig(partition="hash", count=10))
    assert ten == held(SilosConfig(min_users=1))
    assert len({user for user, _ in ten}) == 30


def test_held_out_customers_are_the_first_of_the_seeded_permutation():
    found = partition(MARKET, SilosConfig(partition="hash", count=1), HELD_OUT, 3)[0]
    order = np.random.default_rng(3).permutation(200)
    assert found.valid.user_nums.tolist() == sorted(order[:20])
    assert found.test.user_nums.tolist() == sorted(order[20:50])
    assert not set(found.train.user_nums) & set(order[:50])


def test_time_cut_uses_the_dates_of_the_scenario():
    rows = [("a", 0, 2.9, "s"), ("a", 1, 3.0, "s"), ("a", 2, 5.9, "s"), ("a", 3, 6.0, "s")]
    data = partition(market(rows), SilosConfig(min_users=1), BY_TIME, 0)[0]
    assert data.train.item_nums.tolist() == [0]
    assert data.valid.targets.item_nums.tolist() == [1, 2]
    assert data.test.targets.item_nums.tolist() == [3]
    assert n_rows(data) == 4


def test_dirichlet_cut_is_skewed_by_taste():
    rows = [(f"u{num}", num % 2, 1, "s") for num in range(400)]
    config = SilosConfig(partition="dirichlet", count=2, concentration=0.05)
    found = partition(market(rows), config, BY_TIME, 1)
    shares = [np.bincount(d.train.item_nums, minlength=2) / 200 for d in found]
    assert np.abs(np.array(shares) - 0.5).max() > 0.4


def test_impossible_cuts_and_splits_are_refused():
    plain = market([("a", 0, 1, "s")], silos=False)
    hashed = SilosConfig(partition="hash", count=2)
    with pytest.raises(ConfigError, match="no natural silos"):
        partition(plain, SilosConfig(), BY_TIME, 0)
    with pytest.raises(ConfigError, match=r"silos\.count 0"):
        partition(plain, SilosConfig(partition="hash"), BY_TIME, 0)
    with pytest.raises(ConfigError, match="concentration"):
        partition(plain, SilosConfig(partition="dirichlet", count=2, concentration=0), BY_TIME, 0)
    with pytest.raises(ConfigError, match="leave training customers"):
        partition(plain, hashed, HELD_OUT, 0)
    with pytest.raises(ConfigError, match=r"valid_from '1970-99-99' is not an ISO date"):
        partition(
            plain,
            hashed,
            DatasetConfig(name="files", valid_from="1970-99-99", test_from="1971"),
            0,
        )
    object.__setattr__(plain, "has_clock", False)
    with pytest.raises(ConfigError, match="no clock times"):
        partition(plain, hashed, BY_TIME, 0)


def test_notes_state_how_silos_came_about():
    assert "50 even parts" in partition_notes(MARKET, SilosConfig(partition="hash", count=50))[0]
    assert "fewer than 20" in partition_notes(MARKET, SilosConfig())[0]
    assert "taste" in partition_notes(MARKET, SilosConfig(partition="dirichlet", count=3))[0]
    assert partition_notes(MARKET, SilosConfig(min_users=1)) == ()
