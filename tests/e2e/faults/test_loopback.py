"""`fondaco-simulate loopback`: real processes give the model of one process, to the last bit.

What it starts is killed while it runs, one thing after another: the quick ones of `site_matrix.py`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders import SMALL_DATA
from fault_tools import wrong_with
from site_faults import Storm
from site_matrix import quick_blows

from fondaco.client.owner import Owner
from fondaco.simulation.hosts import Hosts
from fondaco.simulation.library import load_scenario
from fondaco.simulation.loopback import STOP_S, Site
from fondaco.simulation.run import prepare

BIN = Path(sys.executable).parent
SMALL = ("silos.count=3", *SMALL_DATA)

pytestmark = pytest.mark.slow


def _command(out):
    settings = [word for setting in SMALL for word in ("--set", setting)]
    return [str(BIN / "fondaco-simulate"), "loopback", "synthetic", "--out", str(out), *settings]


@pytest.fixture(scope="module")
def storm(tmp_path_factory):
    """A loopback run in which agents, a SuperExec and the SuperLink died."""
    out = tmp_path_factory.mktemp("loopback") / "run"
    site = Site(out=out, prepared=prepare(load_scenario("synthetic", SMALL)), hosts=Hosts.none())
    storm = Storm(site, command=_command(out))
    try:
        assert storm.go(quick_blows(), most_runs=1), storm.last_words()
        yield storm
    finally:
        if storm.cli is not None:
            storm.cli.terminate()
            storm.cli.wait(STOP_S)


def test_processes_give_the_model_of_one_process_and_ledgers_that_hold(storm):
    went = json.loads(storm.said.read_text())
    assert went["same"]
    assert went["status"]["state"] == "finished"
    assert [seen["kind"] for seen in went["status"]["rounds"]] == ["popularity", "gram"]
    assert set(went["audited"].values()) == {0}
    assert all(Path(path).stat().st_size > 0 for path in went["lists"].values())


def test_everything_that_was_to_die_while_they_ran_has_died(storm):
    assert [each.fault for each in storm.struck if each.done] == [b.fault for b in quick_blows()]


def test_nothing_was_debited_twice_or_released_without_a_debit(storm):
    for silo in storm.site.prepared.silo_ids:
        with Owner.open(storm.site.home(silo)).ledger() as ledger:
            assert wrong_with(ledger.records(), storm.site.prepared.plan) == []


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    done = subprocess.run(  # noqa: S603  (our own program)
        _command("run"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "holds something already" in done.stderr
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep"
