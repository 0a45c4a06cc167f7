"""An owner's folder as init, load, policy and approve leave it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

from builders import request_of, silo_of, witnessed

from fondaco.client.limits import new_policy
from fondaco.client.loading import ReadFor, save_snapshot
from fondaco.client.owner import Owner
from fondaco.shared.catalogue import save_catalogue
from fondaco.shared.chain.keys import PublicKey
from fondaco.shared.chain.witness import Call
from fondaco.shared.parts import Parts

AGENT = [sys.executable, "-m", "fondaco.client.cli", "run", "--agent-only"]
START_S = 60.0


class OwnedFolder:
    """The folder of silo "north", and what an honest coordinator sends it."""

    def __init__(self, home, make_plan, catalogue, make_owner):
        self.home, self._make_plan, self._make_owner = home, make_plan, make_owner
        self.catalogue = catalogue
        owner = Owner.make(home, "north")
        with owner.ledger() as ledger:
            ledger.adopt(new_policy(None, 50.0, 50.0, 1e-6))
        self.plan = self.new_plan()
        keys = (*self.plan.roster.values(), self.plan.coordinator)
        own = owner.identity.public.text()
        owner.pin([PublicKey.from_text(text) for text in keys if text != own])
        self.write_catalogue()
        self.write_rows()
        owner.approve(self.plan)

    @property
    def owner(self):
        return Owner.open(self.home)

    def new_plan(self, **changes):
        plan = self._make_plan()
        roster = {**plan.roster, "north": Owner.open(self.home).identity.public.text()}
        return replace(plan, **{"roster": roster, **changes})

    def write_catalogue(self):
        (self.home / "kit").mkdir(exist_ok=True)
        save_catalogue(self.catalogue, self.home / "kit" / "catalogue.json")

    def write_rows(self, **changes):
        save_snapshot(silo_of(**changes), self.owner.rows, ReadFor.of_plan(self.plan))

    def request(self, kind="popularity", **changes):
        """Return what an honest coordinator, with honest witnesses, asks."""
        with self.owner.ledger() as ledger:
            note = witnessed(ledger, map(self._make_owner, ("silo-2", "silo-3")))
        return Parts(request_of(self.plan, kind, **changes), Call(note=note).to_bytes())

    def leave(self):
        self.owner.leave("shop sold")

    def records(self, *types):
        with self.owner.ledger() as ledger:
            return [r for r in ledger.records() if not types or r["type"] in types]


class AgentProcess:
    """`fondaco-client run --agent-only` as a process of its own."""

    def __init__(self, home, path, *, passed=None, command=(), environment=None):
        words = [*command, *AGENT, "--home", str(home), "--socket", str(path)]
        extra = dict(environment or {})
        self.process = subprocess.Popen(  # noqa: S603
            words,
            env={**os.environ, "OMP_NUM_THREADS": "1", **extra},
            pass_fds=() if passed is None else (passed,),
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop(self, number=signal.SIGTERM):
        """Return the exit code and what it said."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=START_S)
        return self.process.returncode, said


def wait_for(what, within_s=START_S):
    """Wait until something is true."""
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.05)
