"""The benchmark of ledgers measures real records: they are paid, witnessed and hold."""

import json

import pytest

from fondaco.shared.audit.verify import verify
from fondaco.simulation.benchmarks import ledger as benchmark
from fondaco.simulation.benchmarks.ledger import Book, fill, main, plan_of, run_rounds


def _book(folder, n_rounds):
    owner = benchmark._identities()[benchmark.SILOS[0]]
    return Book(path=folder / "x.db", owner=owner, plan=plan_of(n_rounds))


def test_benchmark_writes_times_with_units(tmp_path, capsys):
    out = tmp_path / "ledger.json"
    main(out=out, rounds=4, records=50, more=5, folder=tmp_path)
    result = json.loads(out.read_text())
    assert [row["records"] for row in result["rows"]] == [14, 55]
    for row in result["rows"]:
        assert 0 < row["append_p50"] <= row["append_p99"]
        assert row["audited"] > 0
        assert 300 < row["record_size"] < 20_000
        assert set(result["units"]) <= set(row)
    assert result["units"]["append_p99"] == "ms"
    assert "append_p99" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.json"]


def test_measured_rounds_are_paid_and_witnessed(tmp_path):
    book = _book(tmp_path, 3)
    seconds = run_rounds(book)
    assert [len(times) for times in seconds.values()] == [3, 3, 3]
    with book.open() as ledger:
        records, lines = ledger.records(), ledger.chain.lines()
    assert [r["type"] for r in records[2:]] == ["DEBIT", "RELEASE", "COSIGN"] * 3
    assert records[-3]["left"] == 0
    (tmp_path / "x.jsonl").write_text("".join(f"{line}\n" for line in lines))
    found = verify([tmp_path / "x.jsonl"], [], [], lambda *_: None)
    assert found.holds, found.findings


@pytest.mark.parametrize("n_records", [10, 11])
def test_large_ledger_has_the_size_that_was_asked_for(tmp_path, n_records):
    book = _book(tmp_path, 1)
    assert fill(book, n_records) > 0
    with book.open() as ledger:
        assert len(ledger.records()) == n_records
