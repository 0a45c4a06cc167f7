"""Attacks on what is really released, and what they find beside what is claimed.

`ATTACKS` maps a name to an attack; `fondaco-simulate attack` runs them. Their document is JSON:

    {"schema": 1, "kind": "attacks",
     "scenario": text, "data": text, "seed": integer, "code_digest": "sha256:...",
     "seconds": number,
     "claims": [{"target": text, "epsilon": number, "delta": number, "noise_multiplier": number,
                 "sampling_ppm": integer, "rounds": integer, "unit": "customer-at-silo",
                 "adjacency": "add-or-remove-one"}],
     "results": [{"attack": text, "target": text, "claim_epsilon": number, "delta": number,
                  "estimate": "lower bound" | "estimate" | "rate",
                  "value": number, "confidence": number,
                  "verdict": "below claim" | "above claim" | "outside the claim" | "measured",
                  "power": {control: {"caught": integer, "runs": integer, "median": number,
                                      "values": [number]} or {"value": number, ...}},
                  "false_alarms": {"alarms": integer, "runs": integer} or {},
                  "settings": {name: text, number, list or mapping}}]}

`value` is an epsilon where `estimate` is a lower bound or an estimate, and a probability where
it is a rate. An estimate may lie above its claim without any promise being broken; only a lower
bound refutes one, and then with at most 1 - `confidence` of error in each run (`values` in
`settings` holds them all; `value` is the largest bound or the median estimate). Rows with the
verdict `outside the claim` measure what no noise was meant to hide. Numbers of canaries,
customers and runs, the seed and the seconds are in `settings`.

Reconstruction has a row per attacker and `view`: `share` (a silo's share in the clear; its claim
is that of broken masks), `full noise`, and with masked sums also `masked` (what the coordinator
gets from one silo) and `sum` (what he unmasks in the end). `settings` says `secure_aggregation`,
`key_agreement`, `ring_bits` and `grid` of the plan, how many `silos` and `colluding_silos` there
are, and in `seen_by` who sees such a vector, if anybody. A `masked` row promises that nothing at
all is seen: it is `above claim` if its AUC is further from a half than accident allows.
"""

from .document import attack, make_order
from .results import results_table
from .session import TARGETS, Order
from .verdicts import ATTACKS

__all__ = ["ATTACKS", "TARGETS", "Order", "attack", "make_order", "results_table"]
