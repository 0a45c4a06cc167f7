"""Silos, a coordinator that lies at times, losses, kills and a clock, in any order.

Silo i adds the unit vector e_i, so a sum tells by itself who is in it, and how often. Everything
that any silo ever said is on record; what could be computed from the record must be allowed.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from masked_federation import NOW, Federation
from masked_sum_record import Desk, Record

from fondaco.shared.errors import RefusalError, RoundError
from fondaco.shared.secagg import assembly
from fondaco.shared.secagg.messages import Certificate, Delivery, Roster

MISHAPS = ("", "", "silent", "lost", "lies")
STAGES = ("hello", "share", "release", "confirm", "unmask", "sum")
MOST_ATTEMPTS = 12


def _twisted_roster(federation, roster, other, data):
    """Without somebody, or with keys for it that nobody knows but the coordinator."""
    hellos = dict(roster.by_silo)
    if data.draw(st.booleans()):
        hellos.pop(other, None)
    else:
        forger = data.draw(st.sampled_from(federation.names))
        hellos[other] = federation.hello(other, roster.hellos[0].task, signer=f"not {forger}")
    return Roster(hellos=tuple(hello for _, hello in sorted(hellos.items())))


def _twisted_delivery(federation, delivery, other, data):
    """Without a participant, or with one that did not agree."""
    participants = dict(delivery.participants)
    if participants.pop(other, None) is None or data.draw(st.booleans()):
        participants[other] = data.draw(st.sampled_from(sorted(participants.values())))
    return replace(delivery, participants=participants)


def _twisted_survivors(federation, survivors, other, data):
    """Without somebody, with somebody who is silent, or very few."""
    silos = dict(survivors.silos)
    if silos.pop(other, None) is None:
        silos[other] = data.draw(st.sampled_from(sorted(silos.values())))
    if data.draw(st.integers(0, 3)) == 0:
        few = sorted(silos)[: data.draw(st.integers(0, len(silos)))]
        silos = {name: silos[name] for name in few}
    return replace(survivors, silos=silos)


def _twisted_certificate(federation, certificate, other, data):
    """With few confirmations, or with those of other survivors."""
    said = sorted(certificate.confirmations.items())
    said = said[: data.draw(st.integers(0, len(said)))]
    survivors = certificate.survivors
    if data.draw(st.booleans()):
        survivors = _twisted_survivors(federation, survivors, other, data)
    return Certificate(survivors=survivors, confirmations=dict(said))


TWISTS = {
    "share": _twisted_roster,
    "release": _twisted_delivery,
    "confirm": _twisted_survivors,
    "unmask": _twisted_certificate,
}


class Attempt:
    """What the coordinator holds of one task."""

    def __init__(self, task):
        self.task, self.stage = task, 0
        self.hellos, self.said, self.words, self.answers = {}, {}, {}, {}
        self.confirmations = {}
        self.roster = self.known = self.survivors = self.certificate = None

    @property
    def goes_on(self):
        return self.stage < len(STAGES)


class MaskedSumMachine(RuleBasedStateMachine):
    tally: ClassVar = Counter()

    @initialize(n=st.sampled_from([5, 4, 6, 3]), spare=st.sampled_from([True, True, False]))
    def start(self, n, spare):
        """`spare`: not one more than the threshold may fall silent."""
        self.federation = Federation.of(n, n_min=0 if spare else n)
        names = self.federation.names
        unit = dict(zip(names, np.eye(n, dtype=np.int64), strict=True))
        object.__setattr__(self.federation, "unit", unit)
        self.terms, self.names, self.now = self.federation.terms, names, NOW
        self.record = Record(self.terms)
        self.desks = {name: Desk(name, self.federation, self.record) for name in names}
        self.attempts, self.log = [], []
        self.hello_pool, self.shares_pool, self.survivors_pool = [], [], []
        self.confirmation_pool, self.run_id = [], self.federation.task().run_id

    # Honest steps

    @rule(life=st.integers(30, 600))
    def give_up_and_begin_again(self, life):
        self._begin(life)

    def _begin(self, life):
        if len(self.attempts) < MOST_ATTEMPTS:
            num = len(self.attempts) + 1
            task = self.federation.task(run_id=self.run_id, attempt=num, expires=self.now + life)
            self.attempts.append(Attempt(task))

    @precondition(lambda self: self.attempts and self.attempts[-1].goes_on)
    @rule(data=st.data(), stages=st.integers(1, 6))
    def go_on(self, data, stages):
        """Do the next stages; some silos are silent, or lied to, or their replies are lost."""
        some = st.sets(st.sampled_from(self.names), min_size=1, max_size=len(self.names) - 1)
        attempt = self.attempts[-1]
        while stages and attempt.goes_on:
            mishap = data.draw(st.sampled_from(MISHAPS))
            self._stage(attempt, mishap, data.draw(some) if mishap else set(), data)
            stages -= 1

    @rule(stages=st.integers(1, 6))
    def go_on_quietly(self, stages):
        """Do the next stages, of a new attempt if there is none; nobody is silent."""
        attempt = self._current()
        while stages and attempt.goes_on:
            self._stage(attempt)
            stages -= 1

    @rule(data=st.data(), stages=st.integers(1, 4))
    def go_on_and_lie(self, data, stages):
        """At most one silo is silent, then some are lied to."""
        attempt, one = self._current(), st.sets(st.sampled_from(self.names), max_size=1)
        while stages and attempt.goes_on:
            self._stage(attempt, "silent", data.draw(one), data)
            stages -= 1
        if attempt.goes_on:
            some = data.draw(st.sets(st.sampled_from(self.names), min_size=1))
            self._stage(attempt, "lies", some, data)

    def _current(self):
        if not self.attempts or not self.attempts[-1].goes_on:
            self._begin(300)
        return self.attempts[-1]

    def _stage(self, attempt, mishap="", hit=frozenset(), data=None):
        stage = STAGES[attempt.stage]
        attempt.stage += 1
        try:
            requests = self._requests(attempt, stage)
            for name in hit & requests.keys() if mishap == "lies" else ():
                self._lie_to(name, stage, attempt, requests[name], data)
            replies = self._replies(attempt, stage, requests, hit if mishap == "silent" else ())
            heard = {name: reply for name, reply in replies.items() if name not in hit}
            getattr(self, f"_do_{stage}")(attempt, replies if mishap != "lost" else heard)
        except (RefusalError, RoundError) as error:
            self.tally[type(error).__name__] += 1
            attempt.stage = len(STAGES)
        return attempt.goes_on

    def _replies(self, attempt, stage, requests, silent):
        replies = {}
        for name in sorted(requests.keys() - set(silent)):
            with suppress(RefusalError):
                replies[name] = self._ask(name, stage, attempt.task, requests[name])
        return replies

    def _lie_to(self, name, stage, attempt, request, data):
        """Before the honest request a silo gets another one, only a little different."""
        others = [other for other in self.names if other != name]
        other = data.draw(st.sampled_from(others))
        twisted = TWISTS[stage](self.federation, request, other, data) if stage in TWISTS else None
        if twisted is not None and twisted != request:
            self._tell(name, stage, attempt.task, twisted)

    def _requests(self, attempt, stage):
        if stage == "hello":
            return dict.fromkeys(self.names, attempt.task)
        if stage == "share":
            return dict.fromkeys(attempt.hellos, attempt.roster)
        if stage == "release":
            return assembly.deliveries(attempt.known)
        if stage == "confirm":
            return dict.fromkeys(attempt.words, attempt.survivors)
        return dict.fromkeys(attempt.words if stage == "unmask" else (), attempt.certificate)

    def _ask(self, name, stage, task, request):
        """Ask a silo; all that is said may later be used for lies."""
        self.log.append((stage, task, request))
        desk = self.desks[name]
        reply = desk.greet(request) if stage == "hello" else desk.ask(stage, task, request)
        if stage == "hello":
            self.hello_pool.append(reply)
        elif stage == "share":
            self.shares_pool.append(reply)
        elif stage == "confirm":
            self.confirmation_pool.append((request.digest, reply))
        return reply

    def _do_hello(self, attempt, heard):
        for hello in heard.values():
            assembly.check_greeting(hello, attempt.task, self.terms)
        attempt.hellos, attempt.roster = heard, assembly.make_roster(heard.values())

    def _do_share(self, attempt, heard):
        for said in heard.values():
            assembly.check_shares(said, attempt.task, attempt.roster, self.terms)
        attempt.known = assembly.agreed(attempt.task, attempt.roster, heard.values(), self.terms)

    def _do_release(self, attempt, heard):
        attempt.words = heard
        attempt.survivors = assembly.survivors_of(attempt.known, self._signatures(attempt, heard))
        self.survivors_pool.append(attempt.survivors)

    def _signatures(self, attempt, names):
        """Return what silos have signed beside their numbers, of those that still know."""
        sessions = {name: self.desks[name].sessions.get(attempt.task) for name in names}
        return {name: silo.signature for name, silo in sessions.items() if silo}

    def _do_confirm(self, attempt, heard):
        for said in heard.values():
            assembly.check_confirmation(said, attempt.survivors, self.terms)
        said = heard.values()
        attempt.certificate = assembly.certificate(attempt.survivors, said, self.terms)

    def _do_unmask(self, attempt, heard):
        attempt.answers = heard

    def _do_sum(self, attempt, heard):
        del heard
        words = sum(attempt.words.values())
        total = assembly.unmasked(
            words, attempt.known, attempt.survivors, attempt.answers, self.terms
        )
        survivors = set(attempt.survivors.silos)
        assert total.tolist() == [int(name in survivors) for name in self.names]
        assert len(survivors) >= self.terms.cohort.n_min
        self.tally["sums"] += 1

    # Lies

    def _lie(self, data, stage, task, request):
        self._tell(data.draw(st.sampled_from(self.names)), stage, task, request)

    def _tell(self, name, stage, task, request):
        try:
            self._ask(name, stage, task, request)
            self.tally["lies answered"] += 1
        except RefusalError as error:
            self.tally[f"refused {error.code}"] += 1

    @precondition(lambda self: self.hello_pool)
    @rule(data=st.data(), sort=st.booleans())
    def show_some_roster(self, data, sort):
        """Any hellos of any attempts."""
        hellos = data.draw(st.lists(st.sampled_from(self.hello_pool), min_size=1, max_size=7))
        if sort:
            hellos = sorted({h.silo_id: h for h in hellos}.values(), key=lambda h: h.silo_id)
        self._lie(data, "share", hellos[0].task, Roster(hellos=tuple(hellos)))

    @precondition(lambda self: any(attempt.roster for attempt in self.attempts))
    @rule(data=st.data())
    def show_part_of_the_roster(self, data):
        """A sound roster, but with somebody missing: another one than the others see."""
        attempt = data.draw(st.sampled_from([a for a in self.attempts if a.roster][-2:]))
        out = data.draw(st.sets(st.sampled_from(self.names), max_size=2))
        hellos = tuple(h for h in attempt.roster.hellos if h.silo_id not in out)
        self._lie(data, "share", attempt.task, Roster(hellos=hellos))

    @precondition(lambda self: any(attempt.known for attempt in self.attempts))
    @rule(data=st.data(), mixed=st.booleans())
    def tell_of_other_participants(self, data, mixed):
        attempt = data.draw(st.sampled_from([a for a in self.attempts if a.known][-2:]))
        signed = {said.silo_id: said.signature for said in attempt.known.shares.values()}
        out = data.draw(st.sets(st.sampled_from(self.names), max_size=2))
        parcels = [p for said in self.shares_pool for p in said.parcels.values()] if mixed else []
        told = assembly.deliveries(attempt.known)
        name = data.draw(st.sampled_from(sorted(told)))
        wrong = {sender: data.draw(st.sampled_from(parcels)) for sender in signed if parcels}
        delivery = Delivery(
            participants={silo: sig for silo, sig in signed.items() if silo not in out},
            parcels=wrong or told[name].parcels,
        )
        self._lie(data, "release", attempt.task, delivery)

    @precondition(lambda self: self.survivors_pool)
    @rule(data=st.data())
    def name_other_survivors(self, data):
        survivors = data.draw(st.sampled_from(self.survivors_pool[-4:]))
        attempt = data.draw(st.sampled_from([a for a in self.attempts if a.known][-2:]))
        silos = data.draw(st.sets(st.sampled_from(self.names), min_size=len(self.names) - 2))
        other = assembly.survivors_of(attempt.known, self._signatures(attempt, silos))
        self.survivors_pool.append(other)
        told = data.draw(st.sampled_from([survivors, other]))
        self._lie(data, "confirm", attempt.task, told)

    @precondition(lambda self: self.survivors_pool)
    @rule(data=st.data(), right=st.booleans())
    def show_some_certificate(self, data, right):
        """Confirmations that were heard, of these survivors or of any, even if they are few."""
        survivors = data.draw(st.sampled_from(self.survivors_pool[-4:]))
        pool = [said for of, said in self.confirmation_pool if of == survivors.digest or not right]
        signatures = {said.silo_id: said.signature for said in pool}
        certificate = Certificate(survivors=survivors, confirmations=signatures)
        self._lie(data, "unmask", survivors.task, certificate)

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def ask_again(self, data):
        """The same request, perhaps of another silo, perhaps under another task."""
        stage, task, request = data.draw(st.sampled_from(self.log))
        if stage != "hello":
            task = data.draw(st.sampled_from([task, self.attempts[-1].task]))
        self._lie(data, stage, task, request)

    # Mishaps

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def kill(self, data):
        """A silo loses the session of some attempt."""
        desk = self.desks[data.draw(st.sampled_from(self.names))]
        desk.sessions.pop(data.draw(st.sampled_from(self.attempts)).task, None)

    @rule(seconds=st.sampled_from([1, 30, 400]))
    def wait(self, seconds):
        self.now += seconds
        for desk in self.desks.values():
            desk.now = self.now

    @invariant()
    def no_keystream_serves_twice(self):
        if hasattr(self, "record"):
            self.record.check_keystreams()

    def teardown(self):
        if hasattr(self, "record"):
            self.record.check_knowledge()
