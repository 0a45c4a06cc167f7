import os

import numpy as np
import pytest

from fondaco.shared import workspace as workspace_module
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import folder_name
from fondaco.shared.vocabulary import Vocabulary
from fondaco.shared.workspace import Workspace

FILES = ["catalogue.json", "plan.json", "run.json"]


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue(
        items=Vocabulary(tuple("abcde")),
        texts=("lamp",) * 5,
        categories=("",) * 5,
        brands=("",) * 5,
        prices=np.full(5, np.nan),
    )


@pytest.fixture(scope="module")
def plan(make_plan, catalogue):
    return make_plan(catalogue_digest=catalogue.digest)


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_prepared_workspace_is_read_as_it_was_written(tmp_path, plan, catalogue):
    workspace = Workspace(tmp_path)
    workspace.prepare(plan, catalogue, ["north", "south"], 7)
    assert workspace.read_plan() == plan
    assert workspace.read_catalogue(plan).digest == catalogue.digest
    assert workspace.read_silos() == (["north", "south"], 7)
    assert _names(tmp_path) == FILES


def test_a_workspace_of_another_run_is_refused(tmp_path, plan, catalogue):
    workspace = Workspace(tmp_path)
    workspace.prepare(plan, catalogue, ["north"], 7)
    with pytest.raises(ConfigError, match="another run"):
        workspace.prepare(plan, catalogue, ["north"], 8)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"silos": []}'])
def test_a_damaged_workspace_says_what_to_remove_and_is_mended_by_that(
    tmp_path, plan, catalogue, text
):
    workspace = Workspace(tmp_path)
    workspace.prepare(plan, catalogue, ["north"], 7)
    (tmp_path / "run.json").write_text(text)
    fix = r"run\.json is damaged; remove it and give the command again"
    with pytest.raises(ConfigError, match=fix):
        workspace.read_silos()
    with pytest.raises(ConfigError, match=fix):
        workspace.prepare(plan, catalogue, ["north"], 7)
    (tmp_path / "run.json").unlink()
    workspace.prepare(plan, catalogue, ["north"], 7)
    assert workspace.read_silos() == (["north"], 7)


def test_a_workspace_is_on_disk_before_it_says_that_it_is_there(
    tmp_path, plan, catalogue, monkeypatch
):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle)), sync(handle)))
    Workspace(tmp_path).prepare(plan, catalogue, ["north"], 7)
    known = {found.st_ino for found in synced}
    assert {(tmp_path / name).stat().st_ino for name in FILES} <= known


@pytest.mark.parametrize("left", range(4))
def test_a_prepare_killed_at_any_file_is_completed_by_the_next(
    tmp_path, plan, catalogue, monkeypatch, left
):
    """`run.json` comes last: where it is, everything else is there."""
    calls = []

    def replace(path, target):
        calls.append(target)
        if len(calls) > left:
            raise KeyboardInterrupt
        return rename(path, target)

    workspace, rename = Workspace(tmp_path), workspace_module.Path.replace
    monkeypatch.setattr(workspace_module.Path, "replace", replace)
    if left < len(FILES):
        with pytest.raises(KeyboardInterrupt):
            workspace.prepare(plan, catalogue, ["north"], 7)
        assert not (tmp_path / "run.json").exists()
    monkeypatch.undo()
    workspace.prepare(plan, catalogue, ["north"], 7)
    assert workspace.read_plan() == plan
    assert _names(tmp_path) == FILES


@pytest.mark.parametrize("silo_id", ["..", ".", "a/b", "../../etc", "Süd", "a b", "%2E."])
def test_silos_folder_never_leads_out_of_the_workspace(tmp_path, silo_id):
    folder = Workspace(tmp_path).silo(silo_id)
    assert folder.resolve().parent == tmp_path / "silos"
    assert not folder.name.startswith(".")


def test_silos_never_share_a_folder():
    names = ["..", "%2E.", "%252E.", "a/b", "a%2Fb", ".a", "%2Ea"]
    assert len({folder_name(name) for name in names}) == len(names)
