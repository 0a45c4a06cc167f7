"""The command line: exit codes, one-line errors, and a report that answers or says it cannot."""

import json
import sqlite3

import pytest
from typer.testing import CliRunner

from fondaco.shared.audit_cli import app, main

KINDS = ("popularity", "gram")
"""What the sound ledger releases."""


@pytest.fixture
def ask(monkeypatch, capsys):
    """(arguments) -> (exit code, output, errors) as a shell sees them."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["fondaco-audit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        told = capsys.readouterr()
        return stopped.value.code, told.out, told.err

    return run


@pytest.fixture
def sound(kit, tmp_path):
    return kit.sound().save(tmp_path / "north.jsonl")


def as_database(writer, path, mode="DELETE"):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, prev, body TEXT, hash, sig)")
    for seq, (digest, prev, text, signature) in enumerate(writer.records(), start=1):
        db.execute("INSERT INTO records VALUES (?,?,?,?,?)", (seq, prev, text, digest, signature))
    return db


def test_verify_says_that_a_ledger_holds(ask, sound):
    code, out, _ = ask("verify", sound)
    assert code == 0
    assert "holds" in out


def test_verify_names_findings(ask, kit, tmp_path):
    writer = kit.sound()
    writer.bodies[6]["cost"] = 1
    code, out, _ = ask("verify", writer.save(tmp_path / "north.jsonl"), "--json")
    assert code == 1
    assert "cost" in {finding["code"] for finding in json.loads(out)["findings"]}


def test_show_prints_who_unmasked_what(ask, kit, tmp_path):
    path = kit.sound(plan=kit.make_masked_plan()).save(tmp_path / "north.jsonl")
    code, out, _ = ask("show", path, "--type", "unmask", "--json")
    records = json.loads(out)["records"]
    assert code == 0
    assert [(r["type"], r["kind"]) for r in records] == [("UNMASK", k) for k in KINDS]
    assert "masked sha256:" in " ".join(ask("show", path, "--type", "release")[1].split())


@pytest.mark.parametrize("text", ["", "no json\n", '{"body":1}\n', "\x00\xff"])
@pytest.mark.parametrize("command", ["verify", "show", "epsilon"])
def test_damaged_ledger_is_one_clear_line(command, text, ask, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    code, _, err = ask(command, path)
    assert code == 2
    assert err.startswith("error:")
    assert len(err.splitlines()) == 1


def test_missing_files_are_one_clear_line(ask, sound, tmp_path):
    for arguments in [
        ("verify", tmp_path / "none.jsonl"),
        ("verify", sound, "--plan", tmp_path / "none.toml"),
        ("verify", sound, "--witness", tmp_path / "none"),
        ("report", sound, "--out", tmp_path, "--attacks", tmp_path / "none.json"),
    ]:
        code, _, err = ask(*arguments)
        assert (code, len(err.splitlines())) == (2, 1)


def test_data_base_is_read_without_a_trace(ask, kit, tmp_path):
    as_database(kit.sound(), tmp_path / "north.db").close()
    assert ask("verify", tmp_path / "north.db")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["north.db"]


def test_records_in_the_write_ahead_log_count(ask, kit, tmp_path):
    db = as_database(kit.sound(), tmp_path / "north.db", "WAL")
    before = sorted((p.name, p.stat().st_size) for p in tmp_path.iterdir())
    code, out, _ = ask("verify", tmp_path / "north.db", "--json")
    assert (code, json.loads(out)["ledgers"][0]["records"]) == (0, 12)
    assert sorted((p.name, p.stat().st_size) for p in tmp_path.iterdir()) == before
    db.close()


def test_heads_that_the_coordinator_keeps_count(ask, kit, tmp_path):
    folder = tmp_path / "witness"
    folder.mkdir()
    (folder / "heads.notes").write_text(kit.sound().note() + kit.sound("south").note())
    writer = kit.sound()
    assert ask("verify", writer.save(tmp_path / "north.jsonl"), "--witness", folder)[0] == 0
    del writer.bodies[8:], writer.signers[8:]
    assert ask("verify", writer.save(tmp_path / "north.jsonl"), "--witness", folder)[0] == 1


ENDLESS = """WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
SELECT x seq, zeroblob(32) prev, '{}' body, zeroblob(32) hash, zeroblob(64) sig FROM c"""
HOSTILE = {
    "view": f"CREATE VIEW records AS {ENDLESS}",
    "computed": "CREATE TABLE records (seq, prev, body AS (seq), hash, sig)",
    "none": "CREATE TABLE other (seq)",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("command", ["verify", "show"])
def test_data_base_that_computes_records_is_refused(command, name, ask, tmp_path):
    db = sqlite3.connect(tmp_path / "north.db")
    db.execute(HOSTILE[name])
    db.close()
    code, _, err = ask(command, tmp_path / "north.db")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "no plain table" in err


def test_line_without_end_is_refused(ask, tmp_path):
    path = tmp_path / "north.jsonl"
    with path.open("wb") as file:
        file.truncate(2**28)
    code, _, err = ask("show", path)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "longer than" in err


def test_show_prints_records_and_budget_left(sound):
    shown = CliRunner().invoke(app, ["show", str(sound), "--type", "debit", "--json"])
    facts = json.loads(shown.output)
    assert {record["type"] for record in facts["records"]} == {"DEBIT"}
    assert facts["budgets"][0]["left"] == facts["records"][-1]["left"]
    assert "units left" in CliRunner().invoke(app, ["show", str(sound)]).output


def test_epsilon_of_plan_and_ledger_agree(ask, kit, sound, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(kit.make_plan()))
    one, other = (json.loads(ask("epsilon", path, "--json")[1]) for path in (plan, sound))
    assert one == other
    assert len(one["losses"]) == 15


ATTACKS = {
    "schema": 1,
    "kind": "attacks",
    "results": [
        {
            "attack": "<script>alert(1)</script>",
            "target": "gram",
            "claim_epsilon": 1.0,
            "delta": 1e-5,
            "estimate": "lower bound",
            "value": 0.4,
            "confidence": 0.95,
            "verdict": "below claim",
            "power": {},
            "false_alarms": {},
            "settings": {},
        }
    ],
}


def test_report_answers_twelve_points_and_escapes(ask, sound, tmp_path):
    attacks = tmp_path / "attacks.json"
    attacks.write_text(json.dumps(ATTACKS))
    out = tmp_path / "report"
    assert ask("report", sound, "--out", out, "--attacks", attacks)[0] == 0
    facts = json.loads((out / "report.json").read_text())
    assert len(facts["answers"]) == 12
    assert all(answer["known"] or answer["unknown"] for answer in facts["answers"])
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page
    assert page.count("<svg") == 3
    assert "fondaco-audit report" in page
    assert "12. How can others repeat this?" in (out / "report.md").read_text()


def test_report_invents_nothing_that_it_was_not_given(ask, sound, tmp_path):
    ask("report", sound, "--out", tmp_path / "report")
    facts = json.loads((tmp_path / "report" / "report.json").read_text())
    unknown = [answer["unknown"] for answer in facts["answers"]]
    assert unknown[5]
    assert unknown[10] == ["nothing was handed in that tells"]
    assert facts["registry"]["utility"] == "unanswered"


@pytest.mark.parametrize(("verdict", "code"), [("above claim", 1), ("outside the claim", 0)])
def test_report_says_no_where_an_attack_found_more_than_is_claimed(
    verdict, code, ask, sound, tmp_path
):
    attacks = tmp_path / "attacks.json"
    rows = [{**ATTACKS["results"][0], "verdict": verdict}]
    attacks.write_text(json.dumps({**ATTACKS, "results": rows}))
    assert ask("report", sound, "--out", tmp_path / "report", "--attacks", attacks)[0] == code
    assert ("contradict" in (tmp_path / "report" / "report.md").read_text()) == bool(code)


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("attacks", {**ATTACKS, "results": [{"verdict": "fine"}]}),
        ("conformance", {"checks": []}),
        ("conformance", {"checks": [{"name": "noise", "passed": "no"}]}),
    ],
)
def test_report_takes_no_results_that_it_cannot_judge(kind, facts, ask, sound, tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps(facts))
    assert ask("report", sound, "--out", tmp_path / "report", f"--{kind}", results)[0] == 2
