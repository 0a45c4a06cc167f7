"""Plans that tests agree on, whose numbers are real ones, and processes that tests kill."""

import os
import signal
import sys
import traceback
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from fondaco.shared.calibration import Statistic, filter_budget, plan_releases
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.chain import store
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.privacy.plan import GRID, Cohort, RunPlan
from fondaco.shared.provenance import code_digest
from fondaco.shared.vocabulary import Vocabulary

sys.path.insert(0, str(Path(__file__).parent))

CATALOGUE = Catalogue(
    items=Vocabulary(tuple("abcde")),
    texts=("red lamp", "blue lamp", "rug", "", "red rug"),
    categories=("",) * 5,
    brands=("",) * 5,
    prices=np.full(5, np.nan),
)


def pytest_configure(config):
    # Flower imports typer, typer imports names that click is about to drop.
    config.addinivalue_line("filterwarnings", "ignore:.*click:DeprecationWarning")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's `make test &`
        signal.signal(signal.SIGINT, signal.default_int_handler)


def build_plan(
    statistics=(("popularity", 1, 5), ("gram", 9, 10)),
    *,
    epsilon=1.0,
    delta=1e-6,
    n_silos=10,
    trust="aggregate",
    earlier=(),
    earlier_digest="",
    **changes,
):
    """Return a plan of (kind, share, dim) tuples or whole statistics, its terms changed."""
    cohort = Cohort.default(n_silos)
    releases = plan_releases(
        [s if isinstance(s, Statistic) else _once(*s) for s in statistics],
        epsilon=epsilon,
        target_delta=delta,
        cohort=cohort,
        trust=trust,
        earlier=earlier,
    )
    order, budget = filter_budget(releases, delta)
    plan = RunPlan(
        trust=trust,
        secure_aggregation="simulated" if trust == "aggregate" else "none",
        mode="simulation",
        cohort=cohort,
        grid=GRID,
        target_delta=repr(delta),
        target_epsilon=repr(epsilon),
        order=order,
        budget_units=budget,
        releases=releases,
        catalogue_digest=CATALOGUE.digest,
        n_items=5,
        head=4,
        code_digest=code_digest(),
        models={"gram": {"share": "1.0"}},
        public={"split": "2011-09-01"},
        earlier=earlier,
        earlier_digest=earlier_digest,
        expires="2999-12-31",
    )
    return replace(plan, **changes)


def identity_of(silo_id):
    """Return the key that simulated silos of this name have."""
    return Identity.seeded(0, key_name(silo_id))


def with_roster(n_silos=10, **changes):
    """Return changes that give a plan keys and witnesses; "north" is the first silo."""
    silo_ids = ["north", *(f"silo-{num}" for num in range(2, n_silos + 1))]
    return {
        "roster": {silo: identity_of(silo).public.text() for silo in silo_ids},
        "coordinator": Identity.seeded(0, COORDINATOR).public.text(),
        "witnesses": 2,
        **changes,
    }


def masked(n_silos=10, **changes):
    """Return changes that make a plan of shared noise one of masked sums."""
    masks = {"secure_aggregation": "masked-sum", "key_agreement": "x25519", "ring_bits": 64}
    return {**with_roster(n_silos, witnesses=0), **masks, **changes}


def _once(kind, share, dim):
    return Statistic(kind=kind, share=share, dim=dim)


class Children:
    """Processes of our own that die where we say."""

    @staticmethod
    def die_in(owner, name, when, nth=1):
        """Make the nth call of a function the last thing that this process does."""
        real, calls = getattr(owner, name), count(1)

        def wrapped(*args, **options):
            num = next(calls)
            if (when, num) == ("before", nth):
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **options)
            if (when, num) == ("after", nth):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, wrapped)

    @staticmethod
    def fork(work):
        """Return a child process that runs `work`; it exits with 0 only if nothing was raised."""
        child = os.fork()
        if child:
            return child
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    @staticmethod
    def ended(work):
        """Return how a child ended: 0, 1, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(Children.fork(work), 0)[1])


@pytest.fixture(scope="session")
def children():
    """What forks a process, kills it at a call, and tells how it ended."""
    return Children


@pytest.fixture(scope="session")
def catalogue():
    """The five items that plans of tests name."""
    return CATALOGUE


@pytest.fixture(scope="session")
def make_plan():
    return build_plan


@pytest.fixture(scope="session")
def plan():
    """Popularity of 5 items (a tenth of the budget), then the Gram of 4 (nine tenths)."""
    return build_plan()


@pytest.fixture(scope="session")
def owner():
    """The key of silo "north"."""
    return identity_of("north")


@pytest.fixture(scope="session")
def make_owner():
    return identity_of


@pytest.fixture(scope="session")
def make_roster():
    return with_roster


@pytest.fixture(scope="session")
def make_masked():
    return masked


@pytest.fixture
def hasty(monkeypatch):
    """Disks that need not survive a power cut: nobody pulls a plug here."""
    connect = store._connect

    def connected(path):
        db = connect(path)
        db.execute("PRAGMA synchronous = OFF")
        return db

    monkeypatch.setattr(store, "_connect", connected)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
