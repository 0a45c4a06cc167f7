"""Silos and a coordinator that may be killed, and every promise about what they leave."""

import hashlib
import os
from collections import Counter

import numpy as np

from fondaco.client.agent import SiloAgent
from fondaco.client.app import make_app
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.home import SiloHome
from fondaco.server.app import Job, run_job
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.chain.store import DOMAIN, Record, check_links, is_begun
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.workspace import Workspace
from fondaco.simulation.grid import InProcessGrid

SILOS = ("north", "silo-2", "silo-3")
NONE = np.empty(0, dtype=np.int64)
SERVER = Identity.seeded(0, COORDINATOR)


def make_silo(silo_id, n_users=3):
    users = np.array([f"{silo_id}-customer-{num}" for num in range(n_users)])
    items = np.arange(2 * n_users) % 5
    rows = Rows(
        user_nums=np.repeat(np.arange(n_users), 2),
        item_nums=items,
        times=np.arange(2.0 * n_users),
    )
    empty = rows.take(np.zeros(2 * n_users, dtype=bool))
    fold = Fold(user_nums=NONE, history=empty, targets=empty)
    return SiloDataset(
        silo_id=silo_id, user_ids=users, n_items=5, train=rows, valid=fold, test=fold
    )


class World:
    """Silos and a coordinator in one folder, run in processes that are killed."""

    def __init__(self, plan, catalogue, folder, children):
        self.plan, self.catalogue, self.folder = plan, catalogue, folder
        self.silos = list(plan.roster)
        self._children = children
        folder.mkdir(parents=True, exist_ok=True)
        self.outside = folder / "outside"

    def agent(self, silo_id, keep_open=True):
        home = SiloHome(self.folder, silo_id)
        return SiloAgent(
            make_silo(silo_id), self.plan, self.catalogue, home, 0, keep_open=keep_open
        )

    def run(self, kill=None):
        """Run or resume the whole plan; what silos send is noted outside of them."""
        outside = os.open(self.outside, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        if kill is not None:
            self._children.die_in(*kill)
        testify = SiloAgent.testify
        sent = {}

        def run_round(agent, *asked, real=SiloAgent.run_round):
            sent[agent.silo_id] = real(agent, *asked)
            return sent[agent.silo_id]

        def reply(agent, call):
            said = testify(agent, call)
            if blob := sent.pop(agent.silo_id, b""):
                digest = hashlib.sha256(blob).hexdigest()
                os.write(outside, f"{agent.silo_id} sha256:{digest}\n".encode())
            return said

        SiloAgent.run_round, SiloAgent.testify = run_round, reply
        agents = [self.agent(silo) for silo in self.silos]
        grid = InProcessGrid(
            make_app(lambda context: agents[int(context.node_config["partition-id"])]),
            len(self.silos),
        )
        job = Job(
            plan=self.plan,
            catalogue=self.catalogue,
            workspace=Workspace(self.folder),
            deadline_s=5,
            progress=lambda *news: None,
            identity=SERVER,
        )
        outcome = run_job(grid, job)
        assert not outcome.dropped, outcome.dropped

    def finish(self):
        """Run to the end in a child; return the model's digest."""
        assert self._children.ended(self.run) == 0
        return hashlib.sha256(Workspace(self.folder).model.read_bytes()).hexdigest()

    def ledger(self, silo_id):
        identity = Identity.seeded(0, f"fondaco/{silo_id}")
        return Ledger(SiloHome(self.folder, silo_id).ledger, identity, self.plan)

    def check(self):
        """Hold every promise about debits and releases against what is on disk and outside."""
        lines = self.outside.read_text().splitlines() if self.outside.is_file() else []
        seen = {tuple(line.split()) for line in lines}
        known = set()
        for silo in self.silos:
            if not is_begun(SiloHome(self.folder, silo).ledger):
                continue
            with self.ledger(silo) as ledger:
                bodies, records = ledger.records(), map(Record.from_line, ledger.chain.lines())
                key = ledger.chain._owner.public
                checked = list(records)
            check_links(checked)
            assert all(key.verifies(r.signature, DOMAIN + r.digest) for r in checked)
            known |= {(silo, r["blob"]) for r in _check_debits(bodies, self.plan)}
        assert seen <= known


def _check_debits(bodies, plan):
    """Return a ledger's releases, each of which one earlier debit of its own pays for."""
    debits = {r["seq"]: r for r in bodies if r["type"] == "DEBIT"}
    releases = [r for r in bodies if r["type"] == "RELEASE"]
    names = ("kind", "round_num", "attempt", "plan_digest")
    for release in releases:
        debit = debits[release["debit_seq"]]
        assert debit["seq"] < release["seq"]
        assert [debit[name] for name in names] == [release[name] for name in names]
    assert len({r["debit_seq"] for r in releases}) == len(releases)
    keys = Counter(tuple(r[name] for name in names) for r in debits.values())
    assert set(keys.values()) <= {1}
    assert sum(r["cost"] for r in debits.values()) <= plan.budget_units
    return releases
