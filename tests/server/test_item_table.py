"""The coordinator's reader of item lists makes the very catalogue that silos make."""

import csv

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fondaco.client.dataset import index_items
from fondaco.client.sources import read_items as read_as_silo
from fondaco.server.item_table import load_items
from fondaco.shared.catalogue import load_catalogue, save_catalogue
from fondaco.shared.errors import DataError

HEADER = ["item_id", "text", "category", "brand", "price", "year"]
NUMBERS = ["", " ", "0", "1.10", " 5", "5.", ".5", "+5", "1e3", "1E-7", "19.99", "0.1234567890123"]
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=6)


def write(path, rows, header=HEADER):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def as_silo(path):
    return index_items(read_as_silo(path))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            WORDS.filter(str.strip),
            WORDS,
            WORDS,
            st.sampled_from(NUMBERS),
            st.sampled_from(NUMBERS),
        ),
        min_size=1,
        unique_by=lambda row: row[0],
    )
)
def test_catalogue_is_the_one_that_silos_make(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("items") / "items.csv"
    write(
        path,
        [[item, text, category, "b", price, year] for item, text, category, price, year in rows],
    )
    assert load_items(path).digest == as_silo(path).digest


@pytest.mark.parametrize(
    "price", ["-1", "nan", "inf", "1e999", "1_000", "\uff11", "1,000", "0x10", "x"]
)
def test_price_that_silos_refuse_is_refused_in_the_same_words(tmp_path, price):
    path = write(tmp_path / "items.csv", [["a", "", "", "", "1", ""], ["b", "", "", "", price, ""]])
    with pytest.raises(DataError) as theirs:
        as_silo(path)
    with pytest.raises(DataError) as ours:
        load_items(path)
    assert str(ours.value) == str(theirs.value)
    assert "items.csv line 3, column 'price'" in str(ours.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no header"),
        ("item_id,item_id\n", "twice"),
        ("item,text\nb,c\n", "no column 'item_id'.*did you mean 'item'"),
        ("item_id,text\na\n", "line 2 has 1 cells; the header has 2"),
        ("item_id\na\n\nb\na\n", "line 5, column 'item_id': 'a' occurs twice"),
        ("item_id,text\n ,x\n", "line 2, column 'item_id': ' ' is a missing id"),
        ('item_id\n"a\n', "is not CSV"),
        ("item_id,year\na,soon\n", "line 2, column 'year': 'soon'"),
        ("item_id,text\n", "lists no items"),
    ],
)
def test_damaged_list_names_its_line(tmp_path, text, problem):
    path = tmp_path / "items.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        load_items(path)


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "items.csv"
    path.write_bytes(b"item_id\na\n\xff\n")
    with pytest.raises(DataError, match="line 3 is not UTF-8"):
        load_items(path)


def test_ids_alone_are_a_catalogue(tmp_path):
    catalogue = load_items(write(tmp_path / "items.csv", [["b"], ["a"]], ["item_id"]))
    assert catalogue.items.ids == ("a", "b")
    assert catalogue.texts == ("", "")
    assert np.isnan(catalogue.prices).all()


def test_catalogue_file_is_read_as_it_is(tmp_path, catalogue):
    path = tmp_path / "catalogue.json"
    save_catalogue(catalogue, path)
    assert load_items(path).digest == catalogue.digest
    assert load_catalogue(path, catalogue.digest).digest == catalogue.digest


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"ids": [1], "texts": [""], "categories": [""], "brands": [""]}', '"x"'],
)
def test_damaged_catalogue_file_is_refused(tmp_path, text):
    path = tmp_path / "catalogue.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as a catalogue"):
        load_items(path)


@pytest.mark.parametrize("name", ["items.xlsx", "items", "nowhere.csv"])
def test_other_formats_and_missing_files_are_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"known formats|does not exist"):
        load_items(tmp_path / name)
