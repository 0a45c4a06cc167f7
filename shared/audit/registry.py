"""An entry for a registry of DP deployments, tier 3: claim, model, accounting and security."""

from collections.abc import Mapping
from typing import Any

from .report_answers import same_code

UNANSWERED = "unanswered"


def registry_entry(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of the newest plan; what files cannot show is `unanswered`."""
    plan = facts["plans"][-1] if facts["plans"] else None
    if plan is None:
        return {"tier": 3, "status": "no plan could be read"}
    return {
        "tier": 3,
        "status": "simulation, no claim" if plan["mode"] == "simulation" else "deployed",
        "flavour": "approximate differential privacy (certified by PLD, enforced by RDP)",
        "privacy_loss": {
            "epsilon": plan["epsilons"]["epsilon"],
            "delta": plan["target_delta"],
            "per_silos_of_a_customer": [
                {name: row[name] for name in ("who", "k", "tight")} for row in plan["losses"]
            ],
        },
        "unit": f"{plan['unit']}, {plan['adjacency']}: all rows of a customer at one silo",
        "model": f"federated, trust={plan['trust']}, {plan['cohort']['n_silos']} silos",
        "secure_aggregation": {
            name: plan[name] for name in ("secure_aggregation", "key_agreement", "ring_bits")
        },
        "mechanism": "Gaussian, rounded to integers; noise over sensitivity "
        + ", ".join(map(str, plan["noise"])),
        "data_domain": plan["public"],
        "unprotected": ["catalogue", "silo totals", *sorted(plan["public"])],
        "accounting": {
            "composition": f"RDP filter of order {plan['order']}, budget in 1e-9 units",
            "post_processing": "models are made from the released sums alone",
            "releases": plan["releases"],
        },
        "implementation": {
            "code": plan["code_digest"],
            "conformance": "passed" if _passed(facts) else UNANSWERED,
        },
        "security": {
            "ledger": "hash chain, Ed25519, co-signed heads",
            "verified": facts["holds"],
            "key_custody": UNANSWERED,
        },
        "utility": UNANSWERED,
    }


def _passed(facts: Mapping[str, Any]) -> bool:
    tests = facts["conformance"]
    return bool(tests) and same_code(facts) and all(c.get("passed") for c in tests["checks"])
