"""Kits as a coordinator makes them, and what an owner's folders hold."""

import stat
from dataclasses import replace
from itertools import count

from fondaco.client.owner import Owner
from fondaco.shared.catalogue import save_catalogue
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.kit import Kit

ISSUED = 1_800_000_000


class Coordinator:
    """Sends kits to silo "north", each a file of its own."""

    def __init__(self, folder, ca, catalogue, make_plan, make_roster):
        folder.mkdir()
        self.folder, self.ca, self.catalogue = folder, ca, catalogue
        self.identity = Identity.generate(COORDINATOR)
        self.address = "harbour.example:8443"
        self._make_plan, self._make_roster = make_plan, make_roster
        self._num = count()

    @property
    def key(self):
        return self.identity.public.text()

    def plan(self, home, **changes):
        """Return a deployed plan of ten silos in which the owner of `home` is "north"."""
        terms = self._make_roster(mode="deploy", coordinator=self.key)
        own = Owner.open(home).identity.public.text()
        terms["roster"] = {**terms["roster"], "north": own}
        terms["catalogue_digest"] = self.catalogue.digest
        public = {"declared_users": "100", "headline": "ndcg@5", "repeats": "no"}
        return self._make_plan(trust="silo", **{"public": public, **terms, **changes})

    def kit(self, plan=None, **changes):
        """Return the file of a kit, newer than all before it."""
        num = next(self._num)
        kit = Kit(
            silo_id="north",
            superlink=self.address,
            ca=self.ca,
            coordinator=self.key,
            plan=plan.to_json() if plan else "",
            catalogue=self._catalogue() if plan else "",
            peers=tuple(plan.roster.values()) if plan else (),
            issued=ISSUED + num,
        )
        path = self.folder / f"{num}.kit"
        path.write_bytes(replace(kit, **changes).to_bytes(self.identity))
        return path

    def _catalogue(self):
        path = self.folder / "catalogue.json"
        save_catalogue(self.catalogue, path)
        return path.read_text()


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def files_of(*folders):
    """Return path -> bytes of every file."""
    found = (path for folder in folders for path in folder.rglob("*"))
    return {path: path.read_bytes() for path in found if path.is_file()}
