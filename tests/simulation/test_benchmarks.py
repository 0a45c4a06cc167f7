"""Benchmarks write what they measured, with units and where it comes from."""

import gc
import json
import warnings

import pytest

from fondaco.shared.errors import RoundError
from fondaco.shared.provenance import code_digest
from fondaco.simulation.benchmarks.common import record
from fondaco.simulation.benchmarks.engines import echo_app, main, time_echoes
from fondaco.simulation.grid import InProcessGrid

ROWS = [{"engine": "ours", "time": 0.123456}, {"engine": "theirs", "time": 7.0}]


def test_record_writes_rows_with_units_seed_and_code(tmp_path, capsys):
    out = tmp_path / "new" / "x.json"
    record("x", ROWS, out, seed=3, units={"time": "s"})
    result = json.loads(out.read_text())
    assert result["rows"] == ROWS
    assert (result["benchmark"], result["seed"]) == ("x", 3)
    assert result["units"] == {"time": "s"}
    assert result["code_digest"] == code_digest()
    assert result["machine"]["cores"] >= 1
    assert [path.name for path in out.parent.iterdir()] == ["x.json"]
    assert "time [s]" in capsys.readouterr().out


def test_record_without_a_file_prints_only(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record("x", ROWS, None, seed=0, units={})
    assert "0.1235" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_echo_takes_one_time_per_round():
    times = time_echoes(InProcessGrid(echo_app(), 5), 5, rounds=3)
    assert len(times) == 3
    assert all(time > 0 for time in times)


def test_echo_refuses_a_round_without_answers():
    class Deaf(InProcessGrid):
        def pull_messages(self, message_ids):
            return []

    with pytest.raises(RoundError, match="0 of 5 silos answered"):
        time_echoes(Deaf(echo_app(), 5), 5, rounds=1)


@pytest.mark.slow
def test_engines_compares_both_engines_on_the_same_jobs(tmp_path):
    out = tmp_path / "engines.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of files that Ray never closes
        main(out=out, silos=20, rounds=1, job_silos=3, seed=0)
        gc.collect()
    rows = json.loads(out.read_text())["rows"]
    assert [row["silos"] for row in rows] == [20, 20, 3]
    assert all(row["ratio"] == pytest.approx(row["ray"] / row["in_process"]) for row in rows)
    assert all(row["ray_start"] > 0 for row in rows)
