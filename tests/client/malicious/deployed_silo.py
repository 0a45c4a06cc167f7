"""A silo in deploy mode, and what must hold of it whatever it is asked."""

import pytest
from builders import request_of, silo_of, witnessed

from fondaco.client.agent import SiloAgent
from fondaco.client.home import SiloHome
from fondaco.client.limits import new_policy
from fondaco.shared import codec
from fondaco.shared.chain.store import Record, check_links
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import CodecError, RefusalError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.records import PrivateUpdate


class Silo:
    """A silo in deploy mode whose owner has approved one plan, and what a server may do to it."""

    def __init__(self, plan, catalogue, folder, make_owner, *, approve=True):
        self.plan, self.catalogue, self.make_owner = plan, catalogue, make_owner
        self.identity = make_owner("north")
        self.home = SiloHome(folder, "north")
        if approve:
            with self.ledger() as ledger:
                ledger.adopt(new_policy(None, 50.0, 50.0, 1e-6))
                ledger.approve(plan)
        self.agent = self.agent_for(plan)

    def agent_for(self, plan, catalogue=None, identity=None):
        """Return an agent of this silo's rows and ledger, made for any plan."""
        catalogue, identity = catalogue or self.catalogue, identity or self.identity
        return SiloAgent(silo_of(), plan, catalogue, self.home, identity=identity)

    def ledger(self):
        return Ledger.open_or_create(self.home.ledger, "north", self.identity, self.plan)

    def request(self, kind="popularity", **changes):
        return request_of(self.plan, kind, **changes)

    def witnessed(self, *names):
        """Return the present head as honest witnesses would have signed it."""
        with self.ledger() as ledger:
            return witnessed(ledger, map(self.make_owner, names or ("silo-2", "silo-3")))

    def ask(self, blob, note=None):
        return self.agent.run_round(blob, self.witnessed() if note is None else note)

    def records(self, *types):
        with self.ledger() as ledger:
            return [r for r in ledger.records() if not types or r["type"] in types]

    def refused(self, work, code):
        """Hold that an order is refused, written down, paid for by nobody; then work honestly."""
        before = self.records()
        with pytest.raises(RefusalError) as caught:
            work()
        assert caught.value.code == code
        after = self.records()
        new = after[len(before) :]
        assert [record["type"] for record in new] == ["REFUSAL"]
        assert new[0]["code"] == code
        assert new[0]["reason"]
        assert after[: len(before)] == before
        self.works()

    def unreadable(self, work, *errors):
        """Hold that what cannot be read gives a clean error and no record."""
        before = self.records()
        with pytest.raises(errors or CodecError):
            work()
        assert self.records() == before
        self.works()

    def works(self):
        """Answer an honest request, and the same bytes once more."""
        blob = self.ask(self.request())
        update = codec.decode(blob, PrivateUpdate, Shapes.of_plan(self.plan))
        debits = self.records("DEBIT")
        assert update.debit_seq in [r["seq"] for r in debits]
        assert self.ask(self.request()) == blob
        assert self.records("DEBIT") == debits
        with self.ledger() as ledger:
            check_links(map(Record.from_line, ledger.chain.lines()))
