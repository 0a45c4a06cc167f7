"""What a conformance check may use: the functions under test, streams, ledgers, plans."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration import filter_budget
from ...chain.keys import COORDINATOR, Identity, key_name
from ...errors import ConfigError, PrivacyError
from ...privacy import accountant
from ...privacy.clipping import ClippedSum, gram_dim, gram_sum, popularity_sum
from ...privacy.contribution import Histories, bound_contributions
from ...privacy.events import EVERYBODY, Mechanism, PrivacyEvent
from ...privacy.gradients import Factors, GradientSum
from ...privacy.ledger import Ledger
from ...privacy.noise import NoiseStream
from ...privacy.plan import GRID, MASKED, Cohort, RunPlan, Trust
from ...privacy.release import PrivateUpdate, release, release_steps

RATE_PPM = 150_000
DELTA = "1e-06"
N_ITEMS, HEAD = 16_384, 48
STEPS_DIM, N_STEPS = 4096, 4
ASKED = f"sha256:{'0' * 64}"

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Core:
    """The functions under test; by default the installed ones."""

    system_stream: Callable[[], NoiseStream] = NoiseStream.from_system
    seeded_stream: Callable[..., NoiseStream] = NoiseStream.seeded
    bound_contributions: Callable[..., Histories] = bound_contributions
    popularity_sum: Callable[..., ClippedSum] = popularity_sum
    gram_sum: Callable[..., ClippedSum] = gram_sum
    gradient_sum: Callable[..., GradientSum] = GradientSum
    factors: Callable[..., Factors] = Factors
    release_sum: Callable[..., PrivateUpdate] = release
    release_moves: Callable[..., PrivateUpdate] = release_steps
    cohort: Callable[..., Cohort] = Cohort
    run_plan: Callable[..., RunPlan] = RunPlan
    open_ledger: Callable[..., Ledger] = Ledger.open_or_create
    rdp_units: Callable[..., int] = accountant.rdp_units
    epsilon_pld: Callable[[tuple[Mechanism, ...], float], float] = accountant.epsilon_pld
    epsilon_rdp: Callable[[tuple[Mechanism, ...], float], float] = accountant.epsilon_rdp
    epsilon_bound: Callable[[tuple[Mechanism, ...], float], float] = accountant.epsilon_bound
    epsilon_at: Callable[..., float] = accountant.epsilon_at


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Equal releases of a plan.

    Attributes:
        multiplier: noise over sensitivity [1].
        ppm: Poisson probability [parts per million].
    """

    kind: str
    multiplier: int
    dim: int
    rounds: int = 1
    ppm: int = EVERYBODY
    n_steps: int = 1

    def event(self, round_num: int, cohort: Cohort, trust: Trust) -> PrivacyEvent:
        """Return one of them."""
        stddev = self.multiplier * GRID
        return PrivacyEvent(
            kind=self.kind,
            round_num=round_num,
            dim=self.dim,
            sens_grid=GRID,
            stddev_grid=stddev,
            silo_stddev_grid=cohort.silo_stddev(stddev, trust),
            sampling_ppm=self.ppm,
            steps=self.n_steps,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a check saw.

    Attributes:
        p_value: of the statistics, None of an exact check.
        statistic: the number that says most.
        faults: what is certainly wrong.
        detail: what was measured, in words.
    """

    p_value: float | None = None
    statistic: float = 0.0
    faults: tuple[str, ...] = ()
    detail: str = ""


class Probe:
    """One conformance run's plans, ledgers and draws, made when first asked for.

    Args:
        core: the functions under test.
        folder: for ledgers.
        seed: reproducible streams and data; None draws both from the operating system.
        quick: fewer draws.
    """

    def __init__(self, core: Core, folder: Path, seed: int | None, *, quick: bool) -> None:
        self.core = core
        self.seed = seed
        self.quick = quick
        self.folder = folder
        self.rng = np.random.default_rng(secrets.randbits(64) if seed is None else seed)
        self._ledgers: dict[Path, Ledger] = {}
        self._noise: dict[tuple[str, str, int], Array] = {}

    def close(self) -> None:
        """Close every ledger."""
        for opened in self._ledgers.values():
            opened.close()

    def stream(self, *labels: str) -> NoiseStream:
        """Return a new stream: the system's, or a seeded one of its own by its labels."""
        if self.seed is None:
            return self.core.system_stream()
        return self.core.seeded_stream(self.seed, *labels)

    @cached_property
    def shared_plan(self) -> RunPlan:
        """Ten silos that share the noise: two rounds of popularity, a Gram, a metric."""
        planned = [
            Planned(kind="popularity", multiplier=4, dim=N_ITEMS, rounds=2),
            Planned(kind="gram", multiplier=2, dim=gram_dim(HEAD)),
            Planned(kind="fusion", multiplier=5, dim=4000),
        ]
        return self.plan_of(planned, trust="aggregate", n_silos=10)

    @cached_property
    def sampled_plan(self) -> RunPlan:
        """Silos that protect themselves: local steps, and sums of Poisson samples."""
        planned = [
            Planned(
                kind="steps", multiplier=2, dim=STEPS_DIM, rounds=2, ppm=RATE_PPM, n_steps=N_STEPS
            ),
            Planned(kind="sampled", multiplier=3, dim=N_ITEMS, rounds=3, ppm=RATE_PPM),
        ]
        return self.plan_of(planned, trust="silo", n_silos=3)

    @cached_property
    def masked_plan(self) -> RunPlan:
        """Ten silos whose masked sums meet in a ring of 32 bits."""
        silos = ["north", *(f"silo {num}" for num in range(2, 11))]
        return self.plan_of(
            [Planned(kind="masked", multiplier=4, dim=64, rounds=2)],
            trust="aggregate",
            n_silos=len(silos),
            secure_aggregation=MASKED,
            key_agreement="x25519",
            ring_bits=32,
            roster={silo: Identity.seeded(0, key_name(silo)).public.text() for silo in silos},
            coordinator=Identity.seeded(0, COORDINATOR).public.text(),
        )

    def plan_of(
        self,
        planned: Sequence[Planned],
        *,
        trust: Trust,
        n_silos: int,
        **changes: Any,  # noqa: ANN401 (terms of any kind)
    ) -> RunPlan:
        """Return a real plan of these releases, which checks itself when it is made."""
        away = n_silos // 10
        cohort = self.core.cohort(n_silos=n_silos, n_min=n_silos - away, t_collude=max(1, away))
        each = [one for one in planned for _ in range(one.rounds)]
        releases = tuple(one.event(num, cohort, trust) for num, one in enumerate(each, start=1))
        joint = tuple(event.joint for event in releases)
        order, budget = filter_budget(releases, float(DELTA))
        terms: dict[str, Any] = {
            "trust": trust,
            "secure_aggregation": "simulated" if trust == "aggregate" else "none",
            "mode": "simulation",
            "cohort": cohort,
            "grid": GRID,
            "target_delta": DELTA,
            "target_epsilon": f"{accountant.epsilon_rdp(joint, float(DELTA)):.3f}",
            "order": order,
            "budget_units": budget,
            "releases": releases,
            "catalogue_digest": "sha256:conformance",
            "n_items": N_ITEMS,
            "head": HEAD,
            "code_digest": "sha256:conformance",
            "models": {},
            "public": {},
            "expires": "9999-12-31",
        }
        return self.core.run_plan(**{**terms, **changes})

    def path(self, agreed: RunPlan, silo_id: str) -> Path:
        """Return where the silo's ledger of that plan lies."""
        return self.folder / agreed.digest[-16:] / f"{silo_id}.db"

    def ledger(self, agreed: RunPlan, silo_id: str) -> Ledger:
        """Return the silo's open ledger of that plan, created when first asked for."""
        path = self.path(agreed, silo_id)
        if path not in self._ledgers:
            owner = Identity.seeded(0, key_name(silo_id))
            self._ledgers[path] = self.core.open_ledger(path, silo_id, owner, agreed)
        return self._ledgers[path]

    def reopened(self, agreed: RunPlan, silo_id: str) -> Ledger:
        """Return the silo's ledger after its process ended and another began."""
        self._ledgers.pop(self.path(agreed, silo_id)).close()
        return self.ledger(agreed, silo_id)

    def nobody(self, kind: str, dim: int) -> ClippedSum:
        """Return the sum of a silo without customers."""
        if kind not in {"popularity", "gram"}:
            sample = self.stream("nobody").sample(0, EVERYBODY)
            return self.core.gradient_sum(dim, 1.0, GRID, sample).total()
        none = np.zeros(0, dtype=np.int64)
        n_items = N_ITEMS if kind == "popularity" else HEAD
        histories = self.core.bound_contributions(none, none, 0, n_items)
        summed = self.core.popularity_sum if kind == "popularity" else self.core.gram_sum
        return summed(histories, GRID)

    def noise_of(self, silo: str, kind: str, round_num: int) -> Array:
        """(dim,) release of an empty silo over its planned noise: standard normal."""
        key = silo, kind, round_num
        if key not in self._noise:
            debit = self.ledger(self.shared_plan, silo).debit(kind, round_num, request=ASKED)
            total = self.nobody(kind, debit.event.dim)
            update = self.core.release_sum(total, debit, self.stream(*map(str, key)))
            self._noise[key] = update.values / debit.event.silo_stddev_grid
        return self._noise[key]

    @property
    def honest(self) -> list[str]:
        """Silos whose noise the guarantee rests on."""
        cohort = self.shared_plan.cohort
        return ["north", *(f"silo {num}" for num in range(2, cohort.n_min - cohort.t_collude + 1))]

    @property
    def rounds(self) -> list[tuple[str, int]]:
        """(kind, round number) of the shared plan's releases."""
        return [(event.kind, event.round_num) for event in self.shared_plan.releases]


def works(attempt: Callable[[], object]) -> bool:
    """Return whether `attempt` was let through by the core."""
    try:
        attempt()
    except (PrivacyError, ConfigError):
        return False
    return True
