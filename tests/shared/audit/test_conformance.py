"""The conformance run itself; what its checks catch is held by tests/planted."""

import json
from dataclasses import replace

import pytest

from fondaco.shared.audit.conformance import CHECKS, FALSE_ALARM, Core, run_conformance
from fondaco.shared.audit.conformance.account_checks import exact_units, gaussian_epsilon
from fondaco.shared.chain.canonical import canonical_json
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.events import EVERYBODY, Mechanism
from fondaco.shared.privacy.noise import NoiseStream


@pytest.fixture(scope="module")
def run():
    return run_conformance(seed=3, quick=True)


def test_installed_core_passes_every_check(run):
    assert [check.name for check in run.checks] == list(CHECKS)
    assert [check.name for check in run.checks if not check.passed] == []
    assert run.passed


def test_installed_core_passes_with_the_systems_own_noise():
    """False alarms: 2e-5 of all test runs."""
    run = run_conformance(quick=True)
    assert run.passed, [check for check in run.checks if not check.passed]


def test_false_alarms_are_stated_and_rare(run):
    statistical = [check for check in run.checks if check.p_value is not None]
    assert all(check.threshold == check.false_alarm == FALSE_ALARM for check in statistical)
    assert run.false_alarm == pytest.approx(len(statistical) * 1e-6)
    assert run.false_alarm < 1e-4
    assert all(c.false_alarm == 0 for c in run.checks if c.p_value is None)


def test_every_check_says_what_it_finds_and_what_it_saw(run):
    assert all(check.finds.endswith(".") for check in run.checks)
    assert all(check.detail for check in run.checks)
    assert len({check.finds for check in run.checks}) == len(run.checks)


def test_text_is_canonical_and_names_the_code(run):
    body = json.loads(run.to_json())
    assert run.to_json() == canonical_json(body)
    assert (body["schema"], body["kind"], body["passed"]) == (1, "conformance", 1)
    assert body["code"]["core"].startswith("sha256:")
    assert {"fondaco", "numpy", "dp-accounting", "cryptography", "python"} < set(body["code"])
    assert [check["name"] for check in body["checks"]] == list(CHECKS)


def test_equal_seeds_repeat_a_run(run):
    def told(one):
        skipped = "system streams"  # never seeded
        return [(c.name, c.p_value, c.statistic) for c in one.checks if c.name != skipped]

    again = run_conformance(seed=3, quick=True)
    assert told(again) == told(run)
    assert told(run_conformance(seed=4, quick=True)) != told(run)


def test_quick_run_is_quick_and_a_full_one_looks_closer(run):
    name = "noise scale"
    full = run_conformance(seed=3, only=(name,))
    quick = next(check for check in run.checks if check.name == name)
    assert int(full.checks[0].detail.split()[-2]) >= 250_000
    assert int(quick.detail.split()[-2]) >= 16_384
    assert run.seconds < 30


def test_check_that_cannot_be_completed_has_failed():
    def broken():
        raise OSError("no entropy")

    run = run_conformance(core=replace(Core(), system_stream=broken), only=("noise scale",))
    assert not run.passed
    assert run.checks[0].detail == "OSError: no entropy"


def test_failed_run_says_so_in_its_text():
    core = replace(Core(), system_stream=lambda: NoiseStream.seeded(0))
    body = json.loads(run_conformance(core=core, only=("system streams",)).to_json())
    assert body["passed"] == body["checks"][0]["passed"] == 0
    assert "repeats" in body["checks"][0]["detail"]


def test_run_tells_what_it_is_about_to_check():
    told = []
    run_conformance(only=("seeded streams", "epsilon of units"), tell=told.append)
    assert told == ["seeded streams", "epsilon of units"]


def test_unknown_check_is_no_check():
    with pytest.raises(KeyError):
        run_conformance(only=("no such check",))


@pytest.mark.parametrize("mu", [0.1, 1.0, 3.16, 10.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-9])
def test_second_writing_of_the_gaussian_curve_agrees_with_the_first(mu, delta):
    epsilon = gaussian_epsilon(mu, delta)
    assert accountant.gaussian_delta(epsilon, mu) == pytest.approx(delta, rel=1e-6)


@pytest.mark.parametrize("ppm", [1000, 50_000, 500_000])
@pytest.mark.parametrize("order", [2, 8, 64])
def test_second_writing_of_sampled_costs_agrees_with_dp_accounting(ppm, order):
    one = Mechanism(2, ppm, 10)
    told = accountant.rdp_units(one, order)
    assert exact_units(one, order) == pytest.approx(told, rel=1e-6, abs=2)


def test_cost_of_everybody_is_an_exact_fraction():
    assert exact_units(Mechanism(3, EVERYBODY, 2), 7) * 9 == 7 * 10**9
