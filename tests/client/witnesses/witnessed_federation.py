"""Four silos and a coordinator that witness each other's ledgers."""

import shutil
import sqlite3
from contextlib import closing

import numpy as np

from fondaco.client.agent import SiloAgent
from fondaco.client.app import make_app
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.home import SiloHome
from fondaco.server.rounds import About, Coordinator
from fondaco.server.witness import WitnessBook
from fondaco.shared import codec
from fondaco.shared.chain.keys import COORDINATOR, Identity, PublicKey
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import RefusalError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.records import RoundRequest
from fondaco.simulation.grid import InProcessGrid

N_SILOS = 4
HEAD = np.arange(4)
NONE = np.empty(0, dtype=np.int64)
SERVER = Identity.seeded(0, COORDINATOR)


def _dataset(silo_id):
    rows = Rows(user_nums=np.array([0, 0, 1]), item_nums=np.array([0, 2, 3]), times=np.zeros(3))
    empty = rows.take(np.zeros(3, dtype=bool))
    fold = Fold(user_nums=NONE, history=empty, targets=empty)
    users = np.array(["ann", "bob"])
    return SiloDataset(
        silo_id=silo_id, user_ids=users, n_items=5, train=rows, valid=fold, test=fold
    )


class Federation:
    """Four real agents behind Flower's messages, and a coordinator that can be started again."""

    def __init__(self, plan, catalogue, folder):
        self.plan, self.catalogue, self.folder = plan, catalogue, folder
        self.silos = list(plan.roster)
        self.agents = {silo: self.agent(silo) for silo in self.silos}
        self.dead = set()
        self.grid = InProcessGrid(make_app(self._connect), len(self.silos))

    def agent(self, silo_id):
        home = SiloHome(self.folder / "homes" / silo_id, silo_id)
        return SiloAgent(_dataset(silo_id), self.plan, self.catalogue, home, 0)

    def _connect(self, context):
        silo_id = self.silos[int(context.node_config["partition-id"])]
        if silo_id in self.dead:
            raise RefusalError("gone")
        return self.agents[silo_id]

    def book(self):
        return WitnessBook(self.folder / "witness", self.plan, SERVER)

    def coordinator(self):
        """Return a coordinator as if its process had just been started."""
        shapes = Shapes.of_plan(self.plan)
        return Coordinator(
            self.grid,
            self.plan,
            shapes,
            deadline_s=5,
            progress=lambda *news: None,
            book=self.book(),
        )

    def run(self, *rounds):
        """Call the roll and run some rounds; return their results."""
        coordinator = self.coordinator()
        cohort = coordinator.roll_call()
        return [self.collect(coordinator, cohort, num) for num in rounds]

    def collect(self, coordinator, cohort, round_num):
        head = HEAD if round_num == 2 else NONE
        return coordinator.collect(cohort, self.plan.releases[round_num - 1], About(head=head))

    def ledger(self, silo_id="north"):
        return Ledger(self.agents[silo_id]._home.ledger, self.agents[silo_id]._identity, self.plan)

    def types(self, silo_id="north"):
        with self.ledger(silo_id) as ledger:
            return [record["type"] for record in ledger.records()]

    def records(self, kind, silo_id="north"):
        with self.ledger(silo_id) as ledger:
            return ledger.chain.of_type(kind)

    def lines(self, silo_id="north"):
        with self.ledger(silo_id) as ledger:
            return ledger.chain.lines()

    def replica(self, silo_id="north"):
        return (self.folder / "witness" / f"{silo_id}.jsonl").read_text().split("\n")[:-1]

    def back_up(self, silo_id="north"):
        path = self.agents[silo_id]._home.ledger
        copy = path.with_suffix(".backup")
        with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(copy)) as target:
            db.backup(target)
        return copy

    def restore(self, copy, silo_id="north"):
        path = self.agents[silo_id]._home.ledger
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        shutil.copy(copy, path)
        path.chmod(0o600)

    def ledger_of_peer(self, identity):
        path = self.agents["silo-2"]._home.ledger
        return Ledger.open_or_create(path, "silo-2", identity, self.plan)

    def debits(self, silo_id="north"):
        return [(r["kind"], r["attempt"]) for r in self.records("DEBIT", silo_id)]

    def keys(self):
        return [PublicKey.from_text(text) for text in self.plan.roster.values()]

    def request(self, round_num):
        """Return an honest order as bytes."""
        kind = self.plan.releases[round_num - 1].kind
        request = RoundRequest(
            plan_digest=self.plan.digest,
            code_digest=self.plan.code_digest,
            kind=kind,
            round_num=round_num,
            attempt=1,
            model_digest="",
            head=HEAD if kind == "gram" else NONE,
            parameters=np.empty(0, dtype=np.float32),
        )
        return codec.encode(request)
