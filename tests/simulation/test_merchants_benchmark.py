import numpy as np
import pytest

TINY = (
    "dataset.n_users=160",
    "dataset.n_items=80",
    "dataset.declared_users=160",
    "silos.count=4",
    "privacy.head=10",
    "content_tower.rounds=2",
)


@pytest.fixture(scope="module")
def rows():
    # Flower may be imported only after pytest knows which of its warnings to ignore.
    from fondaco.simulation.benchmarks.merchants import measure_job  # noqa: PLC0415

    return measure_job("disjoint-merchants", TINY, [8.0], [0, 1])


def test_every_case_and_system_has_a_row(rows):
    cases = {row["case"] for row in rows}
    assert {"all", "small silos"} <= cases
    systems = {row["system"] for row in rows if row["case"] == "all"}
    assert {"dp_popularity", "global", "content_alone", "silo_alone", "fused"} <= systems
    assert all(row["n_seeds"] == 2 for row in rows)


def test_differences_are_paired_and_lie_within_their_intervals(rows):
    by = {(row["case"], row["system"]): row for row in rows}
    for (case, _), row in by.items():
        for rival in ("silo_alone", "content_alone"):
            assert row[f"low_{rival}"] <= row[f"above_{rival}"] <= row[f"high_{rival}"]
            difference = row["mean"] - by[case, rival]["mean"]
            assert row[f"above_{rival}"] == pytest.approx(difference)


def test_a_rival_is_not_above_itself(rows):
    mine = [row for row in rows if row["system"] == "silo_alone"]
    assert {row["above_silo_alone"] for row in mine} == {0.0}
    assert all(np.isfinite(row["mean"]) for row in rows)
