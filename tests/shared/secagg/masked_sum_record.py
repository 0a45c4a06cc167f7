"""What silos did in masked sums, on record, and what may never be in it.

The record sees more than any coordinator: which hellos, agreements and confirmations are real.
"""

from collections import defaultdict
from types import SimpleNamespace

from curious_coordinator import Curious
from masked_federation import NOW

from fondaco.shared.errors import RefusalError
from fondaco.shared.secagg.messages import Roster


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
        self.record.greeted(hello)
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
        self.views, self.hellos, self.released = {}, set(), set()
        self.quorum = max(terms.cohort.n_min, terms.cohort.threshold)

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

    def greeted(self, hello):
        """Take what a silo really said."""
        self.hellos.add(hello)

    def _take_share(self, silo, task, request, reply):
        assert set(request.hellos) <= self.hellos
        assert {hello.task for hello in request.hellos} == {task}
        assert len(request.by_silo) == len(request.hellos) >= self.quorum
        view = self.views.setdefault(request.digest, self._view(task, request))
        view.shares[silo.name] = reply

    def _take_release(self, silo, task, request, reply):
        del task, request, reply
        for key, sign in silo.masks.keys:
            self.keystreams[key].add((silo.name, sign, silo.session.hello.signature))
        state = silo.session
        self.released.add((silo.name, silo.masks.participants))
        view = self.views[Roster.from_bytes(state.roster).digest]
        assert set(state.participants) <= view.shares.keys()
        assert len(state.participants) >= self.quorum
        view.rows[silo.name] = SimpleNamespace(name=silo.name, masks=silo.masks)

    def _take_confirm(self, silo, task, request, reply):
        del task, reply
        self._check_survivors(silo, request)
        self.confirmed[request.digest].add(silo.name)

    def _check_survivors(self, silo, survivors):
        assert silo.name in survivors.silos
        assert set(survivors.silos) <= set(silo.session.participants)
        assert len(survivors.silos) >= self.quorum
        digest = survivors.participants
        assert {(name, digest) for name in survivors.silos} <= self.released

    def _take_unmask(self, silo, task, request, reply):
        del task
        survivors = request.survivors
        self._check_survivors(silo, survivors)
        assert self.steps[silo.session.hello.signature, "confirm"] <= {
            tuple(sorted(survivors.silos))
        }
        assert len(self.confirmed[survivors.digest]) >= self.terms.cohort.threshold
        assert silo.session.wiped
        assert not set(reply.self_shares) & set(reply.mask_shares)
        view = self.views[survivors.roster]
        view.answers.append(reply)
        view.allowed.add(frozenset(survivors.silos))
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
