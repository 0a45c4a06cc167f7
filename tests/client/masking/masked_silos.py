"""Real agents of a masked plan and whoever asks them; tests forge what is asked."""

import time
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from fondaco.client.agent import SiloAgent
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.home import SiloHome
from fondaco.server.rounds import sha256
from fondaco.shared import codec
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.errors import CodecError, RefusalError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.provenance import code_digest
from fondaco.shared.records import RoundRequest
from fondaco.shared.secagg import assembly, session
from fondaco.shared.secagg.checks import Terms, agreement, confirmation, released
from fondaco.shared.secagg.messages import (
    Certificate,
    Confirmation,
    Hello,
    Released,
    Shares,
    Task,
    Unmasking,
)

ME = "north"
STEPS = ("hello", "share", "release", "confirm", "unmask")
NONE = np.empty(0, dtype=np.int64)
_runs = count()


def _dataset(silo_id):
    rows = Rows(user_nums=np.array([0, 0, 1]), item_nums=np.array([0, 2, 3]), times=np.zeros(3))
    empty = rows.take(np.zeros(3, dtype=bool))
    fold = Fold(user_nums=NONE, history=empty, targets=empty)
    users = np.array([f"{silo_id}-ann", f"{silo_id}-bob"])
    return SiloDataset(
        silo_id=silo_id, user_ids=users, n_items=5, train=rows, valid=fold, test=fold
    )


class MaskedSilos:
    """Silos with ledgers of their own."""

    def __init__(self, plan, catalogue, folder):
        self.plan, self.catalogue, self.folder = plan, catalogue, folder
        self.terms = Terms.of_plan(plan)
        self.names = list(plan.roster)
        self.identities = {name: Identity.seeded(0, key_name(name)) for name in self.names}
        self.agents = {name: self.agent(name) for name in self.names}

    def agent(self, name, plan=None):
        home = SiloHome(self.folder / name, name)
        return SiloAgent(_dataset(name), plan or self.plan, self.catalogue, home, 0)

    @property
    def me(self):
        return self.agents[ME]

    def request(self, kind="popularity", attempt=1, **changes):
        """Return an honest order as bytes."""
        request = RoundRequest(
            plan_digest=self.plan.digest,
            code_digest=code_digest(),
            kind=kind,
            round_num={"popularity": 1, "gram": 2}[kind],
            attempt=attempt,
            model_digest="",
            head=np.arange(4) if kind == "gram" else NONE,
            parameters=np.empty(0, dtype=np.float32),
        )
        return codec.encode(replace(request, **changes))

    def round(self, kind="popularity", attempt=1):
        return Asked(self, kind, attempt)

    def records(self, *types, name=ME):
        home = SiloHome(self.folder / name, name)
        identity = self.identities[name]
        with Ledger.open_or_create(home.ledger, name, identity, self.plan) as ledger:
            return [r for r in ledger.records() if not types or r["type"] in types]

    def session_files(self, name=ME):
        """Return what lies where a session is kept, sealed or not."""
        return sorted(path.name for path in (self.folder / name / "sessions").glob("*"))

    def refused(self, code, work, *, error=RefusalError):
        """Hold that an order is refused, written down under its code, and changes nothing else."""
        before = self.records()
        with pytest.raises(error) as caught:
            work()
        assert getattr(caught.value, "code", "malformed") == code
        new = self.records()[len(before) :]
        assert [(record["type"], record["code"]) for record in new] == [("REFUSAL", code)]
        assert new[0]["reason"]

    def refused_as_before(self, code, work):
        """Hold that an order is refused for what the ledger says already; it says no more."""
        before = self.records()
        with pytest.raises(RefusalError) as caught:
            work()
        assert caught.value.code == code
        assert self.records() == before
        assert code in {record["code"] for record in self.records("REFUSAL")}

    def malformed(self, work):
        """Hold that garbage is refused and written down as such."""
        self.refused("malformed", work, error=CodecError)


class Asked:
    """One masked sum, asked for step by step; all messages are kept as bytes and as values."""

    def __init__(self, silos, kind="popularity", attempt=1, changes=None):
        self.silos, self.terms = silos, silos.terms
        self.blob = silos.request(kind, attempt)
        self.task = Task(
            plan_digest=silos.plan.digest,
            run_id=f"run-{next(_runs)}",
            kind=kind,
            round_num={"popularity": 1, "gram": 2}[kind],
            attempt=attempt,
            request=sha256(self.blob),
            expires=int(time.time()) + 3600,
        )
        self.task = replace(self.task, **(changes or {}))
        self.answers = {}

    def ask(self, step, message, name=ME):
        """Return a silo's answer to one small step."""
        blob = message if isinstance(message, bytes) else message.to_bytes()
        return self.silos.agents[name].answer(step, blob)

    def release(self, delivery, name=ME, blob=None):
        delivery = delivery if isinstance(delivery, bytes) else delivery.to_bytes()
        return self.silos.agents[name].run_round(blob or self.blob, "", delivery)

    def until(self, step, names=()):
        """Do all steps up to and with `step`, with all silos or those named."""
        names = names or self.silos.names
        for each in STEPS[: STEPS.index(step) + 1]:
            getattr(self, f"_{each}")(names)
        return self

    def _hello(self, names):
        said = [Hello.from_bytes(self.ask("hello", self.task, name)) for name in names]
        self.hellos = {hello.silo_id: hello for hello in said}
        self.roster = assembly.make_roster(said)

    def _share(self, names):
        said = [Shares.from_bytes(self.ask("share", self.roster, name)) for name in names]
        self.known = assembly.agreed(self.task, self.roster, said, self.terms)
        self.deliveries = assembly.deliveries(self.known)

    def _release(self, names):
        agents = self.silos.agents
        self.sent = {n: self.release(self.deliveries[n].to_bytes(), n) for n in names}
        self.words = {
            name: Released.from_bytes(agents[name].vouch(blob)).signature
            for name, blob in self.sent.items()
        }
        self.survivors = assembly.survivors_of(self.known, self.words)

    def _confirm(self, names):
        self.confirmed = {
            name: Confirmation.from_bytes(self.ask("confirm", self.survivors, name))
            for name in names
        }
        self.certificate = assembly.certificate(self.survivors, self.confirmed.values(), self.terms)

    def _unmask(self, names):
        self.unmasked = {
            name: Unmasking.from_bytes(self.ask("unmask", self.certificate, name)) for name in names
        }

    # ---- what a liar makes, with the keys of silos that side with it ----

    def hello_of(self, name, identity=None, **changes):
        """Return a well signed hello of keys drawn anew."""
        identity = identity or self.silos.identities[name]
        now = int(time.time())
        hello = session.begin(self.task, self.terms, name, identity, now).hello
        hello = replace(hello, **changes)
        return replace(hello, signature=identity.sign(hello.signed_bytes()))

    def roster_with(self, *hellos, without=()):
        """Return the roster with some hellos put in place of, or beside, the honest ones."""
        known = {**self.hellos, **{hello.silo_id: hello for hello in hellos}}
        return replace(
            self.roster, hellos=tuple(h for s, h in sorted(known.items()) if s not in without)
        )

    def agree(self, name, roster=None):
        roster = roster or self.roster
        return self.silos.identities[name].sign(agreement(self.task, roster.digest, name))

    def survivors_without(self, *names):
        return replace(
            self.survivors, silos={s: w for s, w in self.survivors.silos.items() if s not in names}
        )

    def certified(self, survivors, signers=None):
        """Return survivors confirmed by all who are asked to sign."""
        message, keys = confirmation(survivors), self.silos.identities
        signers = signers if signers is not None else survivors.silos
        return Certificate(
            survivors=survivors, confirmations={s: keys[s].sign(message) for s in signers}
        )

    def word(self, name, digest=None):
        digest = digest or self.known.digest
        return self.silos.identities[name].sign(released(digest, name))
