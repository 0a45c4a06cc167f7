"""Scenario + public facts -> RunPlan: what every silo would release, before anything is spent."""

from collections.abc import Mapping

from fondaco.shared.calibration import Statistic, filter_budget, gaussian_mu, plan_releases
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.features import item_features
from fondaco.shared.models import MODELS
from fondaco.shared.models.gram import MAX_HEAD, head_size
from fondaco.shared.privacy.clipping import gram_dim
from fondaco.shared.privacy.plan import GRID, SHARES_TOTAL, Cohort, RunPlan
from fondaco.shared.provenance import code_digest

from .scenario import Scenario


def make_plan(scenario: Scenario, catalogue: Catalogue, n_silos: int) -> RunPlan:
    """Return the plan of `scenario` for `n_silos` silos.

    Only public facts enter: the scenario, the catalogue, the number of silos.

    Raises:
        ConfigError: a privacy knob is out of range.
    """
    privacy = scenario.privacy
    unknown = [name for name in scenario.models if name not in MODELS]
    if unknown or not scenario.models:
        raise ConfigError(f"models={list(scenario.models)} must name some of {sorted(MODELS)}")
    if not 0 < privacy.popularity_share < 1:
        raise ConfigError(f"{privacy.popularity_share=} must lie between 0 and 1")
    head = _head(scenario, catalogue)
    cohort = Cohort.default(n_silos, scenario.silos.min_present, scenario.silos.t_collude)
    popularity_ppm = round(privacy.popularity_share * SHARES_TOTAL)
    releases = plan_releases(
        [
            Statistic(kind="popularity", share_ppm=popularity_ppm, dim=len(catalogue)),
            Statistic(kind="gram", share_ppm=SHARES_TOTAL - popularity_ppm, dim=gram_dim(head)),
        ],
        epsilon=privacy.epsilon,
        target_delta=privacy.target_delta,
        cohort=cohort,
        trust=privacy.trust,
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
        public=_public_facts(scenario),
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
    }
    if dataset.protocol == "time":
        facts |= {"valid_from": dataset.valid_from, "test_from": dataset.test_from}
    return facts
