"""Silos, a coordinator that lies at times, losses, kills and a clock, in any order.

Silo i adds the unit vector e_i, so a sum tells by itself who is in it, and how often. Everything
that any silo ever said is on record; what could be computed from the record must be allowed.
"""

from collections import Counter, defaultdict
from contextlib import suppress
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
from curious_coordinator import Curious
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from masked_federation import NOW, Federation

from fondaco.shared.errors import RefusalError, RoundError
from fondaco.shared.secagg import assembly
from fondaco.shared.secagg.messages import Certificate, Delivery, Roster

STAGES = ("hello", "share", "release", "confirm", "unmask", "sum")
MOST_ATTEMPTS = 12


class Desk:
    """A silo with its caller: one session per task, the same answer to the same request."""

    def __init__(self, name, federation, record):
        self.name, self.federation, self.record = name, federation, record
        self.now, self.sessions, self.sent = NOW, {}, set()

    def greet(self, task):
        if task in self.sessions:
            return self.sessions[task].session.hello
        if task in self.sent:
            raise RefusalError("this round's secrets are gone", "no-session")
        silo = self.federation.silo(self.name, self.federation.unit[self.name])
        silo.now, silo.replies = self.now, {}
        hello = silo.hello(task)
        self._require_in_time(task)
        self.sessions[task] = silo
        return hello

    def ask(self, step, task, request):
        silo = self.sessions.get(task)
        if silo is None:
            raise RefusalError("this round has not begun here", "no-session")
        key = step, request.to_bytes()
        if key not in silo.replies:
            silo.now = self.now
            reply = getattr(silo, step)(request)
            self._require_in_time(task)
            self._write_down(step, silo, task, request, reply)
            silo.replies[key] = reply
        return silo.replies[key]

    def _require_in_time(self, task):
        assert self.now <= task.expires

    def _write_down(self, step, silo, task, request, reply):
        if step == "release":
            self.sent.add(task)
        self.record.take(step, silo, task, request, reply)


class Record:
    """All that silos did, and what may never be in it."""

    def __init__(self, terms):
        self.terms = terms
        self.steps = defaultdict(set)
        self.keystreams = defaultdict(set)
        self.confirmed = defaultdict(set)
        self.views, self.answered = {}, []

    def take(self, step, silo, task, request, reply):
        state = silo.session
        session = state.hello.signature
        agreed = {
            "share": state.roster,
            "release": state.participants,
            "confirm": state.survivors,
            "unmask": reply,
        }[step]
        done = self.steps[session, step]
        done.add(agreed.to_bytes() if step == "unmask" else agreed)
        assert len(done) == 1, f"two of one session at {step}"
        getattr(self, f"_take_{step}", lambda *_: None)(silo, task, request, reply)

    def _take_share(self, silo, task, request, reply):
        view = self.views.setdefault(request.digest, self._view(task, request))
        view.shares[silo.name] = reply

    def _take_release(self, silo, task, request, reply):
        del task, request, reply
        for key, sign in silo.masks.keys:
            self.keystreams[key].add((silo.name, sign, silo.session.hello.signature))
        state = silo.session
        view = self.views[Roster.from_bytes(state.roster).digest]
        view.rows[silo.name] = SimpleNamespace(name=silo.name, masks=silo.masks)

    def _take_confirm(self, silo, task, request, reply):
        del task, reply
        self.confirmed[request.digest].add(silo.name)

    def _take_unmask(self, silo, task, request, reply):
        del task
        survivors = request.survivors
        agreed = self.confirmed[survivors.digest]
        assert len(agreed) >= self.terms.cohort.threshold
        assert len(survivors.silos) >= self.terms.cohort.n_min
        assert silo.name in survivors.silos
        assert not set(reply.self_shares) & set(reply.mask_shares)
        view = self.views[survivors.roster]
        view.answers.append(reply)
        view.allowed.add(survivors.silos)
        assert len(view.allowed) == 1

    @staticmethod
    def _view(task, roster):
        return SimpleNamespace(
            task=task, roster=roster, shares={}, rows={}, answers=[], allowed=set()
        )

    def check_keystreams(self):
        for uses in self.keystreams.values():
            assert len(uses) <= 2
            assert len({name for name, _, _ in uses}) == len(uses)
            assert len({sign for _, sign, _ in uses}) == len(uses)

    def check_knowledge(self):
        """Nobody learns more than the sums that were certified."""
        for view in self.views.values():
            if view.rows:
                known = SimpleNamespace(digest="", shares=view.shares)
                whole = SimpleNamespace(
                    terms=self.terms, task=view.task, roster=view.roster, known=known
                )
                curious = Curious(whole).saw(*view.rows.values()).told(*view.answers)
                allowed = [set(silos) for silos in view.allowed]
                assert all(learnt in allowed for learnt in curious.learns())


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

    @initialize(n=st.integers(3, 6), spare=st.booleans())
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
    @rule(data=st.data(), stages=st.integers(1, 6), quiet=st.integers(0, 3))
    def go_on(self, data, stages, quiet):
        """Do the next stages; some silos are silent, or their replies are lost."""
        attempt = self.attempts[-1]
        for _ in range(stages):
            silent = data.draw(self._some(quiet == 0))
            lost = data.draw(self._some(quiet == 1))
            if not attempt.goes_on or not self._stage(attempt, silent, lost):
                break

    @rule(stages=st.integers(1, 6))
    def go_on_quietly(self, stages):
        """Do the next stages, of a new attempt if there is none; nobody is silent."""
        if not self.attempts or not self.attempts[-1].goes_on:
            self._begin(300)
        attempt = self.attempts[-1]
        while stages and attempt.goes_on:
            self._stage(attempt, set(), set())
            stages -= 1

    def _some(self, any_at_all):
        return st.sets(st.sampled_from(self.names), max_size=2 if any_at_all else 0)

    def _stage(self, attempt, silent, lost):
        stage = STAGES[attempt.stage]
        attempt.stage += 1
        try:
            replies = self._replies(attempt, stage, set(self.names) - silent)
            heard = {name: reply for name, reply in replies.items() if name not in lost}
            getattr(self, f"_do_{stage}")(attempt, heard)
        except (RefusalError, RoundError) as error:
            self.tally[type(error).__name__] += 1
            attempt.stage = len(STAGES)
        return attempt.goes_on

    def _replies(self, attempt, stage, names):
        requests = self._requests(attempt, stage)
        replies = {}
        for name in sorted(names & requests.keys()):
            with suppress(RefusalError):
                replies[name] = self._ask(name, stage, attempt.task, requests[name])
        return replies

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
        pools = {
            "hello": self.hello_pool,
            "share": self.shares_pool,
            "confirm": self.confirmation_pool,
        }
        if stage in pools:
            pools[stage].append(reply)
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
        attempt.survivors = assembly.survivors_of(attempt.known, heard)
        self.survivors_pool.append(attempt.survivors)

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
        name = data.draw(st.sampled_from(self.names))
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
        out = data.draw(self._some(True))
        hellos = tuple(h for h in attempt.roster.hellos if h.silo_id not in out)
        self._lie(data, "share", attempt.task, Roster(hellos=hellos))

    @precondition(lambda self: any(attempt.known for attempt in self.attempts))
    @rule(data=st.data(), mixed=st.booleans())
    def tell_of_other_participants(self, data, mixed):
        attempt = data.draw(st.sampled_from([a for a in self.attempts if a.known][-2:]))
        signed = {said.silo_id: said.signature for said in attempt.known.shares.values()}
        out = data.draw(self._some(True))
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
        other = assembly.survivors_of(attempt.known, silos)
        self.survivors_pool.append(other)
        told = data.draw(st.sampled_from([survivors, other]))
        self._lie(data, "confirm", attempt.task, told)

    @precondition(lambda self: self.survivors_pool)
    @rule(data=st.data(), names=st.booleans())
    def show_some_certificate(self, data, names):
        """Any confirmations ever heard, under right or wrong names."""
        survivors = data.draw(st.sampled_from(self.survivors_pool[-4:]))
        pool = self.confirmation_pool[-12:]
        said = data.draw(st.lists(st.sampled_from(pool), max_size=8)) if pool else []
        signers = [each.silo_id for each in said] if names else survivors.silos
        signatures = {name: s.signature for name, s in zip(signers, said, strict=False)}
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

    @rule(seconds=st.sampled_from([1, 5, 20, 200]))
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
