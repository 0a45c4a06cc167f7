"""What the tests of deploy/ share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "client" / "sources"))


@pytest.fixture(scope="session")
def compose(tmp_path_factory):
    """compose.yaml as `docker compose` understands it."""
    from deploy_files import compose_config  # noqa: PLC0415

    return compose_config(tmp_path_factory.mktemp("docker"))
