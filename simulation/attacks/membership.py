"""Membership inference on recommendations: did this customer take part?

The attacker knows a customer's history, puts half of it into the recommender as if it were
somebody's own and looks how well the other half is ranked. What that says is told from shadow
models, half of which were learned with the customer (LiRA, Carlini et al. 2022, with variances
shared by all customers). Every shadow takes its turn as the model that is attacked.

Systems: `global` is what the federation publishes, `fused` the recommender that another silo
makes of it, and `fused at home` that of the customer's own silo, whose exact statistics of its
own customers no noise protects: it is measured, and outside of every claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from fondaco.client.dataset import NO_ROWS, Fold, Rows, SiloDataset
from fondaco.client.serving import fit_recommender
from fondaco.client.splits import split_last_k
from fondaco.shared.models import Timelines
from fondaco.shared.models.base import Array32
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.models.terms import PlannedModels
from fondaco.shared.privacy.plan import RunPlan

from .bounds import auc, tpr_at
from .canaries import Tell
from .mechanisms import Array
from .world import Basket, Federation, World, rows_of, timelines_of

GLOBAL, FUSED, AT_HOME = "global", "fused", "fused at home"
SYSTEMS = (GLOBAL, FUSED, AT_HOME)
LOUD_COPIES = 300
"""Copies of every customer in shadow models without privacy: the noise is a 300th."""
N_LOCAL = 100
"""Customers of the silo whose recommender is asked, beside the targets."""
RESAMPLES = 200
FPRS = (0.001, 0.01)
_LAST_K = 2


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is computed.

    Attributes:
        n_base: customers who always take part.
        n_targets: customers who take part by a coin in each shadow.
        n_shadows: models.
    """

    n_base: int
    n_targets: int
    n_shadows: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Signals:
    """What the attacker saw of all shadows.

    Attributes:
        included: (n_shadows, n_targets) the coins.
        signal: (n_shadows, n_targets) how well the hidden halves rank.
    """

    included: NDArray[np.bool_]
    signal: Array

    def ratios(self) -> Array:
        """Return (n_shadows, n_targets) log likelihood ratios, each without its own shadow."""
        took, signal = self.included.astype(np.float64), self.signal
        laws = []
        for weight in (took, 1.0 - took):
            n = np.maximum(weight.sum(axis=0) - weight, 1.0)
            mean = ((weight * signal).sum(axis=0) - weight * signal) / n
            variance = float((weight * (signal - mean) ** 2).sum() / max(weight.sum(), 1.0))
            laws.append(norm.logpdf(signal, mean, np.sqrt(max(variance, 1e-18))))
        return np.asarray(laws[0] - laws[1])

    def rates(self, rng: np.random.Generator) -> dict[str, dict[str, float]]:
        """Return AUC and TPR at each of FPRS with 95 % intervals over customers."""
        ratios = self.ratios()
        n_targets = ratios.shape[1]
        found = [self._rates(ratios, np.arange(n_targets))]
        for _ in range(RESAMPLES):
            found.append(self._rates(ratios, rng.integers(n_targets, size=(n_targets,))))
        low, high = np.quantile(np.array(found[1:]), [0.025, 0.975], axis=0)
        names = ("auc", *(f"tpr at fpr {fpr:g}" for fpr in FPRS))
        return {
            name: {"value": value, "low": float(least), "high": float(most)}
            for name, value, least, most in zip(names, found[0], low, high, strict=True)
        }

    def _rates(self, ratios: Array, targets: NDArray[np.int64]) -> list[float]:
        chosen, coins = ratios[:, targets], self.included[:, targets]
        included, excluded = chosen[coins], chosen[~coins]
        return [auc(included, excluded), *(tpr_at(included, excluded, fpr) for fpr in FPRS)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cast:
    """Who is in the game.

    Attributes:
        base: customers who always take part.
        targets: customers who may.
        local: the silo that is asked, without the targets.
    """

    base: Sequence[Basket]
    targets: Sequence[Basket]
    local: SiloDataset

    @classmethod
    def drawn(cls, world: World, sizes: Sizes, rng: np.random.Generator) -> "Cast":
        """Return customers drawn from the world."""
        drawn = world.drawn(sizes.n_base + sizes.n_targets + N_LOCAL, rng)
        base, rest = drawn[: sizes.n_base], drawn[sizes.n_base :]
        targets, local = rest[: sizes.n_targets], rest[sizes.n_targets :]
        n_items = len(world.catalogue)
        names = np.arange(N_LOCAL + 2 * len(targets)).astype(np.str_)
        silo = split_last_k(
            rows_of(local), silo_id="asked", user_ids=names, n_items=n_items, k=_LAST_K
        )
        bounds = np.searchsorted(silo.train.user_nums, np.arange(N_LOCAL + 1))
        kept = [silo.train.item_nums[a:b] for a, b in pairwise(bounds)]
        return cls(base=[*base, *kept], targets=targets, local=silo)

    def at_home(self, included: NDArray[np.bool_]) -> SiloDataset:
        """Return the silo with the rows of those targets who are its customers."""
        chosen = [t if coin else t[:0] for t, coin in zip(self.targets, included, strict=True)]
        more = rows_of(chosen, N_LOCAL)
        train = self.local.train
        joined = Rows(
            user_nums=np.concatenate([train.user_nums, more.user_nums]),
            item_nums=np.concatenate([train.item_nums, more.item_nums]),
            times=np.concatenate([train.times, more.times]),
        )
        return replace(self.local, train=joined)


def infer(
    world: World,
    plan: RunPlan,
    sizes: Sizes,
    seed: int,
    tell: Tell,
    *,
    systems: Sequence[str],
    copies: int = 1,
) -> Mapping[str, Signals]:
    """Return system -> what is seen of all shadows.

    Args:
        world: customers.
        plan: what is released, and the noise.
        sizes: how much.
        seed: of customers, coins and noise.
        tell: told after each shadow.
        systems: which of SYSTEMS are asked.
        copies: LOUD_COPIES for what the attack sees without privacy.
    """
    rng = np.random.default_rng(seed)
    cast = Cast.drawn(world, sizes, rng)
    coins = _balanced(sizes, rng)
    seen: dict[str, list[Array]] = {system: [] for system in systems}
    for num, included in enumerate(coins):
        chosen = [basket for basket, coin in zip(cast.targets, included, strict=True) if coin]
        federation = Federation(world=world, plan=plan, seed=seed + num, copies=copies)
        facts = federation.learn([*cast.base, *chosen], weights=even_weights(plan))
        parts = GlobalParts(PlannedModels.of_plan(plan), facts)
        for system, signals in seen.items():
            if system == GLOBAL:
                signals.append(signal_of_global(parts, cast.targets))
                continue
            silo = cast.local if system == FUSED else cast.at_home(included)
            signals.append(_signal_of_silo(world, parts, silo, cast.targets))
        tell()
    return {
        system: Signals(included=coins, signal=np.stack(signals))
        for system, signals in seen.items()
    }


def even_weights(plan: RunPlan) -> Array32:
    """Return public weights of the fusion: all models alike, popularity a quarter."""
    n_buckets, n_parts = PlannedModels.of_plan(plan).fusion_shape
    weights = np.ones((n_buckets, n_parts), dtype=np.float32)
    weights[:, -1] = 0.25
    return weights


def signal_of_global(parts: GlobalParts, targets: Sequence[Basket]) -> Array:
    """Return (n_targets,) how well each half of a history ranks, told the other half."""
    n_items = len(parts.model.popularity)

    def score(shown: Sequence[Basket]) -> Array32:
        timelines = timelines_of(shown, n_items)
        return parts.fused(timelines, _taken(timelines))

    return _both_ways(score(_halves(targets, 0)), score(_halves(targets, 1)), targets)


def _signal_of_silo(
    world: World, parts: GlobalParts, silo: SiloDataset, targets: Sequence[Basket]
) -> Array:
    """Return the same of a silo's recommender, asked by customers without a past there."""
    scenario = world.scenario
    recommender = fit_recommender(
        silo,
        world.catalogue,
        parts,
        replace(scenario.fusion, half_life_days=0.0),
        metric=scenario.evaluation.headline,
        declared_users=scenario.dataset.declared_users,
    )
    first = N_LOCAL + len(targets)

    def score(shown: Sequence[Basket]) -> Array32:
        users = np.arange(first, first + len(targets))
        fold = Fold(user_nums=users, history=rows_of(shown, first), targets=NO_ROWS)
        return recommender.score(fold, silo.train).scores

    return _both_ways(score(_halves(targets, 0)), score(_halves(targets, 1)), targets)


def _halves(targets: Sequence[Basket], which: int) -> list[Basket]:
    return [target[which::2] for target in targets]


def _both_ways(first: Array32, second: Array32, targets: Sequence[Basket]) -> Array:
    """(n_targets,) mean standard score of the half that was not shown, over both ways."""
    signals = np.zeros(len(targets))
    for which, scores in ((0, first), (1, second)):
        shown, hidden = _halves(targets, which), _halves(targets, 1 - which)
        for num, row in enumerate(scores.astype(np.float64)):
            others = np.delete(row, shown[num])
            spread = max(float(others.std()), 1e-12)
            signals[num] += float((row[hidden[num]] - others.mean()).mean()) / spread / 2
    return signals


def _balanced(sizes: Sizes, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(n_shadows, n_targets) coins: every target is in half of the shadows."""
    ranks = np.argsort(rng.random((sizes.n_shadows, sizes.n_targets)), axis=0)
    return np.asarray(ranks < sizes.n_shadows // 2)


def _taken(timelines: Timelines) -> NDArray[np.bool_]:
    return np.asarray(timelines.incidence().toarray() > 0)
