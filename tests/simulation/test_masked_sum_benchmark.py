"""The benchmark of masks measures what it says, and its figures about Flower's seeds are true."""

import json
import math

import numpy as np
import pytest

from fondaco.simulation.benchmarks import masked_sum as benchmark
from fondaco.simulation.benchmarks.masked_sum import Keys, folded, free_seed_bits, main

OURS = ["ours, ring of 32 bits", "ours, ring of 64 bits"]


def _run(folder):
    out = folder / "masked_sum.json"
    main(out=out, numbers=20_000, small=5000, silos=3, repeats=2, seeds=60)
    return json.loads(out.read_text())


def test_benchmark_writes_times_memory_and_ratios_with_units(tmp_path, capsys):
    result = _run(tmp_path)
    rows = result["rows"]
    ways = [*OURS, *OURS, benchmark.CIPHER, benchmark.FLOWER]
    assert [row["way"] for row in rows[:6]] == ways
    assert [row["numbers"] for row in rows[:6]] == [5000, 5000, 20_000, 20_000, 20_000, 5000]
    for row in rows:
        assert 0 < row["least"] <= row["seconds"]
        assert row["per_million"] == pytest.approx(1e6 * row["least"] / row["numbers"])
        assert row["ratio"] == pytest.approx(row["per_million"] / rows[0]["per_million"])
        assert set(result["units"]) <= set(row)
    assert [row["sent"] for row in rows[:6]] == [4, 8, 4, 8, 4, 8]
    assert rows[2]["target"] == pytest.approx(20_000 * 3 * 1e-9)
    assert "per_million" in capsys.readouterr().out


def test_ours_allocates_no_more_for_more_numbers():
    few, many = (benchmark.measure_ours(dim, 2, 32, 1).memory for dim in (1000, 3_000_001))
    assert few > 0
    assert many < few + 50_000


def test_benchmark_without_tenseal_says_so_and_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    rows = _run(tmp_path)["rows"]
    assert not any("CKKS" in row["way"] for row in rows)
    assert "fondaco[bench]" in capsys.readouterr().err


@pytest.mark.parametrize("name", benchmark.CKKS)
def test_ckks_sends_many_times_what_masks_send(name):
    times = benchmark.measure_ckks(8192, name, 1)
    assert times.sent > 40
    assert math.isnan(times.memory)


def test_keys_are_given_out_once_and_signs_take_turns():
    keys = Keys(0)
    taken = keys.take(4) + keys.take(4)
    assert len({key for key, _ in taken}) == 8
    assert [sign for _, sign in taken] == [1, -1, 1, -1] * 2


def test_flower_reads_four_bytes_of_a_seed_of_forty_four():
    seed = Keys(0).take(1)[0][0] + bytes(range(12))
    whole = benchmark.pseudo_rand_gen(seed, 1 << 32, [(100,)])[0]
    np.testing.assert_array_equal(
        whole, benchmark.pseudo_rand_gen(folded(seed), 1 << 32, [(100,)])[0]
    )


def test_flower_leaves_28_bits_of_a_seed_free():
    """False alarms: 28 * 2^-59, a free bit that is the same in all of 60 seeds."""
    assert free_seed_bits(60, lambda *_: None) == 28
