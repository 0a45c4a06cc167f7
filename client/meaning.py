"""What signing a plan means, in words for a person who has to answer for the customers."""

from collections.abc import Mapping
from typing import Any

from fondaco.shared.calibration import epsilon_in_silos
from fondaco.shared.privacy.events import EVERYBODY
from fondaco.shared.privacy.plan import MASKED, RunPlan
from fondaco.shared.privacy.policy import Policy

SILOS = (1, 2, 3)


def plan_meaning(plan: RunPlan, policy: Policy | None) -> dict[str, Any]:
    """Return the figures behind `meaning_in_words`, for machines."""
    epsilons = plan.epsilons()
    return {
        "plan": plan.digest,
        "expires": plan.expires,
        "unit": plan.unit,
        "adjacency": plan.adjacency,
        "target_delta": plan.target_delta,
        "releases": len(plan.releases),
        "kinds": sorted({event.kind for event in plan.releases}),
        "numbers": sum(event.dim for event in plan.releases),
        "epsilon_in_silos": {str(k): round(epsilon_in_silos(plan, k), 4) for k in SILOS},
        "epsilon_all_honest": round(epsilons["all_honest"], 4),
        "epsilon_server_and_colluders": round(epsilons["epsilon"], 4),
        "epsilon_as_the_filter_counts": round(epsilons["epsilon_rdp"], 4),
        "epsilon_if_masking_broke": round(epsilons["clear_shares"], 4),
        "t_collude": plan.cohort.t_collude,
        "witnesses": plan.witnesses,
        "policy": None if policy is None else policy.epsilon_per_year,
    }


def meaning_in_words(plan: RunPlan, facts: Mapping[str, Any]) -> list[str]:
    """Return the paragraphs that an owner reads before signing."""
    in_silos = facts["epsilon_in_silos"]
    sampled = any(event.sampling_ppm != EVERYBODY for event in plan.releases)
    rounds = max(event.round_num for event in plan.releases)
    nothing = ["This is a simulation: its noise can be repeated, so it promises nothing."]
    return [
        *(nothing if plan.mode == "simulation" else []),
        f"Until {plan.expires} your agent may release {facts['releases']} noisy sums "
        f"({', '.join(facts['kinds'])}; {facts['numbers']:,} numbers in {rounds} rounds) and "
        "nothing else. Neither more, nor with less noise, whatever a server asks.",
        "Protected is one customer with all of their rows at your silo: whoever sees all of it can "
        f"hardly tell whether that customer was there (epsilon {in_silos['1']:.2f}, except with "
        f"probability {plan.target_delta}).",
        "A customer of yours who is also a customer of others loses more: epsilon "
        f"{in_silos['2']:.2f} in two silos, {in_silos['3']:.2f} in three.",
        *_against(plan, facts),
        f"{plan.witnesses} other silos and the coordinator co-sign your ledger before each "
        "release, so that a roll-back is seen by every honest one of them."
        if plan.witnesses
        else "Nobody co-signs your ledger: a roll-back of it would not be seen.",
        "Not covered: your raw data and whoever reads them; totals of your whole silo"
        f"{', but in the sum with others' if _masked(plan) else ''}; what a "
        "customer's own list says of that customer; people who belong together."
        + (" Customers are drawn by secret coins in some rounds." if sampled else ""),
        "No budget comes back: not for a crash, not for leaving early.",
    ]


def _masked(plan: RunPlan) -> bool:
    return plan.secure_aggregation == MASKED


def _against(plan: RunPlan, facts: Mapping[str, Any]) -> list[str]:
    """Return what the plan promises against the server, and what hides this silo's numbers."""
    alone = f"{facts['epsilon_all_honest']:.2f}"
    if plan.trust != "aggregate":
        return [
            "Your sums are not masked: the coordinator reads each of them, with all of the noise "
            f"in it. Against it, alone or with other silos, it is epsilon {alone}."
        ]
    return [
        f"Against the server alone it is {alone}; against the server and silos that side with it "
        f"({plan.cohort.t_collude}), {facts['epsilon_server_and_colluders']:.2f}; if secure "
        "aggregation broke and your share were seen in the clear, "
        f"{facts['epsilon_if_masking_broke']:.2f}.",
        _about_masks(plan),
    ]


def _about_masks(plan: RunPlan) -> str:
    if not _masked(plan):
        return "Nothing hides your share: sums are taken in the clear, as only simulations may."
    return (
        f"Your numbers leave under masks that cancel only in a sum of at least {plan.cohort.n_min} "
        "silos. Your agent helps to unmask one such sum a round, to which "
        f"{plan.cohort.threshold} silos have agreed, and writes that down."
    )
