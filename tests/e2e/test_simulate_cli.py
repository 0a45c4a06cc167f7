"""The main job through the console commands, every command a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("run", "compare", "datasets", "scenarios", "prepare", "report")


def result_of(folder):
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def refused(done, *words):
    """A command that could not do it says so in one line, without a traceback."""
    assert done.code == 2, (done.code, done.out, done.err)
    assert "Traceback" not in done.err
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], lines[0]
    return True


def test_the_installed_command_starts_in_an_empty_folder(tmp_path):
    command = Path(sys.executable).with_name("fondaco-simulate")
    done = subprocess.run(  # noqa: S603
        [str(command), "--help"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)
    assert not done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_sub_command_explains_itself(simulate, name):
    done = simulate(name, "--help")
    assert done.code == 0
    assert "Usage" in done.out


def test_the_client_explains_itself(client):
    assert "recommend" in client("--help").out
    assert "--customer" in client("recommend", "--help").out


def test_a_run_leaves_result_report_and_ledgers(finished):
    result = result_of(finished)
    assert result["scenario"] == "synthetic"
    ledgers = {path.name for path in (finished / "ledgers").glob("*.db")}
    assert ledgers == {f"{row['silo_id']}.db" for row in result["per_silo"]}
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert "<script src" not in page


def test_a_run_says_what_it_found_and_what_it_cost(simulate, tiny, tmp_path):
    done = simulate("run", "synthetic", *tiny, cwd=tmp_path)
    assert done.code == 0, done.err
    for word in ("fused", "silo_alone", "Privacy spent: ε = 4.000", "report.html"):
        assert word in done.out
    assert (tmp_path / "runs" / "synthetic" / "result.json").is_file()


def test_json_output_is_the_result(simulate, tiny, finished, tmp_path):
    done = simulate("run", "synthetic", *tiny, "--out", tmp_path / "out", "--json")
    printed = json.loads(done.out)
    assert printed == result_of(tmp_path / "out")
    assert printed["model_digest"] == result_of(finished)["model_digest"]


def test_a_dry_run_prints_the_plan_and_spends_nothing(simulate, tiny, tmp_path):
    done = simulate("run", "synthetic", *tiny, "--dry-run", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "ε = 4.000" in done.out
    assert "Nothing was spent." in done.out
    assert not any(tmp_path.iterdir())


def test_a_dry_run_in_json_names_every_release(simulate, tiny, tmp_path, finished):
    done = simulate("run", "synthetic", *tiny, "--dry-run", "--json", cwd=tmp_path)
    facts = json.loads(done.out)
    assert [release["kind"] for release in facts["releases"]] == ["popularity", "gram"]
    assert sum(release["share"] for release in facts["releases"]) == pytest.approx(1)
    assert facts["plan"]["digest"] == result_of(finished)["plan"]["digest"]


def test_scenarios_are_listed_with_what_they_show(simulate):
    assert "complete-journey" in simulate("scenarios").out
    rows = json.loads(simulate("scenarios", "--json").out)
    assert {"movielens-1m", "synthetic", "files"} <= {row["name"] for row in rows}
    assert all(row["title"] for row in rows)


def test_data_sets_are_listed_with_how_to_get_them(simulate):
    rows = json.loads(simulate("datasets", "--no-load", "--json").out)
    assert {"complete-journey", "gowalla", "synthetic"} <= {row["name"] for row in rows}
    assert all(row["licence"] and row["source"] and row["how_to_get"] for row in rows)


def test_a_report_is_drawn_again(simulate, finished, tmp_path):
    page = tmp_path / "again.html"
    done = simulate("report", finished, "--out", page)
    assert done.code == 0, done.err
    assert page.read_bytes() == (finished / "report.html").read_bytes()
    assert simulate("report", finished / "result.json", "--out", page).code == 0


def test_a_report_of_nothing_is_refused(simulate, tmp_path):
    assert refused(simulate("report", tmp_path), "result.json")


def test_compare_draws_quality_against_epsilon(simulate, tiny, tmp_path):
    out = tmp_path / "[budgets]"
    done = simulate("compare", "synthetic", *tiny, "--epsilon", "2,8", "--out", out)
    assert done.code == 0, done.err
    assert "ε = 2" in done.out
    assert "[budgets]" in done.out
    assert (out / "report.html").is_file()
    epsilons = [result_of(out / f"epsilon-{e}")["privacy"]["epsilon"] for e in (2, 8)]
    assert epsilons == pytest.approx([2, 8], rel=0.01)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "syntetic"], ["unknown scenario 'syntetic'", "did you mean 'synthetic'"]),
        (["run", "gone.toml"], ["gone.toml does not exist"]),
        (["run", "synthetic", "--set", "privacy.epsilom=1"], ["did you mean 'privacy.epsilon'"]),
        (["run", "synthetic", "--set", "privacy.epsilon=-1"], ["epsilon"]),
        (["run", "synthetic", "--set", "privacy.trust=me"], ["aggregate, silo"]),
        (["run", "synthetic", "--set", "dataset.name=moovielens-1m"], ["'movielens-1m'"]),
        (["run", "synthetic", "--set", 'models=["gramm"]'], ["unknown model 'gramm'", "'gram'"]),
        (["run", "synthetic", "--set", 'baselines=["eas"]'], ["baseline"]),
        (["run", "synthetic", "--set", "[red]=1"], ["[red]"]),
        (["run", "synthetic", "--engine", "rey"], ["engine.kind"]),
        (["run", "synthetic", "--seed", "-1"], ["seed"]),
        (["compare", "synthetic", "--epsilon", "1,x"], ["--epsilon"]),
        (["run", "files"], ["dataset.interactions"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_run_is_refused_in_one_line(simulate, tmp_path, argv, words):
    assert refused(simulate(*argv, cwd=tmp_path), *words)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["movielens-1m", "gowalla", "online-retail-ii"])
def test_a_missing_data_set_says_how_to_get_it(simulate, tmp_path, name):
    done = simulate("run", name, "--data-dir", tmp_path)
    assert refused(done, name, "does not exist", "source:", "licence:", "to get it:", "sha256")


def test_a_data_set_that_is_not_the_documented_one_is_refused(simulate, tmp_path):
    folder = tmp_path / "gowalla_lightgcn"
    folder.mkdir()
    (folder / "interactions.parquet").write_bytes(b"something else")
    assert refused(simulate("run", "gowalla", "--data-dir", tmp_path), "has sha256")


def test_an_out_folder_that_is_a_file_is_refused(simulate, tiny, tmp_path):
    (tmp_path / "out").write_text("mine")
    done = simulate("run", "synthetic", *tiny, "--out", tmp_path / "out")
    assert refused(done, "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_an_out_folder_of_another_run_is_refused(simulate, tiny, finished):
    before = (finished / "result.json").read_bytes()
    for other in (["--set", "privacy.epsilon=2"], ["--set", "dataset.n_users=81"]):
        done = simulate("run", "synthetic", *tiny, *other, "--out", finished)
        assert refused(done, "choose another --out folder")
    assert (finished / "result.json").read_bytes() == before


# a silo's own command


def _customer(finished):
    """A silo's folder and one of its customers."""
    from fondaco.client.dataset_files import load_silo  # noqa: PLC0415

    folder = sorted((finished / "silos").iterdir())[0]
    return folder, str(load_silo(folder).user_ids[0])


def test_a_kept_silo_recommends_and_says_why(client, finished):
    folder, customer = _customer(finished)
    done = client("recommend", "--state", folder, "--customer", customer, "-n", "5", "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert (answer["silo_id"], answer["customer"]) == (folder.name, customer)
    assert len(answer["items"]) == 5
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    for item in answer["items"]:
        parts = item["global"] + item["own"] + item["content"]
        assert parts == pytest.approx(item["score"], abs=1e-3)


def test_recommendations_are_shown_as_a_table(client, finished):
    folder, customer = _customer(finished)
    done = client("recommend", "--state", folder, "--customer", customer)
    assert done.code == 0, done.err
    assert all(word in done.out for word in ("global", "own", "content", customer))


def test_more_items_than_there_are_gives_all_that_are_new(client, finished):
    folder, customer = _customer(finished)
    done = client("recommend", "--state", folder, "--customer", customer, "-n", "999", "--json")
    items = json.loads(done.out)["items"]
    assert 0 < len(items) < 50
    assert len({item["item_id"] for item in items}) == len(items)


def test_an_unknown_customer_is_refused(client, finished):
    folder, _ = _customer(finished)
    for customer in ("nobody", "[/red]", "Jörg"):
        done = client("recommend", "--state", folder, "--customer", customer)
        assert refused(done, "no customer", customer)


def test_a_folder_that_is_no_owners_is_refused(client, tmp_path):
    done = client("recommend", "--state", tmp_path, "--customer", "a")
    assert refused(done, "is no owner's folder", "--keep-silos")
