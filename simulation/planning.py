"""Scenario -> RunPlan: what a simulation's silos would release, before anything is spent."""

from collections.abc import Mapping, Sequence

from fondaco.client.limits import MASKING_CAP, simulated_policy
from fondaco.server import planning
from fondaco.server.plan_config import CohortConfig, PlanConfig
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.errors import ConfigError, RefusalError
from fondaco.shared.privacy.plan import RunPlan

from .scenario import Scenario

NEVER = "9999-12-31"
"""A simulation's plan does not expire: its digest must be the same tomorrow."""


def make_plan(
    scenario: Scenario,
    catalogue: Catalogue,
    silo_ids: Sequence[str],
    earlier: RunPlan | None = None,
) -> RunPlan:
    """Return the plan of `scenario` for these silos, whose keys come from its seed.

    Raises:
        ConfigError: a privacy knob is out of range, or the plan passes its owners' limits.
    """
    plan = planning.make_plan(plan_config(scenario, silo_ids, earlier), catalogue)
    limits = simulated_policy(plan)
    if limits is not None:
        try:
            limits.check_plan(plan)
        except RefusalError as error:
            raise ConfigError(f"{error} (silos.epsilon_if_masking_broke)") from error
    return plan


def plan_config(
    scenario: Scenario, silo_ids: Sequence[str], earlier: RunPlan | None = None
) -> PlanConfig:
    """Return what the plan of `scenario` is made from.

    Raises:
        ConfigError: a privacy knob is out of range.
    """
    silos = scenario.silos
    return PlanConfig(
        terms=scenario.terms(),
        privacy=scenario.privacy,
        cohort=CohortConfig(
            min_present=silos.min_present, t_collude=silos.t_collude, witnesses=silos.witnesses
        ),
        declared_users=scenario.dataset.declared_users,
        public=_public_facts(scenario),
        mode="simulation",
        expires=NEVER,
        roster={silo_id: _public_key(scenario, key_name(silo_id)) for silo_id in silo_ids},
        coordinator=_public_key(scenario, COORDINATOR),
        earlier=earlier,
    )


def _public_key(scenario: Scenario, name: str) -> str:
    return Identity.seeded(scenario.seed, name).public.text()


def _public_facts(scenario: Scenario) -> Mapping[str, str]:
    dataset = scenario.dataset
    facts = {
        "dataset": dataset.name,
        "protocol": dataset.protocol,
        "headline": scenario.evaluation.headline,
        "repeats": "yes" if dataset.keep_repeats else "no",
    }
    if scenario.silos.epsilon_if_masking_broke:
        facts[MASKING_CAP] = repr(scenario.silos.epsilon_if_masking_broke)
    if scenario.silos.weights:
        facts["silo_weights"] = ",".join(repr(weight) for weight in scenario.silos.weights)
    if dataset.protocol == "time":
        facts |= {"valid_from": dataset.valid_from, "test_from": dataset.test_from}
    return facts
