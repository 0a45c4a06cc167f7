"""A ledger put back from a copy, beside an outbox and a mark that were not."""

import pytest
from builders import request_of, silo_of

from fondaco.client.agent import SiloAgent
from fondaco.client.home import SiloHome
from fondaco.shared.chain.store import Chain
from fondaco.shared.chain.witness import Call
from fondaco.shared.errors import RefusalError
from fondaco.shared.privacy.noise import NoiseStream


class _Agent(SiloAgent):
    """Draws its noise as a deployment does."""

    def _noise(self, request):
        return NoiseStream.from_system()


@pytest.fixture
def home(tmp_path):
    return SiloHome(tmp_path, "north")


@pytest.fixture
def start(plan, catalogue, home):
    def make():
        return _Agent(silo_of((), users=("ann",)), plan, catalogue, home, 0)

    return make


@pytest.fixture
def request_bytes(plan):
    return request_of(plan)


def _put_back(home, owner, lines):
    for path in home.ledger.parent.iterdir():
        path.unlink()
    Chain.restore(home.ledger, owner, lines).close()


@pytest.mark.parametrize("lost", [1, 2], ids=["release", "debit and release"])
def test_ledger_put_back_to_before_a_release_gives_no_second_number(
    start, home, owner, request_bytes, lost
):
    start().run_round(request_bytes)
    lines = start().testify(Call()).lines
    _put_back(home, owner, lines[:-lost])
    with pytest.raises(RefusalError, match="take its records back") as caught:
        start().run_round(request_bytes)
    assert caught.value.code == "behind"
    assert start().testify(Call()).lines == lines[:-lost]


def test_ledger_put_back_works_again_once_it_has_its_records(start, home, owner, request_bytes):
    sent = start().run_round(request_bytes)
    lines = start().testify(Call()).lines
    _put_back(home, owner, lines[:-1])
    assert start().cosign(Call()).cosigned == {}
    start().cosign(Call(lines=lines[2:]))
    assert start().testify(Call()).lines == lines
    assert start().run_round(request_bytes) == sent
