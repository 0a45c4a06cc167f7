"""Whether masks hide what they are said to hide: in a plan, in a ledger, and between two.

A masked sum is secret only while no ring wraps, enough honest silos remain under one sum, and
each silo helps to unmask one sum a round (Bonawitz et al. 2017). What leaves is judged here by
arithmetic of its own; the masks themselves leave no trace that a ledger could show.
"""

from collections.abc import Iterator

from .formats import is_digest
from .plans import Plan
from .reading import Record
from .state import LedgerState

LEAST_SILOS, MOST_SILOS = 3, 1000
LEAST_HONEST = 2
"""Honest silos below one sum; of a single one the sum would be its share [silos]."""

Problem = tuple[str, str]


def mask_problems(plan: Plan) -> Iterator[str]:
    """Yield where a plan's shared noise is not hidden, or its masks would hide nothing."""
    if not plan.is_masked:
        yield from _unmasked_problems(plan)
        return
    if plan.trust != "aggregate":
        yield f"it masks sums of silos that share no noise (trust {plan.trust})"
    if not (plan.raw["key_agreement"] and plan.raw["ring_bits"]):
        yield "it masks sums, but names no key agreement or no ring"
    if len(plan.roster) != plan.cohort("n_silos"):
        yield f"it masks sums, but names keys of {len(plan.roster)} silos only"
    yield from _cohort_problems(plan)
    yield from _ring_problems(plan)


def _unmasked_problems(plan: Plan) -> Iterator[str]:
    hidden = plan.raw["secure_aggregation"]
    if plan.raw["key_agreement"] or plan.raw["ring_bits"]:
        yield f"it names a key agreement or a ring, but its secure aggregation is {hidden}"
    if plan.trust == "aggregate" and hidden == "none":
        yield "silos share the noise, but nothing hides each one's share"
    elif plan.trust == "aggregate" and not plan.is_simulation:
        yield "silos share the noise, but secure aggregation is only simulated"


def _cohort_problems(plan: Plan) -> Iterator[str]:
    n_silos, n_min, colluding = map(plan.cohort, ("n_silos", "n_min", "t_collude"))
    if not LEAST_SILOS <= n_silos <= MOST_SILOS:
        yield f"masks are made for {LEAST_SILOS} to {MOST_SILOS} silos, not for {n_silos}"
    # Two groups that could each certify a sum share more silos than may collude.
    if not (3 * n_min > 2 * n_silos and 2 * n_min > n_silos + colluding):
        yield f"two different sums of {n_min} of {n_silos} silos could be unmasked in one round"
    if n_min - colluding < LEAST_HONEST:
        yield f"a sum may hold {n_min - colluding} honest silo, which no mask hides"


def _ring_problems(plan: Plan) -> Iterator[str]:
    """Yield releases whose noisy sums could wrap; noise reaches 9.5 stddev and no further."""
    half = 2 ** (plan.raw["ring_bits"] - 1) if plan.raw["ring_bits"] else 0
    for (kind, round_num), planned in plan.releases.items():
        tail = -(-19 * planned.event["silo_stddev_grid"] // 2)
        if half and plan.cohort("n_silos") * (planned.event["sens_grid"] + tail) >= half:
            yield f"{kind} of round {round_num} may wrap around its ring of 2^{half.bit_length()}"


def masked_release(record: Record, state: LedgerState) -> Iterator[Problem]:
    """Under a masked plan nothing leaves unmasked, and no mask hides two sums."""
    body = record.body
    plan, masked = state.plans.get(body["plan_digest"]), body["masked"]
    if masked and not is_digest(masked):
        yield "fields", "what it says of its masks is no digest"
    if plan is None:
        return
    if plan.is_masked and not masked:
        yield "unmasked", "a silo's own sum left without masks, the plan demands them"
    if masked and not plan.is_masked:
        yield "odd-masks", "it says it was masked, the plan knows no masks"
    if masked and masked in state.participants:
        first = state.participants[masked]
        yield "reused-masks", f"it has the participants of record {first}, hence perhaps its masks"


def unmask(record: Record, state: LedgerState) -> Iterator[Problem]:
    """A silo helps once per round, and only to unmask a sum that holds its own masked share."""
    body = record.body
    key = body["plan_digest"], body["kind"], body["round_num"], body["attempt"]
    if not (is_digest(body["survivors"]) and is_digest(body["answer"])):
        yield "fields", "it has no digest of the survivors or of the answer"
    if key in state.unmasked:
        yield "double-unmask", "an earlier record helped to unmask a sum of the same round"
    if key not in state.masked:
        yield "early-unmask", "no masked RELEASE of this round stands before it"


def split_rounds(one: LedgerState, other: LedgerState) -> Iterator[Problem]:
    """Compare whom two silos were told to be in a round with.

    Masks of other participants do not cancel, so such a sum is merely lost. Two groups of
    survivors in a round would be two sums of it: more silos have colluded than the plan allows.
    """
    told = (
        ("split-round", "was masked", one.masked, other.masked),
        ("split-sum", "was unmasked", one.unmasked, other.unmasked),
    )
    for code, what, mine, theirs in told:
        for key in sorted(mine.keys() & theirs.keys()):
            if mine[key] != theirs[key]:
                _, kind, round_num, attempt = key
                name = f"{kind} of round {round_num}, attempt {attempt}"
                yield code, f"{name} {what} among other silos than in {one.name}"
