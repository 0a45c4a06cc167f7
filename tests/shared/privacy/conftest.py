"""A silo's ledger in a folder of its own."""

import pytest

from fondaco.shared.privacy.ledger import Ledger


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledgers" / "north.db"


@pytest.fixture
def ledger(path, plan):
    with Ledger.create(path, "north", plan) as opened:
        yield opened
