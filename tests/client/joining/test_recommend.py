"""fondaco-client recommend: an owner's customers, one or all, and what each part gave."""

import csv
import json
import os
from dataclasses import asdict, replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from builders import N_HEAD, N_ITEMS, taste_catalogue
from kits import mode_of
from shop_rows import model_values, shop_rows, with_one_more

from fondaco.client.dataset_files import save_silo
from fondaco.client.loading import ReadFor
from fondaco.client.owner import Owner
from fondaco.client.serving import files, lists
from fondaco.client.serving.recount import recounted
from fondaco.client.state import open_owner_state
from fondaco.shared.audit_log import verify
from fondaco.shared.catalogue import ids_only
from fondaco.shared.errors import DataError
from fondaco.shared.vocabulary import Vocabulary

COLUMNS = ["customer", "rank", "item_id", "score", "global", "own", "content"]


@pytest.fixture
def make_shop_plan(script, coordinator):
    """Return a function: changed terms -> a plan over the shop's items."""
    coordinator.catalogue = taste_catalogue()
    statistics = ("popularity", 1, N_ITEMS), ("gram", 9, N_HEAD * (N_HEAD + 1) // 2)
    terms = {"statistics": statistics, "n_items": N_ITEMS, "head": N_HEAD}
    return lambda **changes: coordinator.plan(script.home, **{**terms, **changes})


@pytest.fixture
def shop(script, init, coordinator, make_shop_plan, make_model):
    """An owner with a signed plan, rows, and everybody's model."""
    init(coordinator.kit())
    plan = make_shop_plan()
    init(coordinator.kit(plan), "--yes")
    limits = "--epsilon-per-year", 9, "--epsilon-if-masking-broke", 9
    script.own("policy", *limits)
    script.own("approve", script.home / "kit" / "plan.toml", "--yes")
    save_silo(shop_rows(), script.home / "data")
    (script.home / "model.fndc").write_bytes(make_model(plan, **model_values()))
    return plan


@pytest.fixture
def recommend(script, shop):
    """Return a function: words -> what the command prints."""
    del shop
    return lambda *words, **how: script.own("recommend", *words, **how)


def test_customer_gets_items_whose_parts_add_up(recommend):
    facts = json.loads(recommend("--customer", "u3", "-n", 5, "--json"))
    assert (facts["silo_id"], facts["customer"], len(facts["items"])) == ("north", "u3", 5)
    for item in facts["items"]:
        assert list(item) == ["item_id", "text", *COLUMNS[3:]]
        parts = item["global"] + item["own"] + item["content"]
        assert parts == pytest.approx(item["score"], abs=3e-4)
    scores = [item["score"] for item in facts["items"]]
    assert scores == sorted(scores, reverse=True)
    assert set(facts["parts"]) == {"global", "own", "content"}


def test_person_reads_what_each_part_is(recommend):
    out = recommend("--customer", "u3", "-n", 3)
    for words in (
        "north: for customer u3",
        "score = global + own + content",
        "under differential privacy",
        "your own rows, which never left",
    ):
        assert words in out


def test_customers_get_nothing_that_they_have(recommend):
    dataset = shop_rows()
    for num in (0, 3):
        items = json.loads(recommend("--customer", f"u{num}", "-n", N_ITEMS, "--json"))["items"]
        parts = dataset.train, dataset.valid.targets, dataset.test.targets
        had = {int(i) for rows in parts for i in rows.item_nums[rows.user_nums == num]}
        assert len(had) == 8
        assert {int(item["item_id"][1:]) for item in items} == set(range(N_ITEMS)) - had


def test_customer_without_rows_gets_what_is_popular(recommend, script):
    save_silo(
        replace(shop_rows(), user_ids=np.array([*shop_rows().user_ids, "new"])), _data(script)
    )
    items = json.loads(recommend("--customer", "new", "-n", 6, "--json"))["items"]
    assert len(items) == 6
    assert {item["content"] for item in items} == {0.0}
    nums = [int(item["item_id"][1:]) for item in items]
    assert np.mean(nums) < N_ITEMS / 2  # the model's popular items have low numbers


def _data(script):
    return script.home / "data"


def test_unknown_customer_is_refused_with_one_line(script, shop):
    assert "no customer 'u999'" in script.refused("recommend", "--customer", "u999")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_file_for_all_holds_every_customer_in_one_shape(recommend, script, desk, ending):
    out = desk / f"lists{ending}"
    facts = json.loads(recommend("--all", "--out", out, "-n", 4, "--json"))
    assert (facts["customers"], facts["file"]) == (13, str(out))
    rows = _rows(out)
    assert len(rows) == 13 * 4
    assert [list(row) for row in rows] == [COLUMNS] * len(rows)
    assert {row["customer"] for row in rows} == {f"u{num}" for num in range(13)}
    assert [int(row["rank"]) for row in rows[:5]] == [1, 2, 3, 4, 1]
    for row in rows:
        total = sum(float(row[part]) for part in ("global", "own", "content"))
        assert total == pytest.approx(float(row["score"]), abs=1e-4)
    assert mode_of(out) == 0o600
    assert list(desk.iterdir()).count(out) == 1


def _rows(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_file_says_of_each_customer_what_asking_for_one_says(recommend, desk):
    recommend("--all", "--out", desk / "x.jsonl", "-n", 5)
    for user in ("u0", "u7", "u12"):
        asked = json.loads(recommend("--customer", user, "-n", 5, "--json"))["items"]
        filed = [row for row in _rows(desk / "x.jsonl") if row["customer"] == user]
        assert [row["item_id"] for row in filed] == [row["item_id"] for row in asked]
        for one, other in zip(filed, asked, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)


def test_batches_of_any_size_give_the_same_file(recommend, desk, monkeypatch):
    recommend("--all", "--out", desk / "one.csv")
    monkeypatch.setattr(lists, "BATCH_CELLS", 3 * N_ITEMS)
    recommend("--all", "--out", desk / "many.csv")
    one, many = _rows(desk / "one.csv"), _rows(desk / "many.csv")
    assert [row["item_id"] for row in one] == [row["item_id"] for row in many]
    np.testing.assert_allclose(*([float(r["score"]) for r in rows] for rows in (one, many)), 1e-4)


def test_file_appears_whole_or_not_at_all(recommend, script, desk, monkeypatch):
    out = desk / "x.csv"
    out.write_text("yesterday's")
    everybody = lists.SiloState.everybody

    def breaking(self, n):
        yield next(everybody(self, n))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lists.SiloState, "everybody", breaking)
    assert "No space left" in script.refused("recommend", "--all", "--out", out)
    assert out.read_text() == "yesterday's"
    assert {path.name for path in desk.iterdir()} == {"x.csv", "north.registration.json"}


def test_killed_writer_leaves_the_old_file_and_the_next_one_goes_on(
    recommend, script, desk, children
):
    out = desk / "x.csv"
    out.write_text("yesterday's")
    state = open_owner_state(Owner.open(script.home))

    def die():
        children.die_in(os, "fsync", "before")
        files.write_lists(state, out, 3, lambda done, of: None)

    assert children.ended(die) == -9
    assert out.read_text() == "yesterday's"
    recommend("--all", "--out", out)
    assert len(_rows(out)) == 13 * 10


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--customer", "u1", "--all"],
        ["--all"],
        ["--customer", "u1", "--out", "x.csv"],
        ["--all", "--out", "x.xlsx"],
        ["--all", "--out", "x"],
    ],
    ids=str,
)
def test_words_that_do_not_fit_together_are_refused(script, shop, desk, words):
    script.refused("recommend", *words)
    assert not list(desk.glob("x*"))


def test_count_alone_is_written_down(recommend, script, desk):
    recommend("--customer", "u1")
    recommend("--all", "--out", desk / "x.csv")
    entries = [e for e in verify(script.home / "audit.jsonl").entries if e.action == "recommend"]
    assert [dict(entry.fields) for entry in entries] == [{"count": 1}, {"count": 13}]


# ---- whose model, whose rows ----


def test_owner_without_a_model_is_told_when_it_comes(script, shop):
    (script.home / "model.fndc").unlink()
    assert "has not come here yet" in script.refused("recommend", "--customer", "u1")


@pytest.mark.parametrize("blob", [b"", b"x" * 100], ids=["empty", "garbage"])
def test_damaged_model_is_refused(script, shop, blob):
    (script.home / "model.fndc").write_bytes(blob)
    assert "is damaged" in script.refused("recommend", "--customer", "u1")


def test_model_of_a_plan_that_was_never_signed_is_refused(script, shop, make_model):
    stranger = replace(shop, expires="2998-12-31")
    (script.home / "model.fndc").write_bytes(make_model(stranger, **model_values()))
    assert "none of the 1 plans" in script.refused("recommend", "--customer", "u1")


def test_owner_without_rows_is_told_to_load_them(script, shop):
    (_data(script) / "dataset.json").unlink()
    assert "fondaco-client load" in script.refused("recommend", "--customer", "u1")


def test_rows_that_count_other_items_are_refused(script, shop):
    save_silo(replace(shop_rows(), n_items=N_ITEMS + 1), _data(script))
    assert "read the rows in again" in script.refused("recommend", "--customer", "u1")


def test_recommending_goes_on_after_leaving_and_while_the_next_model_is_learned(
    script, recommend, init, coordinator, make_shop_plan
):
    before = recommend("--customer", "u3")
    script.own("leave")
    assert recommend("--customer", "u3") == before
    coordinator.catalogue = ids_only(coordinator.catalogue)
    init(coordinator.kit(make_shop_plan(catalogue_digest=coordinator.catalogue.digest)), "--yes")
    script.own("approve", script.home / "kit" / "plan.toml", "--yes")
    assert recommend("--customer", "u3") == before


def test_rows_that_were_read_for_the_next_plan_serve_with_the_model_that_there_is(
    script, init, coordinator, recommend, make_shop_plan
):
    before = json.loads(recommend("--customer", "u3", "--json"))["items"]
    coordinator.catalogue = longer = with_one_more(coordinator.catalogue)
    next_plan = make_shop_plan(
        catalogue_digest=longer.digest,
        n_items=len(longer),
        statistics=(("popularity", 1, len(longer)), ("gram", 9, N_HEAD * (N_HEAD + 1) // 2)),
    )
    init(coordinator.kit(next_plan), "--yes")
    rows, moved = shop_rows(), longer.items.nums(taste_catalogue().items.ids)
    assert (moved != np.arange(N_ITEMS)).any()
    save_silo(recounted(rows, taste_catalogue(), longer), _data(script))
    read_for = asdict(ReadFor.of_plan(next_plan))
    (_data(script) / "read-for.json").write_text(json.dumps(read_for))
    assert json.loads(recommend("--customer", "u3", "--json"))["items"] == before


def test_rows_are_counted_by_another_catalogue_and_back():
    rows, ours = shop_rows(), taste_catalogue()
    sold = np.arange(N_ITEMS) % 3 > 0
    rows = replace(rows, assortment=sold)
    longer = with_one_more(ours)
    there = recounted(rows, ours, longer)
    assert there.n_items == N_ITEMS + 1
    back = recounted(there, longer, ours)
    np.testing.assert_array_equal(back.assortment, sold)
    for one, other in ((back.train, rows.train), (back.valid.targets, rows.valid.targets)):
        np.testing.assert_array_equal(one.item_nums, other.item_nums)
        np.testing.assert_array_equal(one.user_nums, other.user_nums)


def test_rows_of_items_that_a_catalogue_lacks_are_left_out():
    rows, longer = shop_rows(), with_one_more(taste_catalogue())
    less = replace(taste_catalogue(), items=Vocabulary(("i00", *(f"x{n}" for n in range(1, 24)))))
    fewer = recounted(rows, taste_catalogue(), less)
    assert set(fewer.train.item_nums.tolist()) <= {0}
    assert len(fewer.valid.user_nums) == len(np.unique(fewer.valid.targets.user_nums))
    assert len(recounted(rows, taste_catalogue(), longer).train) == len(rows.train)


def test_erased_customer_is_served_no_more_even_if_rows_come_back(script, shop, recommend):
    recommend("--customer", "u3")
    script.own("erase", "u3")
    save_silo(shop_rows(), _data(script))
    assert "no customer 'u3'" in script.refused("recommend", "--customer", "u3")


# ---- knobs ----


def test_owner_chooses_how_the_parts_are_mixed(script, recommend):
    (script.home / "serving.toml").write_text('personal = "dp-only"\ncontent = false\n')
    items = json.loads(recommend("--customer", "u3", "--json"))["items"]
    assert {(item["own"], item["content"]) for item in items} == {(0.0, 0.0)}
    (script.home / "serving.toml").write_text("half_life = 3\n")
    assert "did you mean" in script.refused("recommend", "--customer", "u3")


def test_plan_says_whether_items_may_be_recommended_again(
    script, shop, make_shop_plan, make_model, recommend
):
    again = make_shop_plan(public={**shop.public, "repeats": "yes"})
    with Owner.open(script.home).ledger() as ledger:
        ledger.approve(again)
    (script.home / "model.fndc").write_bytes(make_model(again, **model_values()))
    items = json.loads(recommend("--customer", "u3", "-n", N_ITEMS, "--json"))["items"]
    assert len(items) == N_ITEMS


def test_state_is_another_name_of_home(script, shop):
    out = script("recommend", "--state", script.home, "--customer", "u3", "--json")
    assert json.loads(out)["silo_id"] == "north"


def test_catalogue_of_a_kept_plan_must_be_there(script, shop):
    (script.home / "kit" / "catalogue.json").unlink()
    with pytest.raises(DataError, match="init --kit"):
        open_owner_state(Owner.open(script.home))


def test_folder_that_is_no_owners_is_refused(script, desk):
    script.home.mkdir()
    assert "no owner's folder" in script.refused("recommend", "--customer", "u1")
