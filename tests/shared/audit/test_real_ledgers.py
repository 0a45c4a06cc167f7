"""Two implementations agree: what a silo's own code writes, the verifier accepts, and no more."""

import hashlib
import json

import pytest

from fondaco.shared.audit.plans import read_plan
from fondaco.shared.audit.reading import read_plan_text
from fondaco.shared.audit.report import complete, report_facts
from fondaco.shared.audit.verify import verify
from fondaco.shared.calibration import Statistic
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.errors import RefusalError
from fondaco.shared.plan_text import to_toml
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.policy import Policy

REQUEST = f"sha256:{hashlib.sha256(b'request').hexdigest()}"


@pytest.fixture
def ledger(tmp_path, plan, owner):
    policy = Policy(
        epsilon_per_year="6", epsilon_if_masking_broke="50", target_delta="1e-06", order="8/1"
    )
    with Ledger.open_or_create(tmp_path / "north.db", "north", owner, plan) as opened:
        opened.adopt(policy)
        for event in plan.releases:
            debit = opened.debit(event.kind, event.round_num, request=REQUEST, commit="ab" * 32)
            opened.record_release(debit, b"noisy sums", "seeded chacha20: no claim")
        with pytest.raises(RefusalError):
            opened.debit("gram", 99, request=REQUEST)
        opened.note_erasure(12)
        opened.note_audit(b"report", "holds", "somebody")
        opened.chain.rotate(Identity.seeded(1, key_name("north")))
        yield opened


def codes(found):
    return {finding.code for finding in found.findings if finding.severity == "error"}


def test_ledger_of_a_silo_holds_as_file_and_as_export(ledger, plan, tmp_path):
    export = tmp_path / "export.jsonl"
    export.write_text("".join(f"{line}\n" for line in ledger.chain.lines()), encoding="utf-8")
    for path in (tmp_path / "north.db", export):
        found = verify([path], [read_plan(json.loads(plan.to_json()))], [], lambda *_: None)
        assert codes(found) == set()
        assert found.ledgers[0].spent[plan.digest] == ledger.spent_units()


@pytest.mark.parametrize("trust", ["silo", "aggregate"])
def test_ledger_of_a_sampled_plan_holds(trust, owner, make_plan, tmp_path):
    sampled = Statistic(kind="mf", share=9, dim=10, rounds=3, sampling_ppm=200_000)
    whole = Statistic(kind="popularity", share=1, dim=5)
    plan = make_plan((whole, sampled), epsilon=2.0, trust=trust)
    with Ledger.open_or_create(tmp_path / "north.db", "north", owner, plan) as opened:
        opened.approve(plan)
    assert codes(verify([tmp_path / "north.db"], [], [], lambda *_: None)) == set()


def test_plan_reads_alike_from_toml_and_json(plan, tmp_path):
    for name, text in [("plan.toml", to_toml(plan)), ("plan.json", plan.to_json())]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        read = read_plan(json.loads(read_plan_text(tmp_path / name)))
        assert read.digest == plan.digest
        assert read.epsilons == pytest.approx(plan.epsilons(), abs=1e-9)


def test_note_of_a_silo_is_read(ledger, tmp_path):
    (tmp_path / "north.note").write_text(ledger.chain.note(), encoding="utf-8")
    found = verify([tmp_path / "north.db"], [], [tmp_path / "north.note"], lambda *_: None)
    assert codes(found) == set()


def test_report_adds_up_the_plans_of_a_ledger(tmp_path, make_plan, owner):
    plans = [make_plan(epsilon=epsilon) for epsilon in (1.0, 2.0)]
    path = tmp_path / "north.db"
    for plan in plans:
        with Ledger.open_or_create(path, "north", owner, plan) as ledger:
            ledger.approve(plan)
            ledger.debit("popularity", 1, request=REQUEST, commit="0" * 64)
    facts = complete(report_facts(verify([path], [], [], lambda *news: None)))
    (ledger,) = facts["ledgers"]
    assert 2.0 < ledger["together"] < 3.0
    said = [text for _, texts in facts["plain"]["sections"] for text in texts]
    assert any("all its plans together" in text for text in said)


@pytest.mark.parametrize("tested", ["the plan's", "other"])
def test_tests_of_other_code_prove_nothing(tmp_path, plan, owner, tested):
    path = tmp_path / "north.db"
    with Ledger.open_or_create(path, "north", owner, plan) as ledger:
        ledger.debit("popularity", 1, request=REQUEST, commit="0" * 64)
    code = plan.code_digest if tested == "the plan's" else "sha256:other"
    results = {"code": {"code_digest": code}, "checks": [{"name": "noise", "passed": 1}]}
    found = verify([path], [], [], lambda *news: None)
    facts = complete(report_facts(found, conformance=results))
    assert ("passed" in json.dumps(facts["registry"])) == (tested == "the plan's")
