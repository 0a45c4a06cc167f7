"""A run of real Flower processes in which one thing after another dies.

FONDACO_FAULTS=all runs every fault of `site_matrix.py` instead, some twenty minutes, as root.
"""

import os

import pytest

ALL = os.environ.get("FONDACO_FAULTS") == "all"
pytestmark = pytest.mark.slow


def test_run_in_which_everything_dies_once_gives_the_same_model(tmp_path):
    from site_matrix import quick_blows, weather  # noqa: PLC0415

    facts = weather(quick_blows(), tmp_path / "site", apart=False)
    assert facts["finished"]
    assert facts["same"]
    assert facts["problems"] == []
    assert [each["fault"] for each in facts["struck"] if not each["done"]] == []


if ALL:

    @pytest.mark.parametrize("first", [0, 1, 2])
    def test_every_fault_of_a_site_ends_with_the_same_model(tmp_path, first):
        from site_matrix import blows, weather  # noqa: PLC0415

        facts = weather(blows(first), tmp_path / "site", apart=True, late=(first + 2) % 3)
        assert facts["finished"]
        assert facts["problems"] == []
        assert facts["same"]
