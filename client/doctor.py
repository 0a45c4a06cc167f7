"""Looks whether an owner's side could run: every check says what it saw and how to mend it.

Nothing is changed, nothing of a customer is read: of the data only the facts beside them and a
checksum.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fondaco.shared.chain.keys import PublicKey
from fondaco.shared.errors import FondacoError, LedgerError, RefusalError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.privacy.policy import Policy
from fondaco.shared.provenance import code_digest

from .courier_folder import account_of, acting_as
from .dataset_files import DATASET, silo_facts
from .deployment import DEPLOYMENT, Deployment, read_deployment
from .joining import EXAMPLE, SOURCE, silo_of
from .kit_files import PLAN, kit_file, newest_plan, plan_for_rows
from .loading import ReadFor, check_read_for, describe_source
from .owner import FACTS, Owner
from .sources.config import read_source_file

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: `ok`; `warn`, which stops nothing; `fail`, which does.
        seen: what was found.
        fix: what to do about it, "" where nothing is to do.
    """

    name: str
    state: State
    seen: str
    fix: str = ""

    def facts(self) -> dict[str, str]:
        """Return everything as plain values."""
        return asdict(self)


class Patient:
    """An owner's folder, as far as it can be read.

    Args:
        home: the owner's folder.

    Raises:
        ConfigError: it is none, or its key cannot be read.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        with acting_as(account_of(self.home)):  # whatever is touched stays that user's
            self.owner = Owner.open(self.home)
            self._records = _records_of(self.owner)

    @property
    def of_simulation(self) -> bool:
        """Whether this is a simulated silo, whose keys everybody can compute."""
        return not (self.home / FACTS).is_file()

    @cached_property
    def deployment(self) -> Deployment | None:
        """Where the coordinator and the courier are; None before `init`."""
        return read_deployment(self.home) if (self.home / DEPLOYMENT).is_file() else None

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Return the ledger's records of one type, oldest first.

        Raises:
            LedgerError: it is damaged, somebody else's, or gone though it was in use.
        """
        if isinstance(self._records, LedgerError):
            raise self._records
        return [record for record in self._records if record["type"] == kind]

    @cached_property
    def approved(self) -> RunPlan | None:
        """The plan in force."""
        newest = self.of_type("PLAN")[-1:]
        if not newest or not newest[0]["approved"]:
            return None
        return RunPlan.from_json(json.dumps(newest[0]["plan"]))

    @cached_property
    def plan(self) -> RunPlan | None:
        """The plan of the newest kit, else the one in force."""
        return newest_plan(self.home) or self.approved

    @cached_property
    def policy(self) -> Policy | None:
        """The owner's limits."""
        newest = self.of_type("POLICY")[-1:]
        return Policy(**newest[0]["policy"]) if newest else None


def _records_of(owner: Owner) -> list[dict[str, Any]] | LedgerError:
    """Return a ledger's records, or why there are none; one that was not begun stays so."""
    try:
        if not owner.has_ledger():
            return []
        with Ledger(owner.home.ledger, owner.identity) as ledger:
            return [dict(record) for record in ledger.records()]
    except LedgerError as error:
        return error


Look = Callable[[Patient], Iterator[Check]]


def examine(home: Path, looks: tuple[Look, ...]) -> list[Check]:
    """Return what all `looks` found; one that cannot be done is a failure that says why."""
    try:
        patient = Patient(home)
    except FileNotFoundError:
        fix = "fondaco-client init --kit KIT --home HOME makes an owner's folder"
        return [Check(name="folder", state="fail", seen=f"{home} does not exist", fix=fix)]
    except (FondacoError, OSError) as error:
        fix = "fondaco-client init --kit KIT --home HOME makes an owner's folder"
        return [Check(name="folder", state="fail", seen=str(error), fix=fix)]
    found = []
    for look in looks:
        try:
            found += list(look(patient))
        except (FondacoError, OSError) as error:
            name = look.__name__.removeprefix("look_at_").replace("_", " ")
            seen, _, fix = str(error).partition("; ")
            found.append(Check(name=name, state="fail", seen=seen, fix=fix))
    return found


def look_at_plan(patient: Patient) -> Iterator[Check]:
    """Is there a plan, of the right kind, in time, and signed?"""
    plan, owner = patient.plan, patient.owner
    if plan is None:
        fix = "ask the coordinator for the kit with the plan, then fondaco-client init --kit KIT"
        yield Check(name="plan", state="warn", seen="no plan has come yet", fix=fix)
        return
    short = plan.digest[:19]
    if plan.mode != "deploy":
        state: State = "warn" if patient.of_simulation else "fail"
        seen = f"{short} is a simulation's: its noise can be repeated, so it promises nothing"
        yield Check(name="plan", state=state, seen=seen, fix="ask for a plan of mode deploy")
        return
    if plan.roster.get(owner.silo_id) != owner.identity.public.text():
        fix = "hand the coordinator a registration again: fondaco-client keys --registration FILE"
        seen = f"{short} names another key than yours for {owner.silo_id!r}"
        yield Check(name="plan", state="fail", seen=seen, fix=fix)
        return
    if not plan.allows(datetime.now(UTC).date()):
        fix = "ask the coordinator for a new plan; leaving this one costs nothing"
        yield Check(name="plan", state="fail", seen=f"{short} ended on {plan.expires}", fix=fix)
        return
    yield _signed(patient, plan)


def look_at_code(patient: Patient) -> Iterator[Check]:
    """Is the installed code the one that the plan was made for?"""
    here, plan = code_digest(), patient.plan
    if plan is None or plan.code_digest == here:
        yield Check(name="code", state="ok", seen=f"{here[:19]}, {_held(plan)}")
        return
    fix = (
        "install the version of fondaco that the coordinator names, or ask it for a plan for this "
        "version"
    )
    seen = f"the plan is for {plan.code_digest[:19]}, installed is {here[:19]}"
    yield Check(name="code", state="fail", seen=seen, fix=fix)


def look_at_peers(patient: Patient) -> Iterator[Check]:
    """Has the owner said yes to every key that the plan names?"""
    plan = patient.plan
    if plan is None or not plan.roster:
        yield Check(name="peers", state="ok", seen="no plan names keys yet")
        return
    owner = patient.owner
    known = {key.text() for key in owner.peers()} | {owner.identity.public.text()}
    unknown = sorted({*plan.roster.values(), plan.coordinator} - known)
    if not unknown or patient.of_simulation:
        yield Check(name="peers", state="ok", seen=f"all {len(plan.roster) + 1} keys are pinned")
        return
    names = ", ".join(silo_of(PublicKey.from_text(key).name) for key in unknown[:3])
    seen = f"{len(unknown)} keys are not pinned ({names})"
    fix = "compare their fingerprints: run fondaco-client init --kit KIT again, and say yes"
    yield Check(name="peers", state="fail", seen=seen, fix=fix)


def look_at_source(patient: Patient) -> Iterator[Check]:
    """Is the table there, with the columns that it had? No row is read."""
    path = patient.home / SOURCE
    if patient.of_simulation:
        return
    if not path.is_file():
        fix = f"run fondaco-client init again, which writes {path}, and edit it"
        yield Check(name="source", state="fail", seen=f"{path} does not exist", fix=fix)
        return
    if path.read_bytes() == EXAMPLE.read_bytes():
        state: State = "fail" if patient.plan else "warn"
        fix = f"say in {path} where your rows lie"
        yield Check(name="source", state=state, seen=f"{SOURCE} is still the template", fix=fix)
        return
    with acting_as(account_of(patient.home)):  # as load will; root may read what it may not
        settings = read_source_file(path)
        columns = ", ".join(describe_source(patient.home, settings))
    seen = f"a {settings.source.kind} source with the columns that are needed ({columns})"
    yield Check(name="source", state="ok", seen=seen)


def look_at_data(patient: Patient) -> Iterator[Check]:
    """Are there rows, of this silo, that count the plan's items?"""
    rows, plan = patient.owner.rows, plan_for_rows(patient.home, patient.approved)
    load = f"fondaco-client load --home {patient.home}"
    if not (rows / DATASET).is_file():
        state: State = "fail" if plan else "warn"
        yield Check(name="data", state=state, seen=f"{rows} holds no rows yet", fix=load)
        return
    facts = silo_facts(rows)
    if facts.silo_id != patient.owner.silo_id:
        seen = f"the rows are of {facts.silo_id!r}, not of {patient.owner.silo_id!r}"
        yield Check(name="data", state="fail", seen=seen, fix=load)
    elif plan is not None and facts.n_items != plan.n_items:
        seen = f"the rows count {facts.n_items} items, the plan's catalogue has {plan.n_items}"
        yield Check(name="data", state="fail", seen=seen, fix=load)
    else:
        seen = f"{facts.n_users} customers over {facts.n_items} items, checksum good"
        yield _other_plan(patient, plan) or Check(name="data", state="ok", seen=seen)


def _other_plan(patient: Patient, plan: RunPlan | None) -> Check | None:
    """Return what is to do about rows of `plan` if another one waits that divides them otherwise.

    Raises:
        ConfigError: they were not even read for `plan`.
    """
    waits = patient.plan
    if plan is None or waits is None or patient.of_simulation:
        return None
    check_read_for(patient.owner.rows, plan)
    if ReadFor.of_plan(plan) == ReadFor.of_plan(waits):
        return None
    home = patient.home
    seen = "the rows were read for the plan in force, and the newer one divides them otherwise"
    fix = (
        f"fondaco-client approve {kit_file(home, PLAN)} --home {home}, and only then "
        f"fondaco-client load --home {home}"
    )
    return Check(name="data", state="warn", seen=seen, fix=fix)


def look_at_limits(patient: Patient) -> Iterator[Check]:
    """Has the owner set limits?"""
    limits, home = patient.policy, patient.home
    if limits is None and not patient.of_simulation:
        state: State = "fail" if patient.plan else "warn"
        fix = (
            f"fondaco-client policy --home {home} --epsilon-per-year E --epsilon-if-masking-broke E"
        )
        yield Check(name="limits", state=state, seen="no limits are set", fix=fix)
        return
    seen = "a simulation's" if limits is None else f"epsilon {limits.epsilon_per_year} a year"
    yield Check(name="limits", state="ok", seen=seen)


def look_at_budget(patient: Patient) -> Iterator[Check]:
    """Is what the plan still releases covered, by the plan and by the year?"""
    plan = patient.plan
    if plan is None:
        yield Check(name="budget", state="ok", seen="nothing is planned, nothing is spent")
        return
    debits = patient.of_type("DEBIT")
    mine = [debit for debit in debits if debit["plan_digest"] == plan.digest]
    paid = {(debit["kind"], debit["round_num"]) for debit in mine}
    ahead = [event for event in plan.releases if (event.kind, event.round_num) not in paid]
    left = plan.budget_units - sum(debit["cost"] for debit in mine)
    share = left / plan.budget_units * float(plan.target_epsilon)
    seen = f"{share:.2f} of epsilon {plan.target_epsilon} left, {len(ahead)} releases to come"
    if sum(map(plan.cost, ahead)) > left:
        fix = "ask the coordinator for a new plan: no budget ever comes back"
        seen += ", which cost more"
        yield Check(name="budget", state="fail", seen=seen, fix=fix)
        return
    if patient.policy is not None:
        try:
            if not mine:
                patient.policy.check_plan(plan)
            now = datetime.now(UTC)
            patient.policy.check_year(sum(map(patient.policy.cost, ahead)), debits, now)
        except RefusalError as error:
            fix = "ask for a smaller plan, or raise your limits with fondaco-client policy"
            yield Check(name="budget", state="fail", seen=str(error), fix=fix)
            return
    yield Check(name="budget", state="ok", seen=seen)


def _held(plan: RunPlan | None) -> str:
    return "as the plan says" if plan else "no plan to hold it against yet"


def _signed(patient: Patient, plan: RunPlan) -> Check:
    approved = patient.approved
    if approved is not None and approved.digest == plan.digest:
        seen = f"{plan.digest[:19]} is signed, until {plan.expires}"
        return Check(name="plan", state="ok", seen=seen)
    path = kit_file(patient.home, PLAN)
    fix = f"fondaco-client approve {path} --home {patient.home}"
    other = ", an older one is" if approved is not None else ""
    seen = f"{plan.digest[:19]} is not signed yet{other}"
    return Check(name="plan", state="warn", seen=seen, fix=fix)


LOOKS: tuple[Look, ...] = (
    look_at_plan,
    look_at_code,
    look_at_peers,
    look_at_limits,
    look_at_budget,
    look_at_source,
    look_at_data,
)
"""What is looked at in the owner's own files, in the order in which an owner comes to it."""
