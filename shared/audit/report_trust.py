"""Who sees what of a plan's sums, at which epsilon: what secure aggregation gives and what not."""

from collections.abc import Iterator, Mapping
from typing import Any

from .plans import MASKED

Facts = Mapping[str, Any]

NOT_MASKED = (
    "A silo that sends something else than its own data give: nobody can see it, so it can spoil "
    "what is learned. One that leaves its noise out counts as colluding.",
    "More silos on the coordinator's side than the plan allows for.",
    "Which silos took part, when, and how large their messages were.",
)
"""What masked sums leave open."""
AGREEMENTS = {
    "x25519": "a later quantum computer could take them off what is recorded today",
    "x25519-mlkem768": "also against a later quantum computer",
}


def is_masked(plan: Facts) -> bool:
    """Return whether only sums of silos can be read."""
    return bool(plan["secure_aggregation"] == MASKED)


def seen_in_words(plan: Facts) -> Iterator[str]:
    """Yield who reads a silo's own numbers, for somebody who is not an engineer."""
    worst, clear = plan["epsilons"]["epsilon"], plan["epsilons"]["clear_shares"]
    dearer = bool(clear and worst and clear > worst * 1.001)
    if is_masked(plan):
        yield (
            f"The coordinator can read sums of at least {plan['cohort']['n_min']} silos only; what "
            "a single silo sends it looks random."
        )
        if dearer:
            yield f"Were the silos' masking broken, epsilon would be {clear:.2f}."
    elif plan["trust"] == "aggregate":
        costs = f", at an epsilon of {clear:.2f}" if dearer else ""
        yield (
            "Masking was only simulated: whoever added up the silos' numbers could read each "
            f"silo's own{costs}."
        )
    else:
        yield "The coordinator reads what each silo sends; the silo's own noise protects it."


def trust_answers(plan: Facts) -> Iterator[str]:
    """Yield who must be trusted for what, with the figures."""
    cohort = plan["cohort"]
    yield (
        f"Noise is added by trust={plan['trust']}, secure aggregation "
        f"{plan['secure_aggregation']}; {cohort['n_silos']} silos, {cohort['n_min']} must "
        f"stay, {cohort['t_collude']} may collude. Queries are fixed in the plan."
    )
    if is_masked(plan):
        yield from _masked(plan)
    elif plan["trust"] == "aggregate":
        yield (
            "Sums were taken in the clear: whoever ran the simulation saw every silo's share, "
            f"which is worth epsilon {_epsilon(plan, 'clear_shares')}."
        )
    else:
        yield "Nothing rests on secure aggregation: each silo adds all of the noise itself."


def _masked(plan: Facts) -> Iterator[str]:
    cohort = plan["cohort"]
    honest = cohort["n_min"] - cohort["t_collude"]
    yield (
        f"Masks: keys agreed by {plan['key_agreement']} "
        f"({AGREEMENTS.get(plan['key_agreement'], 'unknown')}), numbers added modulo "
        f"2^{plan['ring_bits']}, each cut off before noise so that no sum wraps around."
    )
    yield (
        f"The coordinator reads sums of {cohort['n_min']} to {cohort['n_silos']} silos: epsilon "
        f"{_epsilon(plan, 'all_honest')} while all silos are honest, "
        f"{_epsilon(plan, 'epsilon')} if {cohort['t_collude']} tell it all they know (a sum then "
        f"hides at least {honest} others), {_epsilon(plan, 'clear_shares')} if the masking broke "
        "and each silo's share were read alone."
    )
    yield from (f"Not covered: {text}" for text in NOT_MASKED)


def _epsilon(plan: Facts, name: str) -> str:
    value = plan["epsilons"][name]
    return "beyond use" if value is None else f"{value:.3f}"
