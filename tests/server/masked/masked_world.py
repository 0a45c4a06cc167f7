"""Real silos and a coordinator of masked sums over Flower's messages, with faults put between."""

from dataclasses import replace

import numpy as np
from flwr.app import Message

from fondaco.client import agent as agent_module
from fondaco.client.agent import SiloAgent
from fondaco.client.app import make_app
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.home import SiloHome
from fondaco.server import asking as asking_module
from fondaco.server import rounds as rounds_module
from fondaco.server.app import Job, run_job
from fondaco.server.journal import Journals
from fondaco.server.masked import collect_masked
from fondaco.server.rounds import About, Coordinator
from fondaco.server.witness import WitnessBook
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.codec import Shapes
from fondaco.shared.parts import from_message, to_message
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.workspace import Workspace
from fondaco.simulation.grid import InProcessGrid

STEPS = ("status", "hello", "share", "release", "confirm", "unmask", "publish")
DEAD, SILENT, LOST = "dead", "silent", "lost"
NONE = np.empty(0, dtype=np.int64)
SERVER = Identity.seeded(0, COORDINATOR)


def make_dataset(silo_id, n_users=3):
    rows = Rows(
        user_nums=np.repeat(np.arange(n_users), 2),
        item_nums=np.arange(2 * n_users) % 5,
        times=np.arange(2.0 * n_users),
    )
    empty = rows.take(np.zeros(2 * n_users, dtype=bool))
    fold = Fold(user_nums=NONE, history=empty, targets=empty)
    users = np.array([f"{silo_id}-customer-{num}" for num in range(n_users)])
    return SiloDataset(
        silo_id=silo_id, user_ids=users, n_items=5, train=rows, valid=fold, test=fold
    )


class Clock:
    """A coordinator's time: it passes while one waits, and at no other time."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class FaultyGrid(InProcessGrid):
    """Holds back the answers of silos that are silent; a lost answer was given all the same."""

    def __init__(self, world, **options):
        super().__init__(world.answer, len(world.silos), **options)
        self._world = world

    def pull_messages(self, message_ids):
        for message_id in message_ids:
            message = self._pending.get(message_id)
            fault = self._world.fault_of(message) if message else None
            if fault == LOST:
                super().pull_messages([message_id])
            elif message and fault != SILENT:
                return super().pull_messages([message_id])
        return []


class MaskedWorld:
    """Silos and a coordinator in one folder; all of them can be started again.

    Attributes:
        faults: (step, silo) -> DEAD, SILENT, LOST, or a function from honest parts to others.
        numbers: (silo, kind, round, attempt) -> what was hidden by masks.
        asked: (step, silo) as they were asked.
        clock: of the coordinator: whom it waits for costs the test nothing.
        units: whether silo number i sends 10^i: every digit counts how often it is in a sum.
    """

    def __init__(self, plan, catalogue, folder, monkeypatch):
        self.plan, self.catalogue, self.folder = plan, catalogue, folder
        self.silos = list(plan.roster)
        self.faults, self.numbers, self.asked, self.units = {}, {}, [], False
        self.agents, self.clock = {}, Clock()
        for module in (rounds_module, asking_module):
            monkeypatch.setattr(module, "time", self.clock)
        self.restart(*self.silos)
        self.courier = make_app(self._connect)
        self.grid = FaultyGrid(self)
        self._hide = agent_module.masked
        monkeypatch.setattr(agent_module, "masked", self._noted)

    def restart(self, *silos):
        """Replace silos by what their files say of them."""
        for silo in silos:
            if silo in self.agents:
                self.agents[silo].close()
            home = SiloHome(self.folder, silo)
            self.agents[silo] = SiloAgent(
                make_dataset(silo), self.plan, self.catalogue, home, 0, keep_open=True
            )

    def fails(self, step, fault, *silos, later=False):
        """Put a fault into a step, or into it and all later ones."""
        steps = STEPS[STEPS.index(step) :] if later else [step]
        self.faults |= {(each, silo): fault for each in steps for silo in silos}

    def coordinator(self, deadline_s=5):
        """Return a coordinator as if its process had just been started."""
        return Coordinator(
            self.grid,
            self.plan,
            Shapes.of_plan(self.plan),
            deadline_s=deadline_s,
            progress=lambda *news: None,
            book=WitnessBook(self.folder / "witness", self.plan, SERVER),
        )

    def collect(self, kind="popularity", deadline_s=5):
        """Start a coordinator, call the roll, and return one round's result."""
        coordinator = self.coordinator(deadline_s)
        event = next(event for event in self.plan.releases if event.kind == kind)
        about = About(head=np.arange(4) if kind == "gram" else NONE)
        cohort = coordinator.roll_call()
        return collect_masked(coordinator, cohort, event, self.journals, about)

    def run(self, deadline_s=5):
        """Run or resume the whole plan."""
        job = Job(
            plan=self.plan,
            catalogue=self.catalogue,
            workspace=Workspace(self.folder),
            deadline_s=deadline_s,
            progress=lambda *news: None,
            identity=SERVER,
        )
        return run_job(self.grid, job)

    @property
    def journals(self):
        return Journals(Workspace(self.folder).journals)

    @property
    def journal_files(self):
        return sorted(path.name for path in Workspace(self.folder).journals.glob("*"))

    def expected(self, result, attempt=1):
        """Return the plain sum of what the present silos hid."""
        key = result.kind, result.round_num, attempt
        return sum(self.numbers[silo, *key] for silo in result.present)

    def records(self, silo, *types):
        """Return a silo's records of these types."""
        self.agents[silo].close()
        identity = self.agents[silo]._identity
        with Ledger(SiloHome(self.folder, silo).ledger, identity, self.plan) as ledger:
            return [r for r in ledger.records() if r["type"] in types]

    def keys(self, record_type):
        """Return silo -> (kind, attempt) of its records of a type."""
        found = {silo: self.records(silo, record_type) for silo in self.silos}
        return {s: [(r["kind"], r["attempt"]) for r in records] for s, records in found.items()}

    def fault_of(self, message):
        """Return what goes wrong with a message, if anything."""
        step = message.metadata.message_type.partition(".")[2]
        return self.faults.get((step, self._name(message.metadata.dst_node_id)))

    def answer(self, message, context):
        """Answer a message as its silo would, but for its fault."""
        step = message.metadata.message_type.partition(".")[2]
        self.asked.append((step, self._name(message.metadata.dst_node_id)))
        fault = self.fault_of(message)
        if fault == DEAD:
            raise RuntimeError("RefusalError: the silo is gone")
        reply = self.courier(message, context)
        if not callable(fault):
            return reply
        parts = fault(from_message(reply.content))
        return Message(to_message(*parts), reply_to=message)

    def _name(self, node):
        return self.silos[node - 1000]

    def _connect(self, context):
        return self.agents[self.silos[int(context.node_config["partition-id"])]]

    def _noted(self, update, masks, ring_bits):
        if self.units:
            place = self.silos.index(update.silo_id)
            update = replace(update, values=np.full(len(update.values), 10**place))
        key = update.silo_id, update.kind, update.round_num, update.attempt
        self.numbers[key] = update.values.copy()
        return self._hide(update, masks, ring_bits)
