"""Scenario + public facts -> RunPlan: what every silo would release, before anything is spent."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fondaco.shared.calibration import Statistic, filter_budget, gaussian_mu, plan_releases
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.config import unknown_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.features import item_features
from fondaco.shared.models import MODELS, NetworkModel, Sizes
from fondaco.shared.models.base import OPTIMIZERS, RoundTerms, Terms
from fondaco.shared.models.gram import MAX_HEAD, head_size
from fondaco.shared.models.terms import FUSION, POPULARITY, PlannedModels, in_order
from fondaco.shared.privacy.events import EVERYBODY
from fondaco.shared.privacy.plan import GRID, Cohort, RunPlan
from fondaco.shared.provenance import code_digest

from .scenario import Scenario

NEVER = "9999-12-31"
"""A simulation's plan does not expire: its digest must be the same tomorrow."""


def make_plan(
    scenario: Scenario,
    catalogue: Catalogue,
    silo_ids: Sequence[str],
    earlier: RunPlan | None = None,
) -> RunPlan:
    """Return the plan of `scenario` for these silos.

    Only public facts enter: the scenario, the catalogue, the silos' names and keys (which a
    simulation derives from its seed), and the plan of a run that this one continues; the
    scenario's epsilon then covers both.

    Raises:
        ConfigError: a privacy knob is out of range.
    """
    privacy = scenario.privacy
    _check_names_and_shares(scenario)
    head = earlier.head if earlier else _head(scenario, catalogue)
    charged = (*earlier.earlier, *earlier.releases) if earlier else ()
    sizes = Sizes(n_items=len(catalogue), head=head)
    terms = _resolved(scenario)
    models = {name: t.as_text() for name, t in terms.items()}
    cohort = Cohort.default(len(silo_ids), scenario.silos.min_present, scenario.silos.t_collude)
    releases = plan_releases(
        (_continued_statistics if earlier else _statistics)(scenario, sizes, terms),
        epsilon=privacy.epsilon,
        target_delta=privacy.target_delta,
        cohort=cohort,
        trust=privacy.trust,
        earlier=charged,
    )
    order, budget = filter_budget(releases, privacy.target_delta)
    return RunPlan(
        trust=privacy.trust,
        secure_aggregation="simulated" if privacy.trust == "aggregate" else "none",
        mode="simulation",
        cohort=cohort,
        grid=GRID,
        target_delta=repr(privacy.target_delta),
        target_epsilon=repr(privacy.epsilon),
        order=order,
        budget_units=budget,
        releases=releases,
        catalogue_digest=catalogue.digest,
        n_items=len(catalogue),
        head=head,
        code_digest=code_digest(),
        models=models,
        public=_public_facts(scenario),
        earlier=charged,
        earlier_digest=earlier.digest if earlier else "",
        expires=NEVER,
        witnesses=_witnesses(scenario, cohort),
        roster={silo: _public_key(scenario, key_name(silo)) for silo in silo_ids},
        coordinator=_public_key(scenario, COORDINATOR),
    )


def _public_key(scenario: Scenario, name: str) -> str:
    return Identity.seeded(scenario.seed, name).public.text()


def _witnesses(scenario: Scenario, cohort: Cohort) -> int:
    """One honest silo among the witnesses is enough, so one more than may collude."""
    asked = scenario.silos.witnesses or max(2, cohort.t_collude + 1)
    return min(asked, cohort.n_min - 1)


def _check_names_and_shares(scenario: Scenario) -> None:
    names = scenario.models
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"models={list(names)} must name distinct models, at least one")
    for name in ("popularity_share", "fusion_share"):
        if not 0.0 < getattr(scenario.privacy, name) < 1.0:
            value = getattr(scenario.privacy, name)
            raise ConfigError(f"privacy.{name}={value} must lie between 0 and 1")
    if scenario.privacy.popularity_share + scenario.privacy.fusion_share >= 1.0:
        raise ConfigError("popularity_share and fusion_share leave nothing for the models")


def _resolved(scenario: Scenario) -> dict[str, Terms]:
    """Every model's terms, with what is left to rules of the budget filled in."""
    terms = {name: model_terms(scenario, name) for name in scenario.models}
    privacy = scenario.privacy
    mu = gaussian_mu(privacy.epsilon, privacy.target_delta)
    rest = 1.0 - privacy.popularity_share - (privacy.fusion_share if len(terms) > 1 else 0.0)
    total = sum(own.share for own in terms.values())
    return {
        name: MODELS[name].resolve(
            own, mu * math.sqrt(rest * own.share / total), scenario.dataset.declared_users
        )
        for name, own in terms.items()
    }


def model_terms(scenario: Scenario, name: str) -> Terms:
    """Return the terms of a model as they stand in the plan.

    Raises:
        ConfigError: there is no such model.
    """
    if name not in MODELS:
        raise ConfigError(unknown_name(name, sorted(MODELS), "model"))
    terms: Terms = getattr(scenario, name)
    if not isinstance(terms, RoundTerms):
        return terms
    local = scenario.privacy.trust == "silo" and isinstance(MODELS[name], NetworkModel)
    if not local:
        return replace(terms, local_steps=1, optimizer=terms.optimizer or terms.rule)
    if not terms.optimizer:
        return replace(terms, optimizer="fedavg", learning_rate=1.0)
    if terms.optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"{name}.optimizer={terms.optimizer!r} reads gradients; where silos train locally "
            f"it must be one of {OPTIMIZERS}"
        )
    return terms


def _statistics(scenario: Scenario, sizes: Sizes, terms: Mapping[str, Terms]) -> list[Statistic]:
    """Everything that is released, in order: popularity, the models, what they are worth."""
    privacy = scenario.privacy
    fused = len(terms) > 1
    rest = 1.0 - privacy.popularity_share - (privacy.fusion_share if fused else 0.0)
    first = Statistic(kind=POPULARITY, share=privacy.popularity_share, dim=sizes.n_items)
    last = [_fusion(privacy.fusion_share, sizes, terms)] if fused else []
    return [first, *_of_models(terms, rest, sizes), *last]


def _continued_statistics(
    scenario: Scenario, sizes: Sizes, terms: Mapping[str, Terms]
) -> list[Statistic]:
    """The same for a run that has its popularity and Gram from an earlier one."""
    learned = {name: own for name, own in terms.items() if isinstance(own, RoundTerms)}
    if not learned:
        raise ConfigError("a run can only be continued with models that are learned in rounds")
    share = scenario.privacy.fusion_share
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


def _head(scenario: Scenario, catalogue: Catalogue) -> int:
    privacy = scenario.privacy
    if not privacy.head:
        mu = gaussian_mu(privacy.epsilon, privacy.target_delta)
        features = item_features(catalogue)
        return head_size(
            mu,
            scenario.dataset.declared_users,
            len(catalogue),
            with_features=bool(features.blocks),
        )
    most = min(MAX_HEAD, len(catalogue))
    if not 1 < privacy.head <= most:
        raise ConfigError(f"{privacy.head=} must lie between 2 and {most}")
    return privacy.head


def _public_facts(scenario: Scenario) -> Mapping[str, str]:
    dataset = scenario.dataset
    facts = {
        "dataset": dataset.name,
        "protocol": dataset.protocol,
        "declared_users": str(dataset.declared_users),
        "headline": scenario.evaluation.headline,
        "repeats": "yes" if dataset.keep_repeats else "no",
    }
    if scenario.silos.weights:
        facts["silo_weights"] = ",".join(repr(weight) for weight in scenario.silos.weights)
    if dataset.protocol == "time":
        facts |= {"valid_from": dataset.valid_from, "test_from": dataset.test_from}
    return facts
