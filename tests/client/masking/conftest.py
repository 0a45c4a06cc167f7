"""Silos of a masked plan, asked step by step by a coordinator who may lie."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fondaco.shared.chain import store
from fondaco.shared.privacy.plan import Cohort

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("masked_silos")


@pytest.fixture(scope="session")
def five(make_plan, make_masked):
    """A plan of five silos of which four must remain."""
    cohort = Cohort(n_silos=5, n_min=4, t_collude=1)
    return replace(make_plan(n_silos=5), cohort=cohort, **make_masked(5))


@pytest.fixture
def silos(five, catalogue, tmp_path, monkeypatch):
    """Five silos whose disks need not survive a power cut."""
    # Flower may be imported only after pytest knows which of its warnings to ignore.
    from masked_silos import MaskedSilos  # noqa: PLC0415

    connect = store._connect

    def connected(path):
        db = connect(path)
        db.execute("PRAGMA synchronous = OFF")
        return db

    monkeypatch.setattr(store, "_connect", connected)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return MaskedSilos(five, catalogue, tmp_path)
