"""A data owner's folder: key, peers' keys, approved plans, ledger."""

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fondaco.shared.chain.keys import Identity, PublicKey, key_name
from fondaco.shared.chain.store import Chain, is_begun
from fondaco.shared.errors import ConfigError, LedgerError, RefusalError
from fondaco.shared.files import write_durably
from fondaco.shared.plan_text import to_toml
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.provenance import code_digest
from fondaco.shared.workspace import Workspace

from .dataset_files import DATASET
from .home import SiloHome
from .masking import MaskedSums

FACTS, KEY, PEERS, BEGUN = "owner.json", "identity.pem", "peers.txt", "ledger-begun"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who owns a silo's data, with everything that only the owner may write.

    Attributes:
        folder: for its eyes alone.
        silo_id: public name.
        identity: signs the ledger.
        home: where ledger and outbox are.
    """

    folder: Path
    silo_id: str
    identity: Identity
    home: SiloHome

    @classmethod
    def make(cls, folder: Path, silo_id: str) -> "Owner":
        """Make a folder with a fresh key, which never leaves it.

        Raises:
            ConfigError: there is a key already, or the name is empty.
        """
        if not silo_id.strip() or not silo_id.isprintable():
            raise ConfigError(f"{silo_id!r} is no name for a silo")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        if (folder / KEY).is_file():
            raise ConfigError(f"{folder / KEY} exists; a key is never overwritten")
        identity = Identity.generate(key_name(silo_id))
        write_durably(folder / FACTS, json.dumps({"silo_id": silo_id}).encode())
        identity.save(folder / KEY)
        return cls(
            folder=folder, silo_id=silo_id, identity=identity, home=SiloHome(folder, silo_id)
        )

    @classmethod
    def open(cls, folder: Path) -> "Owner":
        """Return the owner of a folder; a simulated silo's state is one too.

        Raises:
            ConfigError: the folder is no owner's, or a file of it is damaged or its key readable
                by others.
        """
        if (folder / FACTS).is_file():
            silo_id = _named_in(folder / FACTS)
            home = SiloHome(folder, silo_id)
            if (folder / f"{KEY}.new").is_file():
                with home.alone():
                    _finish_rotation(folder, home)
            identity = Identity.load(folder / KEY, key_name(silo_id))
            return cls(folder=folder, silo_id=silo_id, identity=identity, home=home)
        workspace = Workspace(folder.resolve().parent.parent)
        simulated = folder / DATASET
        if simulated.is_file() and (workspace.folder / "run.json").is_file():
            silo_id = _named_in(simulated)
            identity = Identity.seeded(workspace.read_silos()[1], key_name(silo_id))
            home = SiloHome(workspace.folder, silo_id)
            return cls(folder=folder, silo_id=silo_id, identity=identity, home=home)
        raise ConfigError(
            f"{folder} is no owner's folder; make one with fondaco-client init or keys, or "
            "simulated ones with fondaco-simulate run SCENARIO --keep-silos"
        )

    @property
    def rows(self) -> Path:
        """The folder of the silo's rows; replaced as a whole, so nothing else may lie in it."""
        return self.folder / "data" if (self.folder / FACTS).is_file() else self.folder

    def restore(self, lines: list[str]) -> int:
        """Take back lost records, or the whole ledger if its file is gone; return how many."""
        if not is_begun(self.home.ledger):
            Chain.restore(self.home.ledger, self.identity, lines).close()
            return len(lines)
        with self.ledger() as ledger:
            return ledger.chain.absorb(lines)

    def has_ledger(self) -> bool:
        """Return whether the owner's ledger was begun.

        Raises:
            LedgerError: it was in use and its file is gone.
        """
        if is_begun(self.home.ledger):
            return True
        if (self.folder / BEGUN).is_file() or self.home.opened.is_file():
            raise LedgerError(
                f"{self.home.ledger} is gone but it was in use; take it back from an export or a "
                "peer with fondaco-client ledger --import"
            )
        return False

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """Give the owner's ledger, begun on first use and never again.

        Raises:
            LedgerError: it was in use and its file is gone.
        """
        self.has_ledger()
        with Ledger.open_or_create(self.home.ledger, self.silo_id, self.identity) as ledger:
            if (self.folder / FACTS).is_file():
                (self.folder / BEGUN).touch()
            yield ledger

    def peers(self) -> list[PublicKey]:
        """Return the keys that this owner has checked with their owners, out of band."""
        path = self.folder / PEERS
        lines = path.read_text(encoding="utf-8").split() if path.is_file() else []
        return [PublicKey.from_text(line) for line in lines]

    def pin(self, keys: Sequence[PublicKey], instead_of: Collection[str] = ()) -> None:
        """Trust these keys from now on.

        Args:
            keys: checked with their owners.
            instead_of: names of peers whose pinned keys are trusted no more.

        Raises:
            ConfigError: another key of the same name was pinned.
        """
        known = {key.name: key for key in self.peers() if key.name not in instead_of}
        for key in keys:
            if known.setdefault(key.name, key) != key:
                raise ConfigError(
                    f"another key of {key.name} is pinned in {self.folder / PEERS}; ask its owner "
                    "which one is right and remove the wrong line"
                )
        write_durably(
            self.folder / PEERS, "".join(f"{key.text()}\n" for key in known.values()).encode()
        )

    def rotate(self) -> "Owner":
        """Hand the ledger over to a fresh key; the old one stays beside it as `.old`.

        Raises:
            ConfigError: this is a simulated silo, whose key follows from the seed.
        """
        path = self.folder / KEY
        if not path.is_file():
            raise ConfigError(f"{self.silo_id} is simulated; its key follows from the seed")
        fresh = Identity.generate(self.identity.public.name)
        # Alone: else whoever opens the folder meanwhile would drop the fresh key.
        with self.home.alone(), self.ledger() as ledger:
            fresh.save(self.folder / f"{KEY}.new")
            ledger.chain.rotate(fresh)
        return Owner.open(self.folder)

    def check(self, plan: RunPlan) -> None:
        """Hold a plan against what only this owner knows: own key, peers' keys, installed code.

        Raises:
            RefusalError: naming what does not fit.
        """
        if plan.mode != "deploy" and (self.folder / FACTS).is_file():
            raise RefusalError(
                f"the plan is for mode {plan.mode!r}, which protects nobody", "simulation"
            )
        if plan.code_digest != code_digest():
            raise RefusalError(
                f"the plan is for code {plan.code_digest[:19]}, this is {code_digest()[:19]}",
                "other-code",
            )
        if plan.roster.get(self.silo_id) != self.identity.public.text():
            raise RefusalError(
                f"the plan's roster does not hold this owner's key as {self.silo_id!r}", "other-key"
            )
        pinned = {key.text() for key in self.peers()} | {self.identity.public.text()}
        unknown = sorted({*plan.roster.values(), plan.coordinator} - pinned)
        if unknown:
            names = ", ".join(PublicKey.from_text(text).name for text in unknown[:3])
            raise RefusalError(
                f"keys of the plan not pinned: {len(unknown)} ({names}); check them with their "
                "owners, then run fondaco-client policy --home HOME --peer KEY",
                "unknown-peer",
            )

    def approve(self, plan: RunPlan) -> Path:
        """Sign the plan into the ledger, keep its text, and return where.

        Raises:
            RefusalError: `check` or the owner's policy refuses it, or there is no policy.
        """
        self.check(plan)
        with self.ledger() as ledger:
            _check_earlier(plan, ledger)
            if ledger.policy() is None:
                raise RefusalError(
                    "set your own limits first, with fondaco-client policy", "no-policy"
                )
            ledger.approve(plan)
        path = self.folder / "plans" / f"{plan.digest.removeprefix('sha256:')}.toml"
        write_durably(path, to_toml(plan).encode())
        return path

    def leave(self, reason: str) -> RunPlan:
        """Write down that the plan in force is so no more, and return it.

        What an agent is computing is not released any more. Waits until it has ended; then the
        secrets of a masked sum under way are gone. Whoever is killed in between leaves again.

        Raises:
            ConfigError: no plan was ever signed.
        """
        with self.ledger() as ledger:
            newest = ledger.chain.of_type("PLAN")[-1:]
            if not newest:
                raise ConfigError(f"{self.silo_id} has no plan in force")
            plan = RunPlan.from_json(json.dumps(newest[0]["plan"]))
            ledger.approve(plan, approved=0, reason=reason)
        plans = self.folder / "plans"
        if plans.is_dir():
            os.utime(plans)  # a running agent takes notice
        with self.home.alone():
            MaskedSums(self.home.session, plan, self.silo_id, self.identity).forget()
        return plan

    def approved(self) -> RunPlan | None:
        """Return the plan in force, None if there is none."""
        with self.ledger() as ledger:
            newest = ledger.chain.of_type("PLAN")[-1:]
        if not newest or not newest[0]["approved"]:
            return None
        return RunPlan.from_json(json.dumps(newest[0]["plan"]))


def _named_in(path: Path) -> str:
    """Return the silo's name in the facts of a folder."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["silo_id"])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{path} is damaged; bring it back from a backup: it holds the silo's name, silo_id"
        ) from None


def _finish_rotation(folder: Path, home: SiloHome) -> None:
    """Put a new key into its place if the ledger has been handed over to it, else drop it."""
    path, new = folder / KEY, folder / f"{KEY}.new"
    if not new.is_file():
        return
    if not is_begun(home.ledger) and path.is_file() and not (folder / BEGUN).is_file():
        new.unlink()  # there was nothing to hand over yet
        return
    if path.is_file() and _opens(home.ledger, Identity.load(path, key_name(home.silo_id))):
        new.unlink()
        return
    if not _opens(home.ledger, Identity.load(new, key_name(home.silo_id))):
        raise LedgerError(f"{home.ledger} opens with neither {path} nor {new}; restore it")
    if path.is_file():
        path.replace(folder / f"{KEY}.old")
    new.replace(path)


def _opens(ledger: Path, identity: Identity) -> bool:
    """Return whether the ledger is this key's; a file that is gone is nobody's."""
    try:
        Ledger(ledger, identity).close()
    except LedgerError:
        return False
    return True


def _check_earlier(plan: RunPlan, ledger: Ledger) -> None:
    """Hold what a plan says was charged before against the plan that it names.

    Raises:
        RefusalError: this ledger does not hold that plan, or it charged something else.
    """
    if not plan.earlier_digest:
        return
    named = [
        record["plan"]
        for record in ledger.chain.of_type("PLAN")
        if record["plan_digest"] == plan.earlier_digest
    ]
    said = [asdict(event) for event in plan.earlier]
    if not named or said != [*named[-1]["earlier"], *named[-1]["releases"]]:
        raise RefusalError(
            f"the plan counts on an earlier one, {plan.earlier_digest[:19]}, which this ledger "
            "does not hold or which charged something else",
            "earlier",
        )
