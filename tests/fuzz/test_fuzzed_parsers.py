"""Every parser of what comes from outside, for some seconds; `run_fuzz.py` searches for longer."""

import importlib
import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FOLDERS = Path(__file__).parent, Path(__file__).parents[1] / "shared" / "secagg"
sys.path[:0] = [str(folder) for folder in FOLDERS if str(folder) not in sys.path]
EXAMPLES = {"frames": 1500, "codec": 2500, "plan": 1500, "kit": 1500, "secagg_messages": 1500}
LONGER = int(os.environ.get("FONDACO_FUZZ", "1"))
"""So many times the usual number of examples."""


@pytest.mark.parametrize("parser", EXAMPLES)
def test_parser_gives_sense_or_a_clean_error_whatever_comes(parser):
    # Flower may be imported only after pytest knows which of its warnings to ignore.
    target = importlib.import_module(f"fuzz_{parser}").target

    @settings(
        max_examples=EXAMPLES[parser] * LONGER,
        deadline=timedelta(seconds=30),
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.binary(max_size=200))
    def search(data):
        target(data)

    search()
