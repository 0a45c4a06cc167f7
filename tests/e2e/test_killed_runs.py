"""kill -9 in the middle, and the same command again: same model, nothing debited twice."""

import json
import sqlite3

import pytest

KILLS = {
    "before the first debit": ("fondaco.shared.privacy.ledger", "Ledger.debit", 1),
    "debited, nothing written": ("fondaco.client.agent", "write_durably", 1),
    "written, not recorded": ("fondaco.shared.privacy.ledger", "Ledger.record_release", 3),
    "released, sum not kept": ("fondaco.server.checkpoint", "Checkpoints.save", 1),
    "in the second round": ("fondaco.client.agent", "write_durably", 6),
    "while publishing": ("fondaco.client.agent", "SiloAgent.receive", 2),
    "before the result": ("fondaco.simulation.cli", "write_result", 1),
}
UNSTABLE = ("timings_s", "peak_rss_bytes", "machine")


def records(folder):
    """Records of every ledger: silo -> [(type, kind)]."""
    found = {}
    for path in sorted((folder / "ledgers").glob("*.db")):
        with sqlite3.connect(path) as db:
            bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM records")]
        db.close()
        found[path.stem] = [(body["type"], body.get("kind", "")) for body in bodies]
    return found


def result_of(folder):
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    for facts in result["models"].values():
        del facts["train_s"]
    return {name: value for name, value in result.items() if name not in UNSTABLE}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS.keys())
def test_a_killed_run_resumes_to_the_same_result(simulate, tiny, finished, tmp_path, kill):
    module, name, nth = kill
    command = ("run", "synthetic", *tiny, "--out", tmp_path / "out")
    killed = simulate(*command, die={"module": module, "name": name, "nth": nth})
    assert killed.code == -9
    assert not (tmp_path / "out" / "result.json").is_file()
    again = simulate(*command)
    assert again.code == 0, again.err
    assert result_of(tmp_path / "out") == result_of(finished)
    for silo, found in records(tmp_path / "out").items():
        debits = [kind for record, kind in found if record == "DEBIT"]
        assert debits == ["popularity", "gram"], silo


def test_two_kills_in_a_row_change_nothing(simulate, tiny, finished, tmp_path):
    command = ("run", "synthetic", *tiny, "--out", tmp_path / "out")
    for name, nth in (("write_durably", 2), ("write_durably", 3)):
        die = {"module": "fondaco.client.agent", "name": name, "nth": nth}
        assert simulate(*command, die=die).code == -9
    assert simulate(*command).code == 0
    assert result_of(tmp_path / "out") == result_of(finished)


def test_numbers_released_before_the_kill_are_sent_again(simulate, tiny, tmp_path):
    command = ("run", "synthetic", *tiny, "--out", tmp_path / "out")
    die = {"module": "fondaco.client.agent", "name": "write_durably", "nth": 4}
    simulate(*command, die=die)
    before = records(tmp_path / "out")
    assert sum(("DEBIT", "popularity") in found for found in before.values()) == 4
    assert simulate(*command).code == 0
    after = records(tmp_path / "out")
    assert all(after[silo][: len(found)] == found for silo, found in before.items())


def test_a_lost_release_is_never_made_again(simulate, tiny, tmp_path):
    """Ledger and outbox disagree: the budget is spent, so the silo is dropped and named."""
    out = tmp_path / "out"
    command = ("run", "synthetic", *tiny, "--out", out)
    die = {"module": "fondaco.server.journal", "name": "Journals.save_total", "nth": 1}
    simulate(*command, die=die)
    before = records(out)
    for blob in (out / "outbox" / "merchant-1").glob("*.bin"):
        blob.unlink()
    done = simulate(*command)
    assert done.code == 2
    assert "merchant-1" in done.err
    debits = [found.count(("DEBIT", "popularity")) for found in records(out).values()]
    assert debits == [found.count(("DEBIT", "popularity")) for found in before.values()]
