"""`fondaco-simulate run files`: a caller's own tables, good and bad."""

import json

import numpy as np
import pytest

SMALL = (
    "dataset.declared_users=60",
    "dataset.last_k=1",
    "privacy.head=10",
    "evaluation.bootstrap=10",
    "evaluation.headline=ndcg@5",
    "baselines=[]",
)
ITEMS = 24


def item_lines(texts=None):
    texts = texts or [f"{'red' if num % 2 else 'blue'} thing" for num in range(ITEMS)]
    return ["item_id,text", *(f"i{num},{text}" for num, text in enumerate(texts))]


def rows(n_users=60, silos=("north", "south", "east"), seed=0):
    rng = np.random.default_rng(seed)
    for user in range(n_users):
        for time, item in enumerate(rng.permutation(np.arange(user % 2, ITEMS, 2))[:6]):
            yield f"u{user},i{item},{time},4,{silos[user % len(silos)]}"


@pytest.fixture
def run_files(simulate, tmp_path):
    """Return a function: lines of both tables -> the finished command and its out folder."""

    def run(lines, items=None, *argv, header="user_id,item_id,time,rating,shop"):
        tables = {"rows.csv": [header, *lines], "items.csv": items or item_lines()}
        for name, text in tables.items():
            (tmp_path / name).write_text("\n".join(text) + "\n", encoding="utf-8")
        settings = [part for setting in SMALL for part in ("--set", setting)]
        done = simulate(
            "run", "files", *settings, "--silo-column", "shop", *argv,
            "--interactions", tmp_path / "rows.csv", "--items", tmp_path / "items.csv",
            "--out", tmp_path / "out",
        )  # fmt: skip
        return done, tmp_path / "out"

    return run


def result_of(done, out):
    assert done.code == 0, done.err
    return json.loads((out / "result.json").read_text(encoding="utf-8"))


def refused(done, *words):
    assert done.code == 2, (done.code, done.out, done.err)
    (line,) = done.err.strip().splitlines()
    for word in words:
        assert word in line, line
    return True


def test_own_tables_are_federated(run_files):
    result = result_of(*run_files(list(rows())))
    assert result["dataset"]["n_customers"] == 60
    assert result["dataset"]["n_items"] == ITEMS
    assert [row["silo_id"] for row in result["per_silo"]] == ["east", "north", "south"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("u1,i999,3,4,north", ["column 'item_id'", "'i999'"]),
        (",i1,3,4,north", ["column 'user_id'", "missing id"]),
        ("u1,i1,soon,4,north", ["column 'time'", "'soon'"]),
        ("u1,i1,3,NaN,north", ["column 'rating'", "'NaN'", "not a finite number"]),
        ("u1,i1,3,inf,north", ["column 'rating'", "'inf'"]),
        ("u1,i1,3,4,", ["column 'shop'", "missing id"]),
        ("u1,i1,3", ["has 3 cells", "5"]),
        ("u1,[/red],3,4,north", ["'[/red]'"]),
    ],
)
def test_a_bad_row_is_refused_with_file_line_column_and_value(run_files, bad, words):
    good = list(rows())
    done, out = run_files([*good[:10], bad, *good[10:]])
    assert refused(done, "rows.csv line 12", *words)
    assert not out.exists()


def test_a_bad_price_is_refused(run_files):
    items = ["item_id,text,price", *(f"i{num},lamp,{num}" for num in range(ITEMS - 1)), "i23,x,-1"]
    assert refused(run_files(list(rows()), items)[0], "items.csv line 25", "'price'", "'-1'")


def test_an_item_listed_twice_is_refused(run_files):
    assert refused(run_files(list(rows()), [*item_lines(), "i3,again"])[0], "'i3'", "line 26")


def test_a_missing_column_is_refused_with_the_nearest(run_files):
    done, _ = run_files(list(rows()), header="userid,item_id,time,rating,shop")
    assert refused(done, "rows.csv", "'user_id'", "'userid'")


def test_a_missing_file_is_refused(simulate, tmp_path):
    done = simulate(
        "run", "files", "--interactions", tmp_path / "no.csv", "--items", tmp_path / "no.csv"
    )
    assert refused(done, "no.csv does not exist")


def test_duplicate_rows_change_no_release(run_files, tmp_path):
    """Pairs that repeat count once, so the same noise gives the same model."""
    held_out = [
        part
        for knob in ("protocol=held-out", "valid_users=10", "test_users=10")
        for part in ("--set", f"dataset.{knob}")
    ]
    lines = list(rows())
    once = result_of(*run_files(lines, None, *held_out))
    (tmp_path / "out").rename(tmp_path / "first")
    thrice = result_of(*run_files([line for line in lines for _ in range(3)], None, *held_out))
    assert thrice["dataset"]["n_interactions"] == 3 * once["dataset"]["n_interactions"]
    assert thrice["model_digest"] == once["model_digest"]


def test_text_and_ids_of_any_script_go_through(run_files, client):
    texts = [("Käse", "红色灯", "лампа", "🧀 [bold]")[num % 4] for num in range(ITEMS)]
    lines = [line.replace("north", "Nürnberg/Süd").replace("u0,", "Jörg,") for line in rows()]
    done, out = run_files(lines, item_lines(texts), "--keep-silos")
    silos = [row["silo_id"] for row in result_of(done, out)["per_silo"]]
    assert "Nürnberg/Süd" in silos
    folders = [f for f in (out / "silos").iterdir() if (f / "serving.json").is_file()]
    assert len(folders) == 3
    home = next(f for f in folders if "rnberg" in f.name)
    answer = client("recommend", "--state", home, "--customer", "Jörg")
    assert answer.code == 0, answer.err
    assert "🧀 [bold]" in answer.out or "Käse" in answer.out
    assert "[bold]" in client("recommend", "--state", home, "--customer", "Jörg", "-n", "24").out


def test_a_silo_of_one_customer_takes_part(run_files):
    lone = [f"lone,i{num},{num},5,tiny" for num in range(8)]
    result = result_of(*run_files([*rows(), *lone]))
    sizes = {row["silo_id"]: row["n_customers"] for row in result["per_silo"]}
    assert sizes["tiny"] == 1
    assert {release["n_silos"] for release in result["privacy"]["releases"]} == {4}


def test_an_empty_silo_takes_part(run_files):
    """Sixty customers over forty silos: some have nobody, and none may tell."""
    settings = ("--set", "silos.partition=hash", "--set", "silos.count=40")
    result = result_of(*run_files(list(rows()), None, *settings))
    assert sum(row["n_customers"] == 0 for row in result["per_silo"]) > 3
    assert {release["n_silos"] for release in result["privacy"]["releases"]} == {40}
    assert not result["dropped"]


def test_a_customer_of_ten_thousand_rows_changes_nothing_else(run_files):
    rng = np.random.default_rng(1)
    giant = [
        f"giant,i{item},{time},3,north" for time, item in enumerate(rng.integers(24, size=10_000))
    ]
    result = result_of(*run_files([*rows(), *giant]))
    assert result["dataset"]["n_interactions"] == 360 + 10_000
    assert result["privacy"]["epsilon"] <= 4.0
    assert not result["dropped"]
