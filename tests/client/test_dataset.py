import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.client.dataset import Rows, index_interactions, index_items, sorted_ids
from fondaco.client.dataset_files import load_silo, save_silo
from fondaco.client.splits import draw_hidden, hold_out_customers, split_by_time, split_last_k
from fondaco.shared.errors import ConfigError, DataError
from fondaco.shared.vocabulary import Vocabulary

N_USERS, N_ITEMS = 4, 6
SILO = {
    "silo_id": "north",
    "user_ids": np.array(["a", "b", "c", "ü"]),
    "n_items": N_ITEMS,
}


def rows(*triples):
    users, items, times = zip(*triples, strict=True) if triples else ((), (), ())
    return Rows(
        user_nums=np.array(users, dtype=np.int64),
        item_nums=np.array(items, dtype=np.int64),
        times=np.array(times, dtype=np.float64),
    )


def triples(part):
    columns = (part.user_nums.tolist(), part.item_nums.tolist(), part.times.tolist())
    return list(zip(*columns, strict=True))


def pairs(part):
    return {(user, item) for user, item, _ in triples(part)}


any_rows = st.lists(
    st.tuples(
        st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1), st.integers(0, 9).map(float)
    ),
    max_size=40,
).map(lambda drawn: rows(*drawn).sorted())


def test_index_interactions_numbers_users_and_items_and_sorts():
    frame = pd.DataFrame(
        {"user_id": ["10", "9", "10"], "item_id": ["x", "x", "y"], "time": [2.0, 5.0, 1.0]}
    )
    user_ids, found = index_interactions(frame, Vocabulary(("x", "y")))
    assert user_ids.tolist() == ["9", "10"]
    assert triples(found) == [(0, 0, 5.0), (1, 1, 1.0), (1, 0, 2.0)]


def test_index_interactions_without_time_keeps_the_order_of_rows():
    frame = pd.DataFrame({"user_id": ["a", "a"], "item_id": ["y", "x"]})
    _, found = index_interactions(frame, Vocabulary(("x", "y")))
    assert found.item_nums.tolist() == [1, 0]


def test_index_interactions_refuses_an_item_outside_the_catalogue():
    frame = pd.DataFrame({"user_id": ["a", "a"], "item_id": ["x", "z"]})
    with pytest.raises(DataError, match=r"row 2, column 'item_id': 'z'"):
        index_interactions(frame, Vocabulary(("x",)))


def test_sorted_ids_puts_plain_numbers_in_their_order():
    assert sorted_ids(np.array(["10", "9", "1", "a"])).tolist() == ["1", "9", "a", "10"]


def test_index_items_is_independent_of_row_order():
    frame = pd.DataFrame({"item_id": ["b", "a"], "text": "t", "category": "", "brand": ""})
    frame["price"], frame["year"] = [1.0, np.nan], np.nan
    assert index_items(frame).digest == index_items(frame[::-1]).digest
    assert index_items(frame).items.ids == ("a", "b")


def test_split_by_time_cuts_at_both_moments_and_keeps_new_items_only():
    data = split_by_time(
        rows((0, 0, 1), (0, 1, 3), (0, 1, 3.5), (0, 0, 4), (0, 1, 6), (0, 2, 5), (1, 0, 2)),
        **SILO,
        valid_from=3,
        test_from=5,
    )
    assert triples(data.train) == [(0, 0, 1), (1, 0, 2)]
    assert triples(data.valid.targets) == [(0, 1, 3)]
    assert triples(data.valid.history) == [(0, 0, 1)]
    assert triples(data.test.targets) == [(0, 2, 5)]
    assert pairs(data.test.history) == {(0, 0), (0, 1)}
    assert data.test.user_nums.tolist() == [0]


def test_split_by_time_keeps_repeats_on_request_and_cold_customers_always():
    data = split_by_time(
        rows((0, 0, 1), (0, 0, 5), (1, 3, 6)), **SILO, valid_from=3, test_from=5, keep_repeats=True
    )
    assert pairs(data.test.targets) == {(0, 0), (1, 3)}
    assert pairs(data.test.history) == {(0, 0)}
    assert data.test.user_nums.tolist() == [0, 1]


@given(any_rows, st.integers(0, 9), st.integers(1, 5), st.booleans())
def test_split_by_time_never_looks_ahead(all_rows, valid_from, gap, keep_repeats):
    data = split_by_time(
        all_rows,
        **SILO,
        valid_from=valid_from,
        test_from=valid_from + gap,
        keep_repeats=keep_repeats,
    )
    assert (data.train.times < valid_from).all()
    assert (data.test.history.times < valid_from + gap).all()
    assert (data.test.targets.times >= valid_from + gap).all()
    for fold in (data.valid, data.test):
        assert set(fold.targets.user_nums) == set(fold.user_nums)
        assert set(fold.history.user_nums) <= set(fold.user_nums)
        assert len(pairs(fold.targets)) == len(fold.targets)
        if not keep_repeats:
            assert not pairs(fold.targets) & pairs(fold.history)


def test_split_by_time_refuses_cuts_in_the_wrong_order():
    with pytest.raises(ConfigError, match="must be before"):
        split_by_time(rows(), **SILO, valid_from=5, test_from=5)


def test_split_last_k_takes_the_last_rows_of_long_customers():
    data = split_last_k(rows((0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 1), (1, 1, 2)), **SILO, k=1)
    assert pairs(data.train) == {(0, 0), (1, 0), (1, 1)}
    assert pairs(data.valid.targets) == {(0, 1)}
    assert pairs(data.test.targets) == {(0, 2)}
    assert pairs(data.test.history) == {(0, 0), (0, 1)}


@given(any_rows, st.integers(1, 4))
def test_split_last_k_leaves_every_customer_training_rows(all_rows, k):
    data = split_last_k(all_rows, **SILO, k=k)
    assert set(data.train.user_nums) == set(all_rows.user_nums)
    held = len(all_rows) - len(data.train)
    assert held == 2 * k * int((np.bincount(all_rows.user_nums, minlength=4) > 2 * k).sum())


def test_split_last_k_refuses_zero():
    with pytest.raises(ConfigError, match="k=0"):
        split_last_k(rows(), **SILO, k=0)


def test_draw_hidden_hides_a_fifth_and_at_least_one_item():
    many = rows(*[(0, i, 0) for i in range(6)], (1, 2, 0), (1, 2, 1), (2, 0, 0))
    hidden = draw_hidden(many, np.array([0, 1, 3]), np.random.default_rng(1))
    assert hidden[:6].sum() == 1
    assert hidden[6:].tolist() == [True, True, False]


@given(any_rows, st.integers(0, 5))
def test_held_out_customers_have_no_training_rows_and_all_their_pairs(all_rows, seed):
    valid, test = np.array([2]), np.array([0, 3])
    hidden = draw_hidden(all_rows, np.array([2, 0, 3]), np.random.default_rng(seed))
    data = hold_out_customers(all_rows, **SILO, valid_users=valid, test_users=test, hidden=hidden)
    assert set(data.train.user_nums) <= {1}
    both = pairs(data.test.history) | pairs(data.test.targets)
    assert both == {p for p in pairs(all_rows) if p[0] in (0, 3)}
    assert not pairs(data.test.history) & pairs(data.test.targets)


def test_hold_out_refuses_a_customer_in_both_groups():
    with pytest.raises(ConfigError, match="never both"):
        hold_out_customers(
            rows((0, 0, 0)),
            **SILO,
            valid_users=np.array([0]),
            test_users=np.array([0]),
            hidden=np.array([True]),
        )


@given(all_rows=any_rows)
def test_saved_silo_is_loaded_unchanged(tmp_path_factory, all_rows):
    folder = tmp_path_factory.mktemp("silo")
    data = split_by_time(all_rows, **SILO, valid_from=3, test_from=6)
    save_silo(data, folder)
    back = load_silo(folder)
    assert (back.silo_id, back.n_items) == ("north", N_ITEMS)
    assert back.user_ids.tolist() == data.user_ids.tolist()
    for mine, theirs in ((data.train, back.train), (data.test.history, back.test.history)):
        assert triples(mine) == triples(theirs)
    assert back.valid.user_nums.tolist() == data.valid.user_nums.tolist()
    assert pairs(back.test.targets) == pairs(data.test.targets)


def test_saved_silo_has_the_same_bytes_twice_and_is_closed_to_others(tmp_path):
    data = split_by_time(rows((0, 0, 1)), **SILO, valid_from=3, test_from=6)
    save_silo(data, tmp_path / "one")
    save_silo(data, tmp_path / "two")
    path = tmp_path / "one" / "rows.npz"
    assert path.read_bytes() == (tmp_path / "two" / "rows.npz").read_bytes()
    assert path.stat().st_mode & 0o077 == 0


def test_damaged_or_missing_silo_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no silo dataset"):
        load_silo(tmp_path)
    data = split_by_time(rows((0, 0, 1)), **SILO, valid_from=3, test_from=6)
    save_silo(data, tmp_path)
    (tmp_path / "rows.npz").write_bytes(b"other")
    with pytest.raises(DataError, match="is damaged"):
        load_silo(tmp_path)


def test_silo_with_numbers_out_of_range_is_refused(tmp_path):
    data = split_by_time(rows((0, N_ITEMS, 1)), **SILO, valid_from=3, test_from=6)
    save_silo(data, tmp_path)
    with pytest.raises(DataError, match="outside 0 to 5"):
        load_silo(tmp_path)


def test_incidence_counts_a_repeated_pair_once():
    matrix = rows((0, 1, 0), (0, 1, 5), (3, 0, 1)).incidence(N_USERS, N_ITEMS)
    assert matrix.toarray().sum() == 2
    assert matrix[0, 1] == 1.0


def small():
    return split_by_time(rows((0, 0, 1)), **SILO, valid_from=3, test_from=6)


def test_a_save_that_fails_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    folder = tmp_path / "north"
    save_silo(small(), folder)
    (folder / "model").write_text("kept")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        save_silo(small(), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["north"]


def test_saving_again_keeps_what_else_is_in_the_folder(tmp_path):
    folder = tmp_path / "north"
    save_silo(small(), folder)
    (folder / "model").write_text("kept")
    save_silo(small(), folder)
    assert (folder / "model").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["north"]


def test_a_folder_moved_aside_by_a_killed_save_is_found_again(tmp_path):
    folder = tmp_path / "north"
    save_silo(small(), folder)
    (folder / "model").write_text("kept")
    folder.rename(tmp_path / ".north.old")
    save_silo(small(), folder)
    assert (folder / "model").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["north"]
