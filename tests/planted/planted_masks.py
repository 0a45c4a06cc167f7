"""Bugs of masked sums: where they are cut off, when they leave, and who may unmask them."""

from planted_tools import row

PLAN, LEDGER = "shared.privacy.plan", "shared.privacy.ledger"
DOOR = "shared.privacy.release"

_CUT = "kept = np.clip(total.values, -debit.bound, debit.bound)"
_NOISY = "np.asarray(kept + noise.gaussian(event.dim, event.silo_stddev_grid))"

MASKS = (
    row("sum never cut off", DOOR, "conformance: sum bound", (_CUT, "kept = total.values")),
    row(
        "sum cut off after noise",
        DOOR,
        "conformance: sum bound",
        (_CUT, "kept = total.values"),
        (f"return {_NOISY}", f"return np.clip({_NOISY}, -debit.bound, debit.bound)"),
    ),
    row(
        "sum cut off on one side only",
        DOOR,
        "conformance: sum bound",
        (_CUT, "kept = np.minimum(total.values, debit.bound)"),
    ),
    row(
        "ring without room for noise",
        PLAN,
        "conformance: sum bound",
        ("tail = (19 * event.silo_stddev_grid + 1) // 2", "tail = 0"),
    ),
    row(
        "whole ring given to each silo",
        PLAN,
        "conformance: sum bound",
        ("(1 << (self.ring_bits - 1)) // self.cohort.n_silos", "(1 << (self.ring_bits - 1))"),
    ),
    row(
        "masks among too few silos",
        PLAN,
        "conformance: mask promises",
        ("not in MASKED_COHORT or self.n_min < self.threshold:", "not in MASKED_COHORT:"),
    ),
    row(
        "masks that hide a single honest silo",
        PLAN,
        "conformance: mask promises",
        ("not in MASKED_COHORT or self.n_min < self.threshold:", "not in MASKED_COHORT:"),
        ("if self.n_min - self.t_collude == 1:", "if False:"),
    ),
    row(
        "shared noise in the clear",
        PLAN,
        "conformance: mask promises",
        ('if self.mode == "deploy" and self.trust == "aggregate":', "if False:"),
    ),
    row(
        "naked sum under a masked plan",
        LEDGER,
        "conformance: masks",
        ("if bool(masked) != (self._agreed().secure_aggregation == MASKED):", "if False:"),
        also=("ledger audit: unmasked",),
    ),
    row(
        "second answer in a round",
        LEDGER,
        "conformance: masks",
        ("if not facts.items() <= known.items():", "if False:"),
    ),
    row(
        "second answer in a round, written down",
        LEDGER,
        "conformance: masks",
        (
            "            if known is None:\n                self._agreed()\n",
            "            if True:\n                self._agreed()\n",
        ),
        also=("ledger audit: double-unmask",),
    ),
    row(
        "answer before anything left",
        LEDGER,
        "conformance: masks",
        ('if sent is None or not sent["masked"]:', "if False:"),
        also=("ledger audit: early-unmask",),
    ),
)
