"""A shop whose orders lie in files and in real databases, and its owner's folder."""

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from fondaco.client.owner import Owner
from fondaco.shared.catalogue import save_catalogue
from fondaco.shared.plan_text import to_toml

sys.path.insert(0, str(Path(__file__).parent))

import database_servers
import shop_tables

DATES = {"valid_from": "2020-03-01", "test_from": "2020-04-01"}


class Servers(dict):
    """Kind -> a running server, started when it is first asked for."""

    def __init__(self, stack):
        super().__init__()
        self._stack = stack

    def __missing__(self, kind):
        start = {"postgresql": database_servers.postgresql, "mysql": database_servers.mariadb}
        self[kind] = self._stack.enter_context(start[kind]())
        return self[kind]


@pytest.fixture(scope="session")
def servers():
    with ExitStack() as stack:
        yield Servers(stack)


@pytest.fixture
def shop(tmp_path, servers):
    made = shop_tables.Shop(tmp_path / "shop", servers)
    made.folder.mkdir()
    yield made
    for kind in set(servers) & set(shop_tables.SERVERS):
        with made.admin(kind) as admin:
            for num in range(1, made._written + 1):
                admin.exec_driver_sql(f"DROP TABLE IF EXISTS orders{num}")


@pytest.fixture
def timed_plan(make_plan, make_roster):
    """A plan that holds March 2020 back to tune by."""
    public = {"protocol": "time", "repeats": "no", "declared_users": "100", **DATES}
    return make_plan(public=public, trust="silo", **make_roster(mode="deploy"))


@pytest.fixture
def all_rows_plan(timed_plan):
    """A plan that holds nothing back."""
    return replace(timed_plan, public={"protocol": "all-rows", "repeats": "no"})


@pytest.fixture
def home(tmp_path, timed_plan, catalogue):
    """An owner's folder with a kit in it, as `init` leaves it."""
    owner = Owner.make(tmp_path / "home", "north")
    kit = owner.folder / "kit"
    kit.mkdir()
    (kit / "plan.toml").write_text(to_toml(timed_plan))
    save_catalogue(catalogue, kit / "catalogue.json")
    return owner
