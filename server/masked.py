"""Masked sums over Flower's Grid: the steps of `shared/secagg`, resumed wherever they stopped.

Every decision is on disk before a silo hears of it, and silos answer the same question with the
same bytes, so a coordinator that was killed asks again and goes on. What was given up stays so:
the next try is a new attempt, for which silos that had released pay again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fondaco.shared import codec
from fondaco.shared.chain.canonical import MAX_INT
from fondaco.shared.errors import NEW_ATTEMPT, CodecError, RefusalError, RoundError
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import MaskedUpdate, RoundRequest
from fondaco.shared.secagg import assembly
from fondaco.shared.secagg.assembly import Agreed
from fondaco.shared.secagg.checks import Terms, require_quorum
from fondaco.shared.secagg.masks import RING_DTYPES
from fondaco.shared.secagg.messages import (
    MAX_TEXT,
    Confirmation,
    Hello,
    Released,
    Roster,
    Shares,
    Survivors,
    Unmasking,
)
from fondaco.shared.secagg.parcels import UNSOUND
from fondaco.shared.secagg.sharing import LostSeedError

from .checkpoint import Dropped, RoundResult
from .cohort import Cohort
from .journal import Journal, Journals
from .rounds import NOTHING, About, Coordinator

M = TypeVar("M", Hello, Shares, Confirmation, Unmasking)


def collect_masked(
    coordinator: Coordinator,
    cohort: Cohort,
    event: PrivacyEvent,
    journals: Journals,
    about: About,
) -> RoundResult:
    """Return the sum of what the surviving silos release for `event`; no single part is seen.

    Args:
        coordinator: asks and listens.
        cohort: who is asked.
        event: a release of the plan.
        journals: what is known of sums under way.
        about: what the request carries.

    Raises:
        RoundError: too few silos went through all steps; nothing has been unmasked.
    """
    request, journal = journals.begin(coordinator.request(event, about))
    sum_ = _MaskedSum(coordinator, cohort, request, journal, journals)
    try:
        return sum_.finish(event)
    except (RoundError, RefusalError, CodecError) as error:
        if not sum_.journal.shares:  # else silos may have released, and can be asked again
            journals.save(replace(sum_.journal, aborted=_printable(str(error))))
        why = "; ".join(f"{silo}: {said}" for silo, said in [*sum_.journal.dropped.items()][:3])
        text = f"{event.kind}, attempt {request.attempt}: {error}" + (f" ({why})" if why else "")
        raise RoundError(text) from error


class _MaskedSum:
    """One attempt at one sum, from hello to the unmasked total."""

    def __init__(
        self,
        coordinator: Coordinator,
        cohort: Cohort,
        request: RoundRequest,
        journal: Journal,
        journals: Journals,
    ) -> None:
        self._coordinator = coordinator
        self._terms = Terms.of_plan(coordinator.plan)
        self._cohort = cohort
        self._request = request
        self._task = journal.task
        self._journals = journals
        self.journal = journal

    def finish(self, event: PrivacyEvent) -> RoundResult:
        """Go through the steps that are left.

        Raises:
            RefusalError: too few silos took part in one of them.
            RoundError: too few helped to unmask the sum.
        """
        known = self._agreed()
        if not self.journal.certificate and not self._has_total():
            self._gather(known, event)
        survivors = assembly.survivors_of(known, self.journal.survivors)
        if not self.journal.certificate:
            self._certify(survivors)
        total = self._unmasked(known, survivors)
        dropped = self.journal.dropped
        lost = sorted({*self._cohort.silos.values()} - {*survivors.silos})
        return RoundResult(
            kind=event.kind,
            round_num=event.round_num,
            total=total,
            present=tuple(sorted(survivors.silos)),
            dropped=tuple(
                Dropped(silo, event.round_num, dropped.get(silo, "was not there at the beginning"))
                for silo in lost
            ),
        )

    def _has_total(self) -> bool:
        """Return whether the masked total is there; a damaged one can be gathered again."""
        try:
            return bool(self.journal.survivors) and len(self._journals.load_total(self.journal)) > 0
        except RoundError:
            return False

    def _unmasked(self, known: Agreed, survivors: Survivors) -> NDArray[np.int64]:
        """Return the sum without its masks.

        Raises:
            LostSeedError: a silo that fell silent had not shared out its seeds as it should.
            RoundError: the masks did not cancel.
        """
        answers = self._answers(survivors)
        masked = self._journals.load_total(self.journal)
        try:
            total = assembly.unmasked(masked, known, survivors, answers, self._terms)
        except LostSeedError as error:
            if len(answers) == len(survivors.silos):  # nobody else can help: not this time
                self._note(aborted=str(error), blamed=(*self.journal.blamed, error.silo_id))
            raise
        if not is_plausible(total, self._coordinator.plan):
            # From the same words comes the same sum, however often they are asked for.
            self._note(aborted="the masks did not cancel")
            raise RoundError(
                "the masks did not cancel, a silo sent other numbers than it masked; this sum is "
                "given up: the next run is a new attempt, for which silos pay again"
            )
        return total

    def _agreed(self) -> Agreed:
        """Return who takes part: all who said hello and then agreed to the roster."""
        if not self.journal.roster:
            self._note(roster=assembly.make_roster(self._hellos()).to_bytes())
        roster = Roster.from_bytes(self.journal.roster)
        if not self.journal.shares:
            shares = self._shares(roster)
            assembly.agreed(self._task, roster, shares, self._terms)
            self._note(shares=tuple(said.to_bytes() for said in shares))
        said = [Shares.from_bytes(blob) for blob in self.journal.shares]
        return assembly.agreed(self._task, roster, said, self._terms)

    def _hellos(self) -> list[Hello]:
        hellos = self._said(
            "hello",
            self._task.to_bytes(),
            {*self._cohort.silos.values()} - {*self.journal.blamed},
            Hello,
            lambda hello: assembly.check_greeting(hello, self._task, self._terms),
            # What came before is co-signed on the way: a question less.
            calls=self._coordinator.witness_calls(list(self._cohort.silos.values())),
        )
        require_quorum(len(hellos), self._terms)
        return hellos

    def _shares(self, roster: Roster) -> list[Shares]:
        return self._said(
            "share",
            roster.to_bytes(),
            roster.by_silo,
            Shares,
            lambda shares: assembly.check_shares(shares, self._task, roster, self._terms),
        )

    def _gather(self, known: Agreed, event: PrivacyEvent) -> None:
        """Add up the participants' masked numbers; those whose numbers came are the survivors."""
        self._coordinator.witness(self._cohort)  # last: any answer may come with a newer head
        total = np.zeros(event.dim, dtype=RING_DTYPES[self._terms.ring_bits])
        present: dict[str, bytes] = {}
        for silo, update, said in self._masked_updates(known):
            if isinstance(update, str):
                self._drop(silo, update)
            else:
                total += update.values
                present[silo] = said
        self._coordinator.heard_all()
        silent = set(known.participants) - present.keys()
        lost = [silo for silo in silent if NEW_ATTEMPT in self.journal.dropped.get(silo, "")]
        spoilers = self._spoilers(known.participants)
        if len(known.participants) - len(lost) < self._terms.cohort.n_min:
            self._note(aborted=f"{len(lost)} silos cannot release in this attempt any more")
        elif spoilers and len(present) < self._terms.cohort.n_min:
            blamed = (*self.journal.blamed, *spoilers)
            self._note(aborted=f"{', '.join(spoilers)} {UNSOUND}", blamed=blamed)
        require_quorum(len(present), self._terms)
        digest = self._journals.save_total(self._task, total)
        self._note(survivors=present, total=digest)

    def _spoilers(self, participants: Iterable[str]) -> list[str]:
        """Return whom more silos than may collude name as the reason why they cannot mask."""
        why = list(self.journal.dropped.values())
        said = {silo: f"RefusalError: {silo} {UNSOUND}" for silo in participants}
        named = {silo: sum(text in each for each in why) for silo, text in said.items()}
        return [silo for silo, n in named.items() if n > self._terms.cohort.t_collude]

    def _masked_updates(self, known: Agreed) -> Iterator[tuple[str, MaskedUpdate | str, bytes]]:
        """Yield each participant's masked numbers, or why they cannot be used, and its word."""
        deliveries = assembly.deliveries(known)
        told = {silo: delivery.to_bytes() for silo, delivery in deliveries.items()}
        blob, nodes = codec.encode(self._request), self._nodes(told)
        stage = self._request.kind
        for node, reply in self._coordinator.ask("train.release", blob, nodes, stage, masking=told):
            silo, said = nodes[node], b""
            update = self._coordinator.replies.released(reply, MaskedUpdate, self._request, silo)
            if isinstance(update, MaskedUpdate):
                try:
                    released = Released.from_bytes(self._coordinator.replies.masking(reply, silo))
                    if released.silo_id != silo:
                        raise CodecError("vouched for another silo")
                    assembly.check_released(released, known, self._terms)
                    said = released.signature
                except (CodecError, RefusalError) as error:
                    update = str(error)
            yield silo, update, said

    def _certify(self, survivors: Survivors) -> None:
        """Have enough survivors agree to who they are."""
        said = self._said(
            "confirm",
            survivors.to_bytes(),
            survivors.silos,
            Confirmation,
            lambda each: assembly.check_confirmation(each, survivors, self._terms),
            enough=self._terms.cohort.threshold,
        )
        self._note(certificate=assembly.certificate(survivors, said, self._terms).to_bytes())

    def _answers(self, survivors: Survivors) -> Mapping[str, Unmasking]:
        """Return what the survivors give to unmask the sum."""
        said = self._said(
            "unmask",
            self.journal.certificate,
            survivors.silos,
            Unmasking,
            lambda each: None,
            enough=self._terms.cohort.threshold,
        )
        return {each.silo_id: each for each in said}

    def _said(
        self,
        step: str,
        blob: bytes,
        silos: Iterable[str],
        kind: type[M],
        check: Callable[[M], None],
        *,
        enough: int = 0,
        calls: Mapping[str, bytes] = NOTHING,
    ) -> list[M]:
        """Return what silos answer at a step; whoever answers something else is dropped.

        Args:
            step: its name.
            blob: what they are asked.
            silos: who.
            kind: of answer.
            check: raises a RefusalError where an answer does not hold.
            enough: after so many answers the rest are not waited for much longer; 0 waits for all.
            calls: silo -> what it is told of ledgers where it is to co-sign others'.
        """
        nodes = self._nodes(silos)
        answers: list[M] = []
        told = dict.fromkeys(nodes.values(), blob)
        for node, reply in self._coordinator.ask(
            f"query.{step}",
            b"",
            nodes,
            step,
            masking=told,
            calls=calls,
            enough=lambda: 0 < enough <= len(answers),
        ):
            silo = nodes[node]
            try:
                if silo in calls:
                    self._coordinator.replies.lost_signatures(silo, reply)
                    self._coordinator.replies.collect(silo, reply)
                else:
                    self._coordinator.hear(silo, reply)
                answer = kind.from_bytes(self._coordinator.replies.masking(reply, silo))
                if answer.silo_id != silo:
                    raise CodecError("answered for another silo")
                check(answer)
                answers.append(answer)
            except (CodecError, RefusalError) as error:
                self._drop(silo, str(error))
        return answers

    def _nodes(self, silos: Iterable[str]) -> dict[int, str]:
        wanted = frozenset(silos)
        return {node: silo for node, silo in self._cohort.silos.items() if silo in wanted}

    def _drop(self, silo: str, why: str) -> None:
        dropped = {**self.journal.dropped, silo: _printable(why)}
        self.journal = replace(self.journal, dropped=dropped)

    def _note(self, **decided: Any) -> None:  # noqa: ANN401  (fields of a Journal)
        """Put a decision on disk before anybody hears of it."""
        self.journal = replace(self.journal, **decided)
        self._journals.save(self.journal)


def _printable(text: str) -> str:
    """Return a foreign text as a journal may hold it."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_TEXT]


def is_plausible(total: NDArray[np.int64], plan: RunPlan) -> bool:
    """Return whether half of a sum's numbers are within what the plan's customers could add.

    What was not unmasked is spread over the whole ring: half of it is beyond a quarter of it.
    """
    noise = max(event.silo_stddev_grid for event in plan.releases) * plan.cohort.n_silos
    most = 8 * int(plan.public.get("declared_users", MAX_INT)) * plan.grid + 10 * noise
    return bool(np.median(np.abs(total.astype(np.float64))) <= min(most, 2**plan.ring_bits / 8))
