"""PlanConfig + catalogue -> RunPlan: what every silo would release, before anything is spent."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fondaco.shared.calibration import Statistic, filter_budget, gaussian_mu, plan_releases
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.features import item_features
from fondaco.shared.models import MODELS, NetworkModel, Sizes
from fondaco.shared.models.base import OPTIMIZERS, RoundTerms, Terms
from fondaco.shared.models.gram import MAX_HEAD, head_size
from fondaco.shared.models.terms import FUSION, POPULARITY, PlannedModels, in_order
from fondaco.shared.privacy.events import EVERYBODY, PrivacyEvent
from fondaco.shared.privacy.plan import GRID, MASKED, Cohort, RunPlan, Trust
from fondaco.shared.provenance import code_digest

from .plan_config import PlanConfig

COARSEST_GRID = 2**15
"""Grid units of sums that are added modulo 2^32: fewer would be felt (README, "Decisions")."""


def make_plan(config: PlanConfig, catalogue: Catalogue) -> RunPlan:
    """Return the plan that `config` asks for, with as much noise as its epsilon needs.

    Only public facts enter: the configuration, the catalogue, the silos' names and keys, and
    the plan of a run that this one continues; epsilon then covers both.

    Raises:
        ConfigError: a knob is out of range.
    """
    privacy, earlier = config.privacy, config.earlier
    charged = (*earlier.earlier, *earlier.releases) if earlier else ()
    sizes = Sizes(
        n_items=len(catalogue), head=earlier.head if earlier else _head(config, catalogue)
    )
    terms = _resolved(config)
    cohort = _cohort(config)
    statistics = (_continued_statistics if earlier else _statistics)(config, sizes, terms)
    hidden = _secure_aggregation(config, cohort)
    grid, ring_bits, releases = GRID, 64, _calibrated(config, cohort, statistics, charged)
    if hidden == MASKED and (short := _short_grid(config, cohort, releases)):
        grid, ring_bits = short, 32
        releases = _calibrated(config, cohort, statistics, charged, grid=grid)
    order, budget = filter_budget(releases, privacy.target_delta)
    return RunPlan(
        trust=privacy.trust,
        secure_aggregation=hidden,
        key_agreement=privacy.key_agreement if hidden == MASKED else "",
        ring_bits=ring_bits if hidden == MASKED else 0,
        mode=config.mode,
        cohort=cohort,
        grid=grid,
        target_delta=repr(privacy.target_delta),
        target_epsilon=repr(privacy.epsilon),
        order=order,
        budget_units=budget,
        releases=releases,
        catalogue_digest=catalogue.digest,
        n_items=len(catalogue),
        head=sizes.head,
        code_digest=code_digest(),
        models={name: own.as_text() for name, own in terms.items()},
        public={"declared_users": str(config.declared_users), **config.public},
        earlier=charged,
        earlier_digest=earlier.digest if earlier else "",
        expires=config.expires,
        witnesses=config.cohort.witnesses or _enough_witnesses(cohort),
        roster=dict(config.roster),
        coordinator=config.coordinator,
    )


def _cohort(config: PlanConfig) -> Cohort:
    asked = config.cohort
    return Cohort.default(len(config.roster), asked.min_present, asked.t_collude)


def _calibrated(
    config: PlanConfig,
    cohort: Cohort,
    statistics: Sequence[Statistic],
    charged: Sequence[PrivacyEvent],
    *,
    grid: int = GRID,
) -> tuple[PrivacyEvent, ...]:
    return plan_releases(
        statistics,
        epsilon=config.privacy.epsilon,
        target_delta=config.privacy.target_delta,
        cohort=cohort,
        trust=config.privacy.trust,
        grid=grid,
        earlier=charged,
    )


def _secure_aggregation(config: PlanConfig, cohort: Cohort) -> str:
    """Return how single shares are hidden.

    Raises:
        ConfigError: it is asked for where it does not fit, or the silos are too few for it.
    """
    asked, shared = config.privacy.secure_aggregation, config.privacy.trust == "aggregate"
    if not shared:
        if asked:
            raise ConfigError(
                f'privacy.secure_aggregation={asked!r} needs privacy.trust = "aggregate"'
            )
        return "none"
    if asked != "simulated" and (asked or config.mode == "deploy" or cohort.may_mask):
        try:
            cohort.check_masked()
        except ConfigError as error:
            raise ConfigError(f"privacy.secure_aggregation={asked!r}: {error}") from None
        return MASKED
    return "simulated"


def _short_grid(config: PlanConfig, cohort: Cohort, releases: Sequence[PrivacyEvent]) -> int:
    """Return the finest grid at which 32 bits hold a silo's sum, 0 if none is fine enough.

    They must hold it even if all declared customers are that one silo's.
    """
    noise = max(10 * event.silo_stddev_grid for event in releases) / GRID
    most = 2**31 / cohort.n_silos / (config.declared_users + noise + 1)
    grid = min(GRID, 2 ** int(math.log2(most)))
    return grid if grid >= COARSEST_GRID else 0


def model_terms(name: str, own: Terms, trust: Trust) -> Terms:
    """Return the terms of a model as they stand in the plan.

    Raises:
        ConfigError: its optimizer does not fit what the silos send.
    """
    if not isinstance(own, RoundTerms):
        return own
    local = trust == "silo" and isinstance(MODELS[name], NetworkModel)
    if not local:
        return replace(own, local_steps=1, optimizer=own.optimizer or own.rule)
    if not own.optimizer:
        return replace(own, optimizer="fedavg", learning_rate=1.0)
    if own.optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"{name}.optimizer={own.optimizer!r} reads gradients; where silos train locally "
            f"it must be one of {OPTIMIZERS}"
        )
    return own


def _enough_witnesses(cohort: Cohort) -> int:
    """One honest silo among the witnesses is enough, so one more than may collude."""
    return min(max(2, cohort.t_collude + 1), cohort.n_min - 1)


def _resolved(config: PlanConfig) -> dict[str, Terms]:
    """Every model's terms, with what is left to rules of the budget filled in."""
    privacy = config.privacy
    terms = {name: model_terms(name, own, privacy.trust) for name, own in config.terms.items()}
    mu = gaussian_mu(privacy.epsilon, privacy.target_delta)
    total = sum(own.share for own in terms.values())
    return {
        name: MODELS[name].resolve(
            own, mu * math.sqrt(config.models_share * own.share / total), config.declared_users
        )
        for name, own in terms.items()
    }


def _statistics(config: PlanConfig, sizes: Sizes, terms: Mapping[str, Terms]) -> list[Statistic]:
    """Everything that is released, in order: popularity, the models, what they are worth."""
    privacy = config.privacy
    first = Statistic(kind=POPULARITY, share=privacy.popularity_share, dim=sizes.n_items)
    last = [_fusion(privacy.fusion_share, sizes, terms)] if len(terms) > 1 else []
    return [first, *_of_models(terms, config.models_share, sizes), *last]


def _continued_statistics(
    config: PlanConfig, sizes: Sizes, terms: Mapping[str, Terms]
) -> list[Statistic]:
    """The same for a run that has its popularity and Gram from an earlier one."""
    learned = {name: own for name, own in terms.items() if isinstance(own, RoundTerms)}
    if not learned:
        raise ConfigError("a run can only be continued with models that are learned in rounds")
    share = config.privacy.fusion_share
    return [*_of_models(learned, 1.0 - share, sizes), _fusion(share, sizes, terms)]


def _fusion(share: float, sizes: Sizes, terms: Mapping[str, Terms]) -> Statistic:
    dim = PlannedModels(terms=in_order(terms), sizes=sizes).fusion_dim
    return Statistic(kind=FUSION, share=share, dim=dim)


def _of_models(terms: Mapping[str, Terms], rest: float, sizes: Sizes) -> list[Statistic]:
    total = sum(own.share for own in terms.values())
    ordered = in_order(terms).items()
    return [_of_model(name, own, rest * own.share / total, sizes) for name, own in ordered]


def _of_model(name: str, terms: Terms, share: float, sizes: Sizes) -> Statistic:
    dim = MODELS[name].dim(terms, sizes)
    if not isinstance(terms, RoundTerms):
        return Statistic(kind=name, share=share, dim=dim)
    return Statistic(
        kind=name,
        share=share,
        dim=dim,
        rounds=terms.rounds,
        sampling_ppm=round(terms.sampling_rate * EVERYBODY),
        steps=terms.local_steps,
    )


def _head(config: PlanConfig, catalogue: Catalogue) -> int:
    privacy = config.privacy
    if not privacy.head:
        mu = gaussian_mu(privacy.epsilon, privacy.target_delta)
        with_features = bool(item_features(catalogue).blocks)
        return head_size(mu, config.declared_users, len(catalogue), with_features=with_features)
    most = min(MAX_HEAD, len(catalogue))
    if not 1 < privacy.head <= most:
        raise ConfigError(f"{privacy.head=} must lie between 2 and {most}")
    return privacy.head
