"""A chain of one silo in a folder of its own."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from fondaco.shared.chain.store import (
    Chain,
)

sys.path.insert(0, str(Path(__file__).parent))

from chain_files import GENESIS, OWNER


@pytest.fixture
def path(tmp_path):
    return tmp_path / "north.db"


@pytest.fixture
def chain(path):
    with closing(Chain.create(path, OWNER, [GENESIS])) as opened:
        yield opened
