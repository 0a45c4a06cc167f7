"""A silo's ledger in a folder of its own."""

import pytest

from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.privacy.ledger import Ledger

OWNER = Identity.seeded(0, key_name("north"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledgers" / "north.db"


@pytest.fixture
def ledger(path, plan):
    with Ledger.open_or_create(path, "north", OWNER, plan) as opened:
        yield opened
