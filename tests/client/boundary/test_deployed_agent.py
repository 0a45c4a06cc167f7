"""An owner's folder becomes an agent, or words that say what is missing."""

import os
import time
from dataclasses import replace
from threading import Thread

import pytest
from builders import silo_of

from fondaco.client import answers
from fondaco.client import deployed as deployed_agent
from fondaco.client.answers import public_reason
from fondaco.client.boundary import frames
from fondaco.client.dataset_files import save_silo
from fondaco.client.deployed import MODEL, DeployedAgent
from fondaco.client.owner import PEERS, Owner
from fondaco.shared import codec
from fondaco.shared.catalogue import save_catalogue
from fondaco.shared.chain.witness import Call
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import ConfigError, DataError, FondacoError, RefusalError
from fondaco.shared.parts import Parts
from fondaco.shared.preflight import question
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.records import PrivateUpdate, SiloStatus
from fondaco.shared.vocabulary import Vocabulary
from fondaco.shared.workspace import Workspace

NO_CALL = Call().to_bytes()


def _status(deployed):
    said = deployed.answer("status", Parts(b"", NO_CALL))
    return codec.decode(said.record, SiloStatus, Shapes.of_plan(deployed.agent.plan))


def test_owners_folder_answers_for_its_plan_and_rows(owned):
    deployed = DeployedAgent(owned.home)
    assert deployed.silo_id == "north"
    assert _status(deployed).plan_digest == owned.plan.digest
    said = deployed.answer("release", owned.request())
    update = codec.decode(said.record, PrivateUpdate, Shapes.of_plan(owned.plan))
    assert (update.silo_id, len(update.values)) == ("north", 5)
    assert len(owned.records("DEBIT", "RELEASE")) == 2


def test_every_action_of_a_coordinator_has_an_answer():
    assert answers.ACTIONS.keys() == frames.ACTIONS.keys()


def test_rehearsal_of_a_large_catalogue_fits_into_a_frame(owned, monkeypatch):
    monkeypatch.setattr(deployed_agent, "MAX_MASKING", 16)
    asked = question(bytes(32), owned.plan)
    assert DeployedAgent(owned.home).limits().masking == len(asked)


def test_folder_without_a_plan_is_refused(tmp_path):
    Owner.make(tmp_path / "new", "north")
    with pytest.raises(ConfigError, match="no plan in force"):
        DeployedAgent(tmp_path / "new")


def test_folder_whose_owner_left_is_refused_in_words_for_everybody(owned):
    owned.leave()
    with pytest.raises(RefusalError) as caught:
        DeployedAgent(owned.home)
    assert caught.value.code == "left"
    assert "RefusalError: the owner has left: shop sold" in public_reason(caught.value)


def test_folder_without_rows_is_refused(owned):
    (owned.home / "data" / "dataset.json").unlink()
    with pytest.raises(ConfigError, match="no rows"):
        DeployedAgent(owned.home)


def test_folder_with_rows_of_another_silo_is_refused(owned):
    owned.write_rows(silo_id="south")
    with pytest.raises(FondacoError, match="rows of 'south'"):
        DeployedAgent(owned.home)


def test_folder_with_another_catalogue_is_refused(owned):
    other = replace(owned.catalogue, items=Vocabulary(tuple("abcdf")))
    save_catalogue(other, owned.home / "kit" / "catalogue.json")
    with pytest.raises(DataError):
        DeployedAgent(owned.home)
    (owned.home / "kit" / "catalogue.json").unlink()
    with pytest.raises(FondacoError):
        DeployedAgent(owned.home)


def test_other_code_than_the_plans_is_refused(owned, monkeypatch):
    monkeypatch.setattr("fondaco.client.owner.code_digest", lambda: "sha256:changed")
    with pytest.raises(RefusalError, match="the plan is for code") as caught:
        DeployedAgent(owned.home)
    assert caught.value.code == "other-code"


def test_plan_of_a_simulation_in_an_owners_folder_is_refused(owned, monkeypatch):
    simulated = replace(owned.plan, mode="simulation")
    monkeypatch.setattr("fondaco.client.owner.Owner.approved", lambda self: simulated)
    with pytest.raises(RefusalError, match="protects nobody"):
        DeployedAgent(owned.home)


def test_deployed_plan_in_a_simulated_silos_folder_is_refused(owned, tmp_path):
    """Its key follows from a seed that everybody knows."""
    workspace = Workspace(tmp_path / "run")
    workspace.prepare(owned.plan, owned.catalogue, ["north"], seed=0)
    folder = tmp_path / "run" / "silos" / "north"
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_silo(silo_of(), folder)
    with pytest.raises(ConfigError, match="its keys are public"):
        DeployedAgent(folder)


def test_newer_plan_is_taken_up_at_the_next_message(owned):
    deployed = DeployedAgent(owned.home)
    old = owned.request()
    newer = owned.new_plan(public={"split": "2020-01-01"})
    owned.owner.approve(newer)
    assert _status(deployed).plan_digest == newer.digest
    with pytest.raises(RefusalError):
        deployed.answer("release", old)
    owned.plan = newer
    deployed.answer("release", owned.request())
    assert {r["plan_digest"] for r in owned.records("DEBIT")} == {newer.digest}


def test_plan_that_was_taken_back_is_answered_for_no_more(owned):
    deployed = DeployedAgent(owned.home)
    request = owned.request()
    owned.leave()
    for _ in range(2):
        with pytest.raises(RefusalError, match="has left"):
            deployed.answer("release", request)
        with pytest.raises(RefusalError, match="has left"):
            deployed.limits()
    assert owned.records("DEBIT") == []


def test_sum_under_way_when_its_owner_leaves_is_not_released(owned, monkeypatch):
    leaving = Thread(target=owned.leave)
    release = Ledger.record_release

    def slow(ledger, *facts, **more):
        leaving.start()
        while owned.records("PLAN")[-1]["approved"]:
            time.sleep(0.01)
        return release(ledger, *facts, **more)

    monkeypatch.setattr(Ledger, "record_release", slow)
    with pytest.raises(RefusalError, match="has left"):
        DeployedAgent(owned.home).answer("release", owned.request())
    leaving.join(30)
    assert not leaving.is_alive()
    assert len(owned.records("DEBIT")) == 1
    assert owned.records("RELEASE") == []


def test_plan_that_was_signed_again_is_answered_for(owned):
    deployed = DeployedAgent(owned.home)
    owned.leave()
    with pytest.raises(RefusalError):
        deployed.limits()
    owned.owner.approve(owned.plan)
    deployed.answer("release", owned.request())


def test_key_that_was_rotated_is_taken_up_and_no_longer_fits_the_plan(owned):
    deployed = DeployedAgent(owned.home)
    owned.owner.rotate()
    with pytest.raises(RefusalError, match="does not hold this owner's key"):
        deployed.answer("status", Parts(b"", NO_CALL))


@pytest.mark.parametrize("left", [0, -1], ids=["all", "one"])
def test_peers_key_that_is_trusted_no_more_ends_the_answers(owned, left):
    deployed = DeployedAgent(owned.home)
    path = owned.home / PEERS
    path.write_text("\n".join(path.read_text().split()[:left]))
    with pytest.raises(RefusalError, match="not pinned") as caught:
        deployed.answer("release", owned.request())
    assert caught.value.code == "unknown-peer"


def test_newer_rows_are_taken_up_at_the_next_message(owned):
    deployed = DeployedAgent(owned.home)
    before = deployed.agent
    assert deployed.agent is before
    owned.write_rows(pairs=((0, 1), (0, 1), (1, 3)))
    assert deployed.agent is not before
    deployed.answer("release", owned.request())


def test_rows_that_go_missing_are_told_without_their_path(owned):
    deployed = DeployedAgent(owned.home)
    (owned.home / "data" / "dataset.json").unlink()
    with pytest.raises(ConfigError) as caught:
        deployed.limits()
    assert str(owned.home) not in public_reason(caught.value)


def test_model_is_kept_at_the_last_publish_only(owned, make_model):
    deployed = DeployedAgent(owned.home)
    path = owned.home / MODEL
    for after, there in ((1, False), (2, True)):
        blob = make_model(owned.plan, after_round=after)
        deployed.answer("publish", Parts(blob, NO_CALL))
        assert path.is_file() is there
    assert path.read_bytes() == blob
    assert path.stat().st_mode & 0o077 == 0
    deployed.answer("publish", Parts(make_model(owned.plan, after_round=1), NO_CALL))
    assert path.read_bytes() == blob


def test_model_that_is_damaged_is_not_kept(owned, make_model):
    deployed = DeployedAgent(owned.home)
    blob = make_model(owned.plan, after_round=2)
    with pytest.raises(FondacoError):
        deployed.answer("publish", Parts(blob[:-1], NO_CALL))
    assert not (owned.home / MODEL).exists()


def test_plan_limits_how_large_a_message_may_be(owned, make_model):
    deployed = DeployedAgent(owned.home)
    most = deployed.limits().record
    assert len(make_model(owned.plan)) <= most < 100_000


@pytest.mark.parametrize("junk", [b"", b"?", b"{}", b'{"since":-1}', b"\xff" * 100])
def test_release_with_junk_about_ledgers_costs_nothing(owned, junk):
    deployed = DeployedAgent(owned.home)
    with pytest.raises(FondacoError):
        deployed.answer("release", Parts(owned.request().record, junk))
    assert owned.records("DEBIT") == []


def test_files_of_the_owner_are_for_its_eyes_alone(owned):
    deployed = DeployedAgent(owned.home)
    os.umask(0o022)
    deployed.answer("release", owned.request())
    assert owned.home.stat().st_mode & 0o077 == 0
