import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.errors import DataError
from fondaco.shared.vocabulary import Vocabulary


def test_from_values_ignores_row_order_and_repeats():
    one = Vocabulary.from_values(["b", "a", "b", 7])
    two = Vocabulary.from_values([7, "a", "b"])
    assert one.ids == ("7", "a", "b")
    assert one.digest == two.digest


@given(st.lists(st.text(min_size=1), unique=True, max_size=30))
def test_nums_invert_ids(ids):
    vocabulary = Vocabulary(tuple(ids))
    assert vocabulary.nums(ids).tolist() == list(range(len(ids)))
    assert all(vocabulary.num(i) == n for n, i in enumerate(ids))


def test_unknown_id_is_minus_one_in_bulk_and_an_error_alone():
    vocabulary = Vocabulary(("a", "ä"))
    assert vocabulary.nums(["ä", "z"]).tolist() == [1, -1]
    assert "z" not in vocabulary
    with pytest.raises(DataError, match=r"'z'.*none of 2"):
        vocabulary.num("z")


def test_repeated_and_empty_ids_are_refused():
    with pytest.raises(DataError, match="'a' occurs twice"):
        Vocabulary(("a", "b", "a"))
    with pytest.raises(DataError, match="number 1 is empty"):
        Vocabulary(("a", ""))


def test_digest_tells_ab_c_from_a_bc():
    assert Vocabulary(("ab", "c")).digest != Vocabulary(("a", "bc")).digest
