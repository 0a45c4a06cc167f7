import numpy as np
import pytest

from fondaco.shared.errors import DataError
from fondaco.shared.schema import (
    REQUIRED_INTERACTION_COLUMNS,
    InteractionColumns,
    check_distinct,
    check_finite,
    check_ids,
    check_known,
    check_not_negative,
    pick_columns,
)
from fondaco.shared.vocabulary import Vocabulary


@pytest.mark.parametrize("missing", ["", "  ", None, float("nan")])
def test_check_ids_names_the_first_missing_id(missing):
    bad = check_ids(np.array(["a", missing, missing], dtype=object))
    assert bad is not None
    assert bad.row == 1


def test_checks_pass_good_and_empty_columns():
    assert check_ids(np.array(["a", "é"], dtype=object)) is None
    assert check_finite(np.zeros(0), []) is None
    assert check_not_negative(np.array([0.0, np.nan]), ["0", ""]) is None
    assert check_known(["a"], Vocabulary(("a",))) is None
    assert check_distinct(["a", "b"]) is None


def test_bad_cell_error_names_place_column_and_value():
    bad = check_finite(np.array([1.0, np.nan]), ["1", "nan"])
    assert bad is not None
    error = bad.error("orders.csv line 17", "rating")
    assert isinstance(error, DataError)
    assert str(error) == "orders.csv line 17, column 'rating': 'nan' is not a finite number"


def test_check_known_counts_the_catalogue():
    bad = check_known(["a", "z"], Vocabulary(("a", "b")))
    assert bad is not None
    assert (bad.row, bad.value) == (1, "z")
    assert "2 item ids" in bad.problem


def test_check_distinct_names_the_second_occurrence():
    bad = check_distinct(["a", "b", "a"])
    assert bad is not None
    assert bad.row == 2


def pick(found, **names):
    return pick_columns("f.csv", found, InteractionColumns(**names), REQUIRED_INTERACTION_COLUMNS)


def test_pick_columns_takes_only_what_is_there():
    picked = pick(["x", "user_id", "item_id", "when"], time="when")
    assert picked == {"user_id": "user_id", "item_id": "item_id", "time": "when"}


def test_missing_column_error_lists_what_was_found_and_suggests():
    with pytest.raises(
        DataError, match="no column 'user_id'; it has 'User_ID', 'item_id'; did you"
    ):
        pick(["User_ID", "item_id"])
    with pytest.raises(DataError, match="no column 'store'"):
        pick(["user_id", "item_id"], silo_id="store")
