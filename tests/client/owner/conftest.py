"""A data owner at the console: its script, its key, and a plan that waits for the signature."""

import sys
from pathlib import Path

import pytest

from fondaco.client.owner import Owner
from fondaco.shared.plan_text import to_toml

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def owner(script):
    """The owner of a fresh key, made on the command line."""
    script.own("keys", "--silo", "north")
    return Owner.open(script.home)


@pytest.fixture
def make_deployed(make_plan, make_roster):
    """Return a plan of ten owners in which `owner` holds its own key."""

    def make(owner, **changes):
        terms = make_roster(mode="deploy", **changes)
        terms["roster"] = {**terms["roster"], owner.silo_id: owner.identity.public.text()}
        return make_plan(trust="silo", **terms)

    return make


@pytest.fixture
def ready(script, owner, make_deployed):
    """An owner with limits and pinned peers, and the file of a plan that waits."""
    plan = make_deployed(owner)
    keys = [key for silo, key in plan.roster.items() if silo != "north"]
    peers = [word for key in (*keys, plan.coordinator) for word in ("--peer", key)]
    limits = "--epsilon-per-year", 3, "--epsilon-if-masking-broke", 4, "--target-delta", "1e-6"
    script.own("policy", *limits, *peers)
    path = script.home.parent / "plan.toml"
    path.write_text(to_toml(plan))
    return plan, path
