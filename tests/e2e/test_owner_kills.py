"""kill -9 while an owner signs a plan, sets limits or erases a customer: all of it or none."""

import json
import signal

import pytest
from kill_points import APPROVING, ERASING
from kill_world import make_silo

from fondaco.client.dataset_files import load_silo, save_silo
from fondaco.client.erasure import Erasures
from fondaco.client.forgetting import forget
from fondaco.client.limits import new_policy
from fondaco.client.owner import Owner
from fondaco.shared.chain import store as store_module
from fondaco.shared.chain.store import Chain, Record, check_links


@pytest.fixture
def shop(tmp_path, make_plan, make_roster):
    """An owner with rows and limits, and a plan that waits for the signature."""
    owner = Owner.make(tmp_path / "shop", "north")
    roster = make_roster(mode="deploy")
    keys = {**roster["roster"], "north": owner.identity.public.text()}
    plan = make_plan(trust="silo", **{**roster, "roster": keys})
    peers = [key for silo, key in keys.items() if silo != "north"]
    owner.pin([store_module.PublicKey.from_text(key) for key in (*peers, plan.coordinator)])
    with owner.ledger() as ledger:
        ledger.adopt(new_policy(None, 50.0, 50.0, 1e-6))
    save_silo(make_silo("north"), owner.rows)
    plan.epsilons()
    return owner, plan


def _types(owner):
    with owner.ledger() as ledger:
        check_links(map(Record.from_line, ledger.chain.lines()))
        return [record["type"] for record in ledger.records()]


@pytest.mark.parametrize("name", APPROVING)
def test_approval_killed_on_the_way_is_whole_or_not_there(shop, name, children):
    owner, plan = shop

    def approve():
        children.die_in(*APPROVING[name])
        Owner.open(owner.folder).approve(plan)

    assert children.ended(approve) == -signal.SIGKILL
    whole = "after" in APPROVING[name][2] and APPROVING[name][0] is not Chain
    assert (owner.approved() is not None) == whole
    owner.approve(plan)
    assert owner.approved() == plan
    assert _types(owner) == ["GENESIS", "POLICY", "PLAN"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_limits_killed_on_the_way_are_the_old_or_the_new(shop, when, children):
    owner, _ = shop
    tighter = new_policy(None, 1.0, 2.0, 1e-6)

    def tighten():
        children.die_in(Chain, "_keep", when)
        with owner.ledger() as ledger:
            ledger.adopt(tighter)

    assert children.ended(tighten) == -signal.SIGKILL
    with owner.ledger() as ledger:
        assert ledger.policy().epsilon_per_year == "50.0"
        ledger.adopt(tighter)
    assert _types(owner) == ["GENESIS", "POLICY", "POLICY"]


@pytest.mark.parametrize("name", ERASING)
def test_erasure_killed_on_the_way_ends_when_it_is_asked_for_again(shop, name, children):
    owner, _ = shop
    gone = "north-customer-1"

    def erase():
        children.die_in(*ERASING[name])
        forget(Owner.open(owner.folder), gone)

    assert children.ended(erase) == -signal.SIGKILL
    again = Owner.open(owner.folder)
    if name != "before the list":
        kept = Erasures(again.home.erased, again.home.secret(again.identity)).kept(
            load_silo(owner.rows)
        )
        assert gone not in kept.user_ids.tolist()
    if name != "after the record":
        forget(again, gone)
    assert _types(again).count("ERASURE") == 1
    assert load_silo(owner.rows).user_ids.tolist() == ["north-customer-0", "north-customer-2"]
    json.loads((owner.folder / "owner.json").read_text())
    assert not [path.name for path in owner.folder.parent.iterdir() if path != owner.folder]
