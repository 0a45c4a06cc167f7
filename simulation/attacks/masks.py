"""One silo's numbers as the coordinator gets them under masks: real rounds, real keys.

The attacker is the coordinator, follows the protocol and sides with as many silos as the plan
reckons with. Until the numbers come he has all public keys, signatures and sealed parcels, and
the secrets of his own silos. What that is worth is taken off: every mask that one of his silos
has in common with the silo attacked. The shares of its seeds in his silos' parcels are fewer
than the threshold, so they say nothing (Shamir). What stays are the silo's own mask and those
that it shares with honest silos.

Nothing of `shared.secagg` is replaced; the plan's silos are in memory, and their keys for each
round come from the operating system, so what is seen differs from run to run.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.secagg import assembly, session
from fondaco.shared.secagg.checks import Terms
from fondaco.shared.secagg.masks import add_masks, from_ring, to_ring
from fondaco.shared.secagg.messages import Task

Keys = Sequence[tuple[bytes, int]]
"""(key, +1 to add its keystream or -1 to subtract it)."""

_NOW, _EXPIRES = 0, 3600
_KEPT = 64
"""Rounds that are kept: several attackers look at the same one."""


class MaskedCohort:
    """All silos of a plan with masked sums, and an attacker among them.

    Args:
        plan: with masked sums, of a simulation.
        seed: from which its silos' identities follow.
    """

    def __init__(self, plan: RunPlan, seed: int) -> None:
        self._plan = plan
        self._terms = Terms.of_plan(plan)
        self._identities = {s: Identity.seeded(seed, key_name(s)) for s in sorted(plan.roster)}
        names = tuple(self._identities)
        self.honest = names[: len(names) - plan.cohort.t_collude]
        self.colluders = names[len(self.honest) :]
        self.round = lru_cache(maxsize=_KEPT)(self._round)

    def seen(self, numbers: NDArray[np.int64], event: PrivacyEvent, num: int) -> NDArray[np.int64]:
        """Return (dim,) what the attacker makes of a silo's masked numbers: integers around 0.

        Args:
            numbers: (dim,) a silo's noisy sum [grid units].
            event: the planned release.
            num: of the release; each honest silo of each round serves one.
        """
        n_round, place = divmod(num, len(self.honest))
        masks, silo = self.round(event, n_round), self.honest[place]
        words = to_ring(numbers, self._plan.ring_bits)
        add_masks(words, masks[silo])
        add_masks(words, [(key, -sign) for key, sign in self.common(masks, silo)])
        return from_ring(words, self._plan.ring_bits)

    def common(self, masks: Mapping[str, Keys], silo_id: str) -> Keys:
        """Return those masks of a silo that one of the attacker's silos knows."""
        told = {key for colluder in self.colluders for key, _ in masks[colluder]}
        return [(key, sign) for key, sign in masks[silo_id] if key in told]

    def _round(self, event: PrivacyEvent, num: int) -> Mapping[str, Keys]:
        """Return every silo's masks in a round of all of them."""
        task = Task(
            plan_digest=self._plan.digest,
            run_id=f"attack {num}",
            kind=event.kind,
            round_num=event.round_num,
            attempt=1,
            request=self._plan.digest,
            expires=_EXPIRES,
        )
        terms, of = self._terms, self._identities
        begun = {silo: session.begin(task, terms, silo, of[silo], _NOW) for silo in of}
        roster = assembly.make_roster(each.hello for each in begun.values())
        blob = roster.to_bytes()
        agreed = {
            silo: session.share(each, blob, terms, of[silo], _NOW) for silo, each in begun.items()
        }
        known = assembly.agreed(task, roster, (said for _, said in agreed.values()), terms)
        told = assembly.deliveries(known)
        return {
            silo: session.deliver(each, told[silo], terms, _NOW)[1].keys
            for silo, (each, _) in agreed.items()
        }
