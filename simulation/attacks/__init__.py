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
"""

from .document import attack, make_order
from .results import results_table
from .session import TARGETS, Order
from .verdicts import ATTACKS

__all__ = ["ATTACKS", "TARGETS", "Order", "attack", "make_order", "results_table"]
