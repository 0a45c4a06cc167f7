"""Merchants that sell part of the catalogue each, from the rows to a silo's folder."""

from dataclasses import replace

import numpy as np
import pytest

from fondaco.client.dataset_files import load_silo, save_silo
from fondaco.shared.errors import DataError
from fondaco.simulation.datasets import load
from fondaco.simulation.library import load_scenario
from fondaco.simulation.partition import cut_of, partition
from fondaco.simulation.scenario import DatasetConfig, SilosConfig
from fondaco.simulation.synthetic import SyntheticSpec, make_marketplace

LAST_K = DatasetConfig(name="synthetic", protocol="last-k", last_k=2)
HELD_OUT = DatasetConfig(name="synthetic", protocol="held-out", valid_users=20, test_users=30)
BY_TIME = DatasetConfig(name="synthetic", valid_from="2024-10-01", test_from="2024-11-15")
MARKET = make_marketplace(SyntheticSpec(n_users=300, n_items=80, n_silos=5, overlap=0.25), 0)[0]
NATURAL = SilosConfig(min_users=1)


def all_rows(silo):
    return (silo.train, silo.interim, silo.valid.targets, silo.test.targets, silo.test.history)


def test_synthetic_merchants_sell_the_shared_items_and_their_own():
    sold = MARKET.sold_by
    assert set.intersection(*(set(items.tolist()) for items in sold.values())) == set(range(20))
    assert sum(len(items) for items in sold.values()) == 5 * 20 + 60
    everything = make_marketplace(SyntheticSpec(n_users=30, n_items=9, n_silos=2), 0)[0]
    assert everything.sold_by is None


@pytest.mark.parametrize("dataset", [LAST_K, HELD_OUT, BY_TIME])
def test_every_split_keeps_the_assortment_and_its_rows_within(dataset):
    for silo in partition(MARKET, NATURAL, dataset, 0):
        expected = np.isin(np.arange(80), MARKET.sold_by[silo.silo_id])
        np.testing.assert_array_equal(silo.assortment, expected)
        assert all(silo.assortment[rows.item_nums].all() for rows in all_rows(silo))
        np.testing.assert_array_equal(silo.timelines(0.0).assortment, expected)


def test_rows_of_items_that_the_home_does_not_sell_are_left_out():
    narrow = {name: items[items != 3] for name, items in MARKET.sold_by.items()}
    silos = partition(replace(MARKET, sold_by=narrow), NATURAL, LAST_K, 0)
    assert not any((rows.item_nums == 3).any() for silo in silos for rows in all_rows(silo))


def test_joined_merchants_sell_what_one_of_them_sells():
    for silo in partition(MARKET, SilosConfig(min_users=60), LAST_K, 0):
        if silo.silo_id.startswith("group"):
            sold = set(np.flatnonzero(silo.assortment).tolist())
            own = [set(items.tolist()) for items in MARKET.sold_by.values()]
            assert sum(items <= sold for items in own) > 1


def test_silos_cut_by_a_hash_sell_everything():
    cut = SilosConfig(partition="hash", count=3)
    assert all(silo.assortment is None for silo in partition(MARKET, cut, LAST_K, 0))


def test_assortment_survives_its_folder(tmp_path):
    silo = partition(MARKET, NATURAL, LAST_K, 0)[0]
    save_silo(silo, tmp_path / "one")
    np.testing.assert_array_equal(load_silo(tmp_path / "one").assortment, silo.assortment)
    save_silo(replace(silo, assortment=None), tmp_path / "two")
    assert load_silo(tmp_path / "two").assortment is None
    save_silo(replace(silo, assortment=silo.assortment[:5]), tmp_path / "three")
    with pytest.raises(DataError, match="assortment"):
        load_silo(tmp_path / "three")


@pytest.fixture(scope="module")
def makers():
    scenario = load_scenario("disjoint-makers")
    market = load(scenario.dataset, 0, scenario.silos.count)
    return scenario, market


def test_makers_lines_are_sold_by_one_merchant_each(makers):
    _, market = makers
    sold = np.sort(np.concatenate(list(market.sold_by.values())))
    np.testing.assert_array_equal(sold, np.arange(len(market.catalogue)))
    sizes = [len(items) for items in market.sold_by.values()]
    assert len(sizes) == 20
    assert max(sizes) < 1.5 * min(sizes)


def test_households_are_customers_of_one_merchant(makers):
    scenario, market = makers
    assert cut_of(market, scenario.silos) == "natural"
    rows = market.interactions
    assert rows.groupby("user_id", observed=True)["silo_id"].nunique().max() == 1
    silos = partition(market, scenario.silos, scenario.dataset, 0)
    assert sum(silo.n_users for silo in silos) == rows["user_id"].nunique()
    assert sum(silo.n_users < 100 for silo in silos) > 5
