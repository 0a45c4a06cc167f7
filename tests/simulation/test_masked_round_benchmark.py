"""The benchmark of masked rounds times the same federation twice, with masks and without."""

import json

from fondaco.simulation.benchmarks.masked_round import main, measure

KNOBS = ["silos.count=3", "dataset.declared_users=300", "privacy.head=20"]


def test_benchmark_writes_a_row_per_release_and_one_for_all(tmp_path, capsys):
    out = tmp_path / "round.json"
    main(scenario="synthetic", settings=KNOBS, repeats=1, out=out)
    result = json.loads(out.read_text())
    stages = {row["stage"]: row for row in result["rows"]}
    assert {"popularity", "gram", "all rounds", "whole run"} <= set(stages)
    assert stages["gram"]["numbers"] == 210
    for row in result["rows"]:
        assert row["ratio"] > 0
        assert row["masked"] <= stages["whole run"]["masked"]
    assert "ratio" in capsys.readouterr().out


def test_progress_counts_runs_of_both_ways():
    told = []
    rows = measure("synthetic", KNOBS, 2, lambda *news: told.append(news))
    assert told == [("federate", num, 4) for num in (1, 2, 3, 4)]
    assert {row["repeats"] for row in rows} == {2}
