"""Honest silos and an honest coordinator of masked sums, in memory; every message goes as bytes.

Tests turn them into liars by calling single steps with what they forged.
"""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count

import numpy as np

from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.privacy.plan import Cohort
from fondaco.shared.secagg import assembly, session
from fondaco.shared.secagg.checks import Terms, agreement, confirmation, released
from fondaco.shared.secagg.masks import add_masks, to_ring
from fondaco.shared.secagg.messages import Certificate, Task

NOW = 1_800_000_000
PLAN = "sha256:plan"
_runs = count()
_read = lru_cache(maxsize=64)(session.Session.from_bytes)


@dataclass(frozen=True)
class Federation:
    """Who may take part, and on what terms."""

    terms: Terms
    identities: dict
    in_bytes: bool = True

    @classmethod
    def of(cls, n, *, n_min=0, t_collude=1, hybrid=False, ring_bits=64, in_bytes=True):
        """Return `n` silos of which the threshold must remain."""
        names = [f"silo-{num:03d}" for num in range(n)]
        n_min = n_min or Cohort(n_silos=n, n_min=n, t_collude=t_collude).threshold
        identities = {name: Identity.seeded(1, key_name(name)) for name in names}
        terms = Terms(
            plan_digest=PLAN,
            cohort=Cohort(n_silos=n, n_min=n_min, t_collude=t_collude),
            identities=tuple((name, identities[name].public) for name in names),
            hybrid=hybrid,
            ring_bits=ring_bits,
        )
        terms.cohort.check_masked()
        return cls(terms, identities, in_bytes)

    @property
    def names(self):
        return [name for name, _ in self.terms.identities]

    @property
    def quorum(self):
        return max(self.terms.cohort.n_min, self.terms.cohort.threshold)

    def task(self, **changes):
        """Return a task of a run of its own."""
        task = Task(
            plan_digest=PLAN,
            run_id=f"run-{next(_runs)}",
            kind="gram",
            round_num=1,
            attempt=1,
            request="sha256:model",
            expires=NOW + 3600,
        )
        return replace(task, **changes)

    def silo(self, name, numbers=(0,)):
        return Silo(name, self, numbers)

    def round(self, numbers=None, **changes):
        """Return a round of (dim,) integers per silo, before its first step."""
        numbers = numbers or {name: [num] for num, name in enumerate(self.names)}
        return Round(self, self.task(**changes), numbers)

    def agreement(self, name, task, roster):
        """Return a silo's signature over a roster: what only its colluding self would give."""
        return self.identities[name].sign(agreement(task, roster.digest, name))

    def certificate(self, signers, survivors):
        """Return survivors confirmed by silos that sign whatever comes."""
        message = confirmation(survivors)
        signed = {name: self.identities[name].sign(message) for name in signers}
        return Certificate(survivors=survivors, confirmations=signed)

    def hello(self, name, task, signer="", **changes):
        """Return a hello with keys of its own, changed, then signed by `name` or `signer`."""
        identity = self.identities.get(signer or name) or Identity.seeded(7, "nobody")
        state = session.begin(task, self.terms, name, identity, NOW)
        hello = replace(state.hello, **changes)
        return replace(hello, signature=identity.sign(hello.signed_bytes()))


class Silo:
    """An honest silo; what it knows is kept between the steps, as bytes if asked to."""

    def __init__(self, name, federation, numbers):
        self.name, self.federation, self.numbers, self.now = name, federation, numbers, NOW
        self.kept, self.masks, self.signature = b"", None, b""

    @property
    def session(self):
        return _read(self.kept) if self.federation.in_bytes else self.kept

    @property
    def _me(self):
        return self.federation.terms, self.federation.identities[self.name], self.now

    def _keep(self, state, said):
        self.kept = state.to_bytes() if self.federation.in_bytes else state
        return type(said).from_bytes(said.to_bytes()) if self.federation.in_bytes else said

    def hello(self, task):
        terms, identity, now = self._me
        state = session.begin(task, terms, self.name, identity, now)
        return self._keep(state, state.hello)

    def share(self, roster):
        return self._keep(*session.share(self.session, roster.to_bytes(), *self._me))

    def release(self, delivery):
        """Return (dim,) masked words; `signature` goes with them."""
        terms, identity, now = self._me
        if self.federation.in_bytes:
            delivery = type(delivery).from_bytes(delivery.to_bytes())
        state, self.masks = session.deliver(self.session, delivery, terms, now)
        self._keep(state, delivery)
        self.signature = identity.sign(released(self.masks.participants, self.name))
        words = to_ring(np.asarray(self.numbers, np.int64), terms.ring_bits)
        add_masks(words, self.masks.keys)
        return words

    def confirm(self, survivors):
        survivors = type(survivors).from_bytes(survivors.to_bytes())
        return self._keep(*session.confirm(self.session, survivors, *self._me))

    def unmask(self, certificate):
        terms, _, now = self._me
        certificate = type(certificate).from_bytes(certificate.to_bytes())
        return self._keep(*session.unmask(self.session, certificate, terms, now))


class Round:
    """A coordinator and its silos; each step leaves out those named, who then stay silent.

    Attributes:
        words: survivor -> (dim,) what it sent.
    """

    def __init__(self, federation, task, numbers):
        self.federation, self.terms, self.task = federation, federation.terms, task
        self.silos = {name: federation.silo(name, given) for name, given in numbers.items()}
        self.alive = list(numbers)
        self.roster = self.known = self.survivors = self.certificate = None
        self.words, self.said, self.answers = {}, {}, {}

    def fork(self):
        """Return a copy that goes another way from here."""
        other = copy.copy(self)
        other.silos = {name: copy.copy(silo) for name, silo in self.silos.items()}
        other.words, other.answers = dict(self.words), dict(self.answers)
        return other

    def _leave(self, without):
        self.alive = [name for name in self.alive if name not in without]
        return self.alive

    def hello(self, without=()):
        hellos = [self.silos[name].hello(self.task) for name in self._leave(without)]
        for hello in hellos:
            assembly.check_greeting(hello, self.task, self.terms)
        self.roster = assembly.make_roster(hellos)
        return self

    def share(self, without=()):
        said = [self.silos[name].share(self.roster) for name in self._leave(without)]
        return self.agree(said)

    def agree(self, said):
        """Take what silos shared; `said` may be forged."""
        for shares in said:
            assembly.check_shares(shares, self.task, self.roster, self.terms)
        self.known = assembly.agreed(self.task, self.roster, said, self.terms)
        return self

    def deliveries(self):
        return assembly.deliveries(self.known)

    def release(self, without=()):
        deliveries = self.deliveries()
        self.words = {
            name: self.silos[name].release(deliveries[name]) for name in self._leave(without)
        }
        self.survivors = self.name_survivors(*self.alive)
        return self

    def name_survivors(self, *names):
        """Return survivors with the signatures that their silos have given, if any."""
        signatures = {name: self.silos[name].signature for name in names}
        return assembly.survivors_of(self.known, signatures)

    def confirm(self, without=()):
        said = [self.silos[name].confirm(self.survivors) for name in self._leave(without)]
        for each in said:
            assembly.check_confirmation(each, self.survivors, self.terms)
        self.certificate = assembly.certificate(self.survivors, said, self.terms)
        return self

    def unmask(self, without=()):
        alive = self._leave(without)
        self.answers = {name: self.silos[name].unmask(self.certificate) for name in alive}
        return self

    def until(self, stage, **without):
        """Do all steps up to and with `stage`."""
        stages = ("hello", "share", "release", "confirm", "unmask")
        for step in stages[: stages.index(stage) + 1]:
            getattr(self, step)(without.get(step, ()))
        return self

    def total(self):
        """Return (dim,) unmasked sum."""
        words = sum(self.words.values())
        return assembly.unmasked(words, self.known, self.survivors, self.answers, self.terms)

    def expected(self):
        """Return (dim,) sum of the survivors' own numbers."""
        return sum(np.asarray(self.silos[name].numbers, np.int64) for name in self.survivors.silos)
