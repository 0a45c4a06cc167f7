"""What the facts say to a privacy officer, and to the twelve questions of a review.

Questions follow NIST SP 800-226's pyramid. What files cannot show is said to be unanswered.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from .losses import SERVER, WHO
from .report_trust import NOT_MASKED, is_masked, seen_in_words, trust_answers

Facts = Mapping[str, Any]

NOT_COVERED = (
    "Raw data at the silo, and whatever its own staff can see there.",
    "Totals of a whole silo, such as its turnover: the promise is about one customer.",
    "The catalogue, if it was made from what customers bought.",
    "Recommendations that are computed from a customer's own history and shown to him.",
    "Customers who act alike because they belong together, such as a household.",
    "A customer of more silos than the plan declares.",
)
ABOVE = ("above claim",)
"""Verdicts of attacks that found more than a plan claims."""
ADJACENCY = {
    "add-or-remove-one": (
        "with or without all of one customer's data, what is released looks nearly the same"
    )
}


def plain_words(facts: Facts) -> dict[str, Any]:
    """Return the page for somebody who is not an engineer: a verdict and titled lists."""
    errors = sum(found["severity"] == "error" for found in facts["findings"])
    verdict = "The promises hold, as far as these files can show."
    if errors:
        verdict = f"{errors} findings: the promises cannot be relied on until they are explained."
    elif facts["contradicted"]:
        verdict = "The ledgers hold, but tests of the code contradict what is promised."
    return {
        "verdict": verdict,
        "sections": [
            ["What is promised, and to whom", list(_promised(facts))],
            ["What is not covered", list(_not_covered(facts))],
            ["What was found", list(_found(facts))],
            ["What to do", list(_advice(facts))],
        ],
    }


def _promised(facts: Facts) -> Iterator[str]:
    if not facts["plans"]:
        yield "No plan could be read, so nothing is known to be promised."
    for plan in facts["plans"]:
        if plan["mode"] == "simulation":
            yield "This was a simulation. Its noise can be repeated, so it promises nothing."
        worst = plan["epsilons"]["epsilon"]
        if worst is None:
            yield "The plan protects nobody: its releases cost more than can be accounted for."
            continue
        yield (
            f"Every customer of a silo: {ADJACENCY.get(plan['adjacency'], plan['adjacency'])}. "
            f"How nearly is epsilon, at most {worst:.2f} (promised: {plan['target_epsilon']}), "
            f"except with a chance of {plan['target_delta']}. Smaller protects more."
        )
        by_silos = {row["k"]: row["tight"] for row in plan["losses"] if row["who"] == SERVER}
        more = [f"{k} silos {by_silos[k]:.2f}" for k in (2, 3) if by_silos.get(k)]
        if more:
            yield f"A customer of several silos is protected less: epsilon in {', '.join(more)}."
        yield from seen_in_words(plan)


def _not_covered(facts: Facts) -> Iterator[str]:
    yield from NOT_COVERED
    if any(map(is_masked, facts["plans"])):
        yield from NOT_MASKED


def _found(facts: Facts) -> Iterator[str]:
    for ledger in facts["ledgers"]:
        for budget in ledger["budgets"]:
            yield (
                f"{ledger['silo']}: {budget['share']:.0%} of its budget is spent by "
                f"{budget['debits']} debits in {ledger['records']} records"
                + (
                    f", {budget['repeated']} of them repeated attempts."
                    if budget["repeated"]
                    else "."
                )
            )
        if ledger["together"]:
            yield (
                f"{ledger['silo']}: all its plans together cost one customer epsilon "
                f"{ledger['together']:.2f}, not the figure of any one of them."
            )
        if ledger["refusals"]:
            count = sum(ledger["refusals"].values())
            yield f"{ledger['silo']}: its agent refused {count} requests."
        yield from (f"{ledger['silo']}: its owner left a plan on {day}." for day in ledger["left"])
    yield from (text for text in facts["remarks"] if not text.startswith("No "))
    kinds = sorted({found["code"] for found in facts["findings"]})
    yield f"Findings of these kinds: {', '.join(kinds)}." if kinds else "No finding."
    tests = facts["conformance"]
    if tests and not same_code(facts):
        yield "The tests ran on other code than the plans name, so they say nothing about it."
    if tests:
        failed = [check.get("name", "") for check in tests["checks"] if not check.get("passed")]
        yield f"Of {len(tests['checks'])} tests of the installed code, {len(failed)} failed."
    attacks = facts["attacks"]
    if attacks:
        beyond = [row for row in attacks["results"] if row.get("verdict") in ABOVE]
        yield f"Of {len(attacks['results'])} attacks, {len(beyond)} found more than is claimed."


def same_code(facts: Facts) -> bool:
    """Return whether the code that was tested is the code that the plans let run."""
    tested = ((facts["conformance"] or {}).get("code") or {}).get("code_digest")
    return bool(tested) and {plan["code_digest"] for plan in facts["plans"]} == {tested}


def contradicted(facts: Facts) -> bool:
    """Return whether a test of the code failed or an attack found more than is claimed."""
    checks, results = facts["conformance"] or {}, facts["attacks"] or {}
    failed = any(not check.get("passed") for check in checks.get("checks", ()))
    return failed or any(row.get("verdict") in ABOVE for row in results.get("results", ()))


def _advice(facts: Facts) -> Iterator[str]:
    if facts["contradicted"]:
        yield "Release nothing more with this code until the failed tests are explained."
    if not facts["holds"]:
        yield "Stop further rounds, and have each silo explain the findings about its ledger."
    if any(not ledger["seen_by"] for ledger in facts["ledgers"]):
        yield "Ask the coordinator and other silos for their notes: without, records could be gone."
    yield from (text for text in facts["remarks"] if text.startswith("No "))
    if not facts["conformance"]:
        yield "Have each silo run fondaco-audit conformance: ledgers cannot show the real noise."
    if not facts["attacks"]:
        yield "Have attacks run (fondaco-simulate attack): nothing here was tried in practice."
    for plan in facts["plans"]:
        yield f"Ask for a new plan before {plan['expires']}, when this one expires."


def answers(facts: Facts) -> list[dict[str, Any]]:
    """Return {question, known, unknown} of the twelve points of a review, in their order."""
    made = []
    for question, known, unknown in _POINTS:
        texts = [text for make in known for text in make(facts)]
        lacking = list(unknown)
        if not texts and not lacking:
            lacking = ["nothing was handed in that tells"]
        made.append({"question": question, "known": texts, "unknown": lacking})
    return made


def _claim(facts: Facts) -> Iterator[str]:
    for plan in facts["plans"]:
        eps = plan["epsilons"]
        yield (
            f"(epsilon, delta) = ({_num(eps['epsilon'])}, {plan['target_delta']}) by PLD, "
            f"{_num(eps['epsilon_rdp'])} by RDP; unit {plan['unit']}, {plan['adjacency']}; "
            f"silos per customer, at most: {plan['max_silos_per_customer']}."
        )
        for who, meaning in WHO.items():
            rows = [row for row in plan["losses"] if row["who"] == who]
            if rows:
                figures = ", ".join(f"k={row['k']}: {_num(row['tight'])}" for row in rows)
                yield f"If {meaning}: {figures}."


def _outputs(facts: Facts) -> Iterator[str]:
    for plan in facts["plans"]:
        yield f"Covered: {', '.join(plan['kinds'])}; {plan['releases']} sums, no other message."
    yield from (f"Not covered: {text}" for text in NOT_COVERED)


def _budget(facts: Facts) -> Iterator[str]:
    for ledger in facts["ledgers"]:
        for budget in ledger["budgets"]:
            yield (
                f"{ledger['silo']}: {budget['spent']:,} of {budget['budget']:,} units (1e-9 RDP) "
                f"spent, worth epsilon {budget['epsilon_spent']:.3f} as the filter counts; "
                f"{budget['unreleased']} debits without a release are not handed back."
            )
        if ledger["policy"]:
            limit = ledger["policy"]["epsilon_per_year"]
            yield f"{ledger['silo']}: its owner allows epsilon {limit} in any 365 days."
    yield "Composition: integer RDP at one order stops adaptively; PLD certifies the fixed plan."


def _mechanism(facts: Facts) -> Iterator[str]:
    for plan in facts["plans"]:
        noise = ", ".join(map(str, plan["noise"]))
        yield f"Gaussian noise on integer sums, rounded; noise over sensitivity {noise}."
    yield from _checks(facts, ("sensitivity", "noise", "lattice"))


def _learning(facts: Facts) -> Iterator[str]:
    for plan in facts["plans"]:
        part = f"{plan['sampled']} of {plan['releases']} releases use Poisson sampling"
        yield f"{part}; models: {', '.join(sorted(plan['models'])) or 'none'}."
    yield from _checks(facts, ("sampl", "gradient"))


def _trust(facts: Facts) -> Iterator[str]:
    for plan in facts["plans"]:
        yield from trust_answers(plan)
    for ledger in facts["ledgers"]:
        if ledger["masked"]:
            yield (
                f"{ledger['silo']}: {ledger['masked']} of {ledger['counts']['RELEASE']} sums left "
                f"masked; it helped to unmask {ledger['counts'].get('UNMASK', 0)} sums of all "
                "silos, each at most once."
            )


def _implementation(facts: Facts) -> Iterator[str]:
    for plan in facts["plans"]:
        yield f"Code that may run: {plan['code_digest']}."
    for ledger in facts["ledgers"]:
        for source, count in ledger["rng"].items():
            yield f"{ledger['silo']}: {count} releases with noise from {source}."
    tests = facts["conformance"]
    if tests:
        passed = sum(bool(check.get("passed")) for check in tests["checks"])
        yield f"{passed} of {len(tests['checks'])} conformance checks passed."


def _security(facts: Facts) -> Iterator[str]:
    for ledger in facts["ledgers"]:
        rotated = ledger["counts"].get("KEYROT", 0)
        seen = ", ".join(f"{who} ({size})" for who, size in ledger["seen_by"].items())
        yield f"{ledger['silo']}: key changed {rotated} times; records seen by: {seen or 'nobody'}."


def _erasure(facts: Facts) -> Iterator[str]:
    for ledger in facts["ledgers"]:
        for day, count in ledger["erasures"]:
            yield f"{ledger['silo']}: {count} customers erased on {day}."
        yield from (f"{ledger['silo']}: left a plan on {day}." for day in ledger["left"])
    yield "What was released before an erasure stays released, under the promise above."


def _empirical(facts: Facts) -> Iterator[str]:
    for row in (facts["attacks"] or {"results": []})["results"]:
        yield (
            f"{row.get('attack')} on {row.get('target')}: {row.get('estimate')} "
            f"{_num(row.get('value'))} beside a claim of {_num(row.get('claim_epsilon'))} "
            f"(confidence {row.get('confidence')}): {row.get('verdict')}."
        )


def _reproduction(facts: Facts) -> Iterator[str]:
    if facts["command"]:
        yield f"Run again: {facts['command']}"
    for ledger in facts["ledgers"]:
        yield f"{ledger['silo']}: {ledger['records']} records, head {ledger['head']}."
    for plan in facts["plans"]:
        yield f"Plan {plan['digest']}."


def _checks(facts: Facts, words: tuple[str, ...]) -> Iterator[str]:
    for check in (facts["conformance"] or {"checks": []})["checks"]:
        name = str(check.get("name", ""))
        if any(word in name for word in words):
            verdict = "passed" if check.get("passed") else "FAILED"
            yield f"Conformance, {name}: {verdict}. {check.get('detail', '')}"


def _num(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "—"


_POINTS = (
    ("What is claimed, for whom?", (_claim,), ()),
    ("Which outputs are covered, which are not?", (_outputs,), ()),
    ("How large is the budget, and who renews it?", (_budget,), ()),
    ("Which mechanism, and how is a customer's part bounded?", (_mechanism,), ()),
    (
        "What is special to learning?",
        (_learning,),
        ("whether hyper-parameters were tuned on private data before the plan",),
    ),
    (
        "What does privacy cost in quality, and whom?",
        (),
        ("ledgers hold no quality figures; see the report of the run",),
    ),
    ("Who must be trusted?", (_trust,), ("who can log in at each silo",)),
    ("Is the implementation right?", (_implementation,), ("side channels such as timing",)),
    ("How is it secured?", (_security,), ("access control, custody of keys, incident process",)),
    (
        "How are data collected and erased?",
        (_erasure,),
        ("consent, minimisation and retention at each silo",),
    ),
    ("Did attacks find more than is claimed?", (_empirical,), ()),
    ("How can others repeat this?", (_reproduction,), ()),
)
