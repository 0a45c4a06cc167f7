import datetime

import numpy as np
import pandas as pd
import pytest

from fondaco.client.sources import SUFFIXES, read_interactions, read_items
from fondaco.shared.errors import DataError
from fondaco.shared.schema import InteractionColumns
from fondaco.shared.vocabulary import Vocabulary


def csv(tmp_path, text, name="orders.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def parquet(tmp_path, **columns):
    path = tmp_path / "orders.parquet"
    pd.DataFrame(columns).to_parquet(path)
    return path


def table(tmp_path, suffix):
    columns = {
        "user_id": ["01", "1", "Zoë"],
        "item_id": ["茶", "x y", "1.0"],
        "time": ["1970-01-02", "1970-01-03T12:00:00Z", "1970-01-01T01:00:00+01:00"],
        "rating": [1.0, -2.5, 3.0],
        "silo_id": ["a", "a", "b"],
    }
    if suffix == ".parquet":
        return parquet(tmp_path, **columns)
    path = tmp_path / "orders.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_source_keeps_ids_as_written_and_reads_the_same_twice(tmp_path, suffix):
    path = table(tmp_path, suffix)
    frame = read_interactions(path)
    assert frame["user_id"].tolist() == ["01", "1", "Zoë"]
    assert frame["item_id"].tolist() == ["茶", "x y", "1.0"]
    assert frame["time"].tolist() == [1.0, 2.5, 0.0]
    assert frame.attrs["has_clock"]
    assert frame["rating"].tolist() == [1.0, -2.5, 3.0]
    pd.testing.assert_frame_equal(frame, read_interactions(path))


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        (" ,b,2020-01-01,1", "user_id", "' '"),
        ("a,,2020-01-01,1", "item_id", "''"),
        ("a,b,2020-13-01,1", "time", "'2020-13-01'"),
        ("a,b,2020-01-01,nan", "rating", "'nan'"),
        ("a,b,2020-01-01,inf", "rating", "'inf'"),
        ("a,b,2020-01-01,", "rating", "''"),
        ("a,b,2020-01-01,two", "rating", "'two'"),
        ("a,z,2020-01-01,2", "item_id", "'z'"),
    ],
)
def test_bad_csv_row_is_named_by_line_column_and_value(tmp_path, row, column, value):
    good = 'user_id,item_id,time,rating\n\n"a\nb",b,2020-01-01,1\n'
    path = csv(tmp_path, good + row + "\n")
    with pytest.raises(DataError) as caught:
        read_interactions(path, items=Vocabulary(("b",)))
    assert str(caught.value).startswith(f"orders.csv line 5, column '{column}': {value} ")


@pytest.mark.parametrize("row", ["a,b,c", "a"])
def test_csv_row_of_wrong_width_is_refused(tmp_path, row):
    path = csv(tmp_path, f"user_id,item_id\na,b\n{row}\n")
    with pytest.raises(DataError, match="line 3"):
        read_interactions(path)


def test_blank_lines_bom_and_crlf_do_no_harm(tmp_path):
    path = tmp_path / "orders.csv"
    path.write_bytes("\ufeffuser_id,item_id\r\na,b\r\n\r\nc,d\r\n\r\n".encode())
    assert read_interactions(path)["user_id"].tolist() == ["a", "c"]


def test_numbers_as_times_give_the_order_only(tmp_path):
    frame = read_interactions(csv(tmp_path, "user_id,item_id,time\na,b,2\na,c,1\n"))
    assert frame["time"].tolist() == [2.0, 1.0]
    assert not frame.attrs["has_clock"]


def test_parquet_takes_integers_and_dates_but_no_float_ids(tmp_path):
    path = parquet(tmp_path, user_id=[7], item_id=["x"], time=[datetime.date(1970, 1, 11)])
    frame = read_interactions(path)
    assert frame["user_id"].tolist() == ["7"]
    assert frame["time"].tolist() == [10.0]
    with pytest.raises(DataError, match="column 'user_id': double numbers are no ids"):
        read_interactions(parquet(tmp_path, user_id=[1.0], item_id=["x"]))


def test_bad_parquet_row_is_named_by_its_number(tmp_path):
    path = parquet(tmp_path, user_id=["a", "a"], item_id=["x", None])
    with pytest.raises(DataError, match=r"orders.parquet row 2, column 'item_id': ''"):
        read_interactions(path)
    path = parquet(tmp_path, user_id=["a"], item_id=["x"], rating=[np.inf])
    with pytest.raises(DataError, match=r"row 1, column 'rating': 'inf' is not a finite"):
        read_interactions(path)


def test_missing_file_column_and_format_are_explained(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        read_interactions(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"known formats: .csv, .parquet"):
        read_interactions(tmp_path / "orders.xls")
    path = csv(tmp_path, "customer,item_id\na,b\n")
    with pytest.raises(DataError, match="no column 'user_id'; it has 'customer', 'item_id'"):
        read_interactions(path)
    frame = read_interactions(path, InteractionColumns(user_id="customer"))
    assert frame["user_id"].tolist() == ["a"]


@pytest.mark.parametrize("raw", [b"", b"a\xff,b\n1,2\n", b"user_id,item_id,item_id\na,b,c\n"])
def test_file_that_is_no_table_is_refused(tmp_path, raw):
    (tmp_path / "orders.csv").write_bytes(raw)
    with pytest.raises(DataError, match=r"orders\.csv"):
        read_interactions(tmp_path / "orders.csv")
    (tmp_path / "orders.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"orders\.parquet"):
        read_interactions(tmp_path / "orders.parquet")


def test_items_fill_absent_columns_and_keep_empty_prices_unknown(tmp_path):
    frame = read_items(csv(tmp_path, "item_id,text,price\n007,Käse,2.5\n8,,\n", "items.csv"))
    assert frame["item_id"].tolist() == ["007", "8"]
    assert frame["text"].tolist() == ["Käse", ""]
    assert frame["brand"].tolist() == ["", ""]
    assert np.isnan(frame["price"].tolist()[1])


@pytest.mark.parametrize("row", ["a,x,nan", "a,x,-1", "a,x,1e999", "b,x,1"])
def test_bad_item_row_is_refused(tmp_path, row):
    path = csv(tmp_path, f"item_id,text,price\nb,y,1\n{row}\n", "items.csv")
    with pytest.raises(DataError, match=r"items\.csv line 3, column '(price|item_id)'"):
        read_items(path)


@pytest.mark.parametrize("raw", [b"K\xe4se,x", b'"a"b,x', b"a\0,x,y"])
def test_unreadable_csv_line_is_named(tmp_path, raw):
    (tmp_path / "orders.csv").write_bytes(b"user_id,item_id\na,b\n" + raw + b"\n")
    with pytest.raises(DataError, match=r"orders\.csv line 3 "):
        read_interactions(tmp_path / "orders.csv")
