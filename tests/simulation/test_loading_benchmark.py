"""The benchmark of loading measures real loads: the same rows from every kind of source."""

import json

import pytest

from fondaco.simulation.benchmarks import loading as benchmark


@pytest.mark.slow
def test_benchmark_loads_the_same_rows_from_every_kind(tmp_path, capsys):
    out = tmp_path / "loading.json"
    benchmark.main(out=out, rows=3000, items=100, seed=1, folder=tmp_path)
    result = json.loads(out.read_text())
    assert [row["kind"] for row in result["rows"]] == list(benchmark.WRITERS)
    assert {row["rows"] for row in result["rows"]} == {3000}
    assert len({row["customers"] for row in result["rows"]}) == 1
    assert all(row["speed"] > 0 and row["memory"] > 10 for row in result["rows"])
    assert "rows/s" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["loading.json"]


def test_orders_are_those_of_the_seed():
    (first,), (again,), (other,) = (list(benchmark.orders(50, 9, seed)) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not (first[0] == other[0]).all()
    assert len(first[0]) == 50
