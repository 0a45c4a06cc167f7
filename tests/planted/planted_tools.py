"""Puts a bug into a real module's source, and the broken module where it is tested."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path

from fondaco.shared.audit.conformance import Core
from fondaco.shared.privacy import accountant

_NUMBERS = count(1)
_TOLD = ("epsilon_pld", "epsilon_rdp", "epsilon_bound", "epsilon_at", "rdp_units")


@dataclass(frozen=True, kw_only=True)
class Bug:
    """A classic mistake, and the check that must catch it.

    Attributes:
        name: what was done wrong.
        where: the module under `fondaco` whose source is changed.
        edits: (right source, wrong source), each right source standing there just once.
        caught_by: "conformance: <check>", "property: <function>", "ledger audit: <finding>" or
            "attack: <attack>".
        also: other checks that catch it.
    """

    name: str
    where: str
    edits: tuple[tuple[str, str], ...]
    caught_by: str
    also: tuple[str, ...] = ()


def row(
    name: str, where: str, caught_by: str, *edits: tuple[str, str], also: tuple[str, ...] = ()
) -> Bug:
    """Return one row of the table."""
    return Bug(name=name, where=where, edits=edits, caught_by=caught_by, also=also)


def mutated(bug: Bug) -> types.ModuleType:
    """Return a copy of the bug's module with the bug in it; the real one stays as it is.

    Raises:
        LookupError: the source has changed, so that the bug no longer fits.
    """
    real = import_module(f"fondaco.{bug.where}")
    source = Path(real.__file__).read_text(encoding="utf-8")
    for right, wrong in bug.edits:
        if source.count(right) != 1:
            raise LookupError(f"{bug.where} holds {source.count(right)} times: {right}")
        source = source.replace(right, wrong)
    module = types.ModuleType(f"{real.__name__}_planted_{next(_NUMBERS)}")
    module.__package__ = real.__package__
    module.__file__ = real.__file__
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, f"{real.__file__} with a bug", "exec"), module.__dict__)  # noqa: S102
    finally:
        del sys.modules[module.__name__]
    return module


@contextmanager
def planted(bug: Bug) -> Iterator[Core]:
    """Give the core with the bug in it; an accountant's bug is everywhere while this lasts."""
    module = mutated(bug)
    part = bug.where.rpartition(".")[2]
    if part != "accountant":
        yield _CORES[part](module)
        return
    kept = {name: getattr(accountant, name) for name in _TOLD}
    try:
        for name in _TOLD:
            setattr(accountant, name, getattr(module, name))
        yield Core(**{name: getattr(module, name) for name in _TOLD})
    finally:
        for name, right in kept.items():
            setattr(accountant, name, right)


_CORES = {
    "noise": lambda m: Core(
        system_stream=m.NoiseStream.from_system, seeded_stream=m.NoiseStream.seeded
    ),
    "clipping": lambda m: Core(popularity_sum=m.popularity_sum, gram_sum=m.gram_sum),
    "contribution": lambda m: Core(bound_contributions=m.bound_contributions),
    "gradients": lambda m: Core(gradient_sum=m.GradientSum, factors=m.Factors),
    "release": lambda m: Core(release_sum=m.release, release_moves=m.release_steps),
    "plan": lambda m: Core(cohort=m.Cohort, run_plan=m.RunPlan),
    "ledger": lambda m: Core(open_ledger=m.Ledger.open_or_create),
}
