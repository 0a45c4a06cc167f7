"""Tests the installed trusted core from outside, as an auditor would who does not believe it.

Statistical checks raise a false alarm with probability `FALSE_ALARM` each; where a check makes
several comparisons, its p-value is the least of them times their number. Exact checks raise
none. Every check takes the functions it tests from a `Core`, so that a test can put a broken
one in and see it caught.
"""

import hashlib
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ... import privacy
from ...chain.canonical import canonical_json
from ...provenance import code_digest
from . import (
    account_checks,
    ledger_checks,
    mask_checks,
    noise_checks,
    sampler_checks,
    sum_checks,
)
from .probe import Core, Outcome, Probe

__all__ = ["CHECKS", "FALSE_ALARM", "Check", "Conformance", "Core", "run_conformance"]

FALSE_ALARM = 1e-6
"""A statistical check fails below this p-value."""

SCHEMA = 1
_LIBRARIES = ("fondaco", "numpy", "dp-accounting", "cryptography")

CHECKS: Mapping[str, Callable[[Probe], Outcome]] = {
    "noise scale": noise_checks.check_scale,
    "noise scale with customers": noise_checks.check_scale_with_customers,
    "noise of local steps": noise_checks.check_steps,
    "noise shape": noise_checks.check_shape,
    "noise tails": noise_checks.check_tails,
    "noise support": noise_checks.check_support,
    "noise autocorrelation": noise_checks.check_itself,
    "noise of silos and rounds": noise_checks.check_silos,
    "noise shares": noise_checks.check_shares,
    "noise on untouched numbers": noise_checks.check_untouched,
    "system streams": noise_checks.check_system,
    "seeded streams": noise_checks.check_streams,
    "integer lattice": noise_checks.check_lattice,
    "sampling frequency": sampler_checks.check_frequency,
    "sample sizes": sampler_checks.check_sizes,
    "sampling independence": sampler_checks.check_independence,
    "sample reuse": sampler_checks.check_reuse,
    "popularity sensitivity": sum_checks.check_popularity,
    "gram sensitivity": sum_checks.check_gram,
    "gradient sensitivity": sum_checks.check_gradients,
    "customers alone": sum_checks.check_alone,
    "any input": sum_checks.check_any_input,
    "local steps": sum_checks.check_moves,
    "debit first": ledger_checks.check_debit_first,
    "budget filter": ledger_checks.check_filter,
    "restart": ledger_checks.check_restart,
    "retry": ledger_checks.check_retry,
    "proof of payment": ledger_checks.check_proof,
    "promises": ledger_checks.check_promises,
    "sum bound": mask_checks.check_bound,
    "masks": mask_checks.check_masks,
    "mask promises": ledger_checks.check_mask_promises,
    "gaussian epsilon": account_checks.check_gaussian,
    "sampled epsilon": account_checks.check_sampled,
    "budget units": account_checks.check_units,
    "epsilon of units": account_checks.check_conversion,
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check and its verdict.

    Attributes:
        finds: what it looks at.
        statistic: the number that says most.
        p_value: None of an exact check.
        threshold: the p-value below which it fails, None of an exact check.
        detail: what was measured, or what is wrong.
        false_alarm: how likely right code fails it [probability].
        seconds: how long it took [s].
    """

    name: str
    finds: str
    statistic: float
    p_value: float | None
    threshold: float | None
    passed: bool
    detail: str
    false_alarm: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Conformance:
    """What a run found.

    Attributes:
        seed: of streams and data; None if both came from the operating system.
        code: versions by name, and the SHA-256 of the core's sources.
        seconds: of the whole run [s].
    """

    checks: tuple[Check, ...]
    seed: int | None
    quick: bool
    seconds: float
    code: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def false_alarm(self) -> float:
        """How likely right code fails any of the checks, at most [probability]."""
        return sum(check.false_alarm for check in self.checks)

    def to_json(self) -> str:
        """Return the canonical text: numbers that are not whole as decimal text."""
        return canonical_json(
            {
                "schema": SCHEMA,
                "kind": "conformance",
                "passed": int(self.passed),
                "false_alarm": _text(self.false_alarm),
                "seed": self.seed,
                "quick": int(self.quick),
                "seconds": f"{self.seconds:.1f}",
                "code": dict(self.code),
                "checks": [_body(check) for check in self.checks],
            }
        )


def run_conformance(
    *,
    seed: int | None = None,
    quick: bool = False,
    core: Core | None = None,
    only: Sequence[str] = (),
    tell: Callable[[str], None] = lambda name: None,
) -> Conformance:
    """Run the checks; about 10 seconds, 5 if `quick`.

    Args:
        seed: repeats a run; None draws from the operating system, as a deployment does.
        quick: fewer draws.
        core: the functions under test; by default the installed ones.
        only: names of CHECKS; all if empty.
        tell: hears the name of each check that is about to run.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fondaco-conformance-") as folder:
        probe = Probe(core or Core(), Path(folder), seed, quick=quick)
        try:
            checks = tuple(_run(name, probe, tell) for name in only or CHECKS)
        finally:
            probe.close()
    return Conformance(
        checks=checks, seed=seed, quick=quick, seconds=time.monotonic() - began, code=_code()
    )


def _run(name: str, probe: Probe, tell: Callable[[str], None]) -> Check:
    """Run one check; one that cannot be completed has failed."""
    tell(name)
    began, checker = time.monotonic(), CHECKS[name]
    try:
        outcome = checker(probe)
    except Exception as error:
        outcome = Outcome(faults=(f"{type(error).__name__}: {error}",))
    statistical = outcome.p_value is not None
    rare = outcome.p_value is not None and not outcome.p_value > FALSE_ALARM
    return Check(
        name=name,
        finds=(checker.__doc__ or "").strip(),
        statistic=outcome.statistic,
        p_value=outcome.p_value,
        threshold=FALSE_ALARM if statistical else None,
        passed=not (outcome.faults or rare),
        detail="; ".join(outcome.faults) or outcome.detail,
        false_alarm=FALSE_ALARM if statistical else 0.0,
        seconds=time.monotonic() - began,
    )


def _body(check: Check) -> dict[str, object]:
    return {
        "name": check.name,
        "finds": check.finds,
        "statistic": _text(check.statistic),
        "p_value": None if check.p_value is None else _text(check.p_value),
        "threshold": None if check.threshold is None else _text(check.threshold),
        "passed": int(check.passed),
        "detail": check.detail,
        "false_alarm": _text(check.false_alarm),
    }


def _text(value: float) -> str:
    return f"{value:.6g}"


def _code() -> dict[str, str]:
    """Versions, and which core was tested."""
    sha = hashlib.sha256()
    for path in sorted(Path(privacy.__file__).parent.glob("*.py")):
        sha.update(path.name.encode() + b"\x00" + hashlib.sha256(path.read_bytes()).digest())
    versions = {name: version(name) for name in _LIBRARIES}
    core = f"sha256:{sha.hexdigest()}"
    named = {"core": core, "code_digest": code_digest()}
    return {**versions, "python": platform.python_version(), **named}
