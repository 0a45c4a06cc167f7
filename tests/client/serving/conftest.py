"""A catalogue of odd and even items, and everybody's model of it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from builders import taste_catalogue, taste_values

from fondaco.shared.records import GlobalModel

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def catalogue():
    return taste_catalogue()


@pytest.fixture(scope="module")
def model(catalogue):
    """Everybody's model of two tastes, odd and even items, over a head of twelve."""
    return GlobalModel(
        plan_digest="sha256:plan",
        catalogue_digest=catalogue.digest,
        after_round=2,
        parameters=np.zeros(0, dtype=np.float32),
        fusion=np.tile([1.0, 0.0], (4, 1)).astype(np.float32),
        **taste_values(0),
    )
