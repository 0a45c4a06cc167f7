"""An owner's folder with an approved plan, and both ends of its agent's socket."""

import contextlib
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("owned_folder")


@pytest.fixture
def sockets():
    """A folder whose path is short enough for a socket, and open to every OS user."""
    with tempfile.TemporaryDirectory(prefix="fd-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def pair():
    """Two ends of one connection."""
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.fixture
def owned(tmp_path, make_plan, make_roster, catalogue, make_owner):
    """An owner's folder with rows, limits and an approved plan of popularity and Gram."""
    # Flower may be imported only after pytest knows which of its warnings to ignore.
    from owned_folder import OwnedFolder  # noqa: PLC0415

    terms = make_roster(mode="deploy")
    return OwnedFolder(
        tmp_path / "home",
        lambda **m: make_plan(**{"trust": "silo", **terms, **m}),
        catalogue,
        make_owner,
    )


class Served:
    """A desk in a thread."""

    def __init__(self, path, answer, **options):
        from fondaco.client.boundary.desk import Desk, listen  # noqa: PLC0415
        from fondaco.client.boundary.frames import ACTIONS, Limits  # noqa: PLC0415

        self.turned_away = []
        known = {
            "reason": lambda error: f"public {type(error).__name__}",
            "actions": ACTIONS,
            "limits": lambda: Limits(record=1 << 20),
            "uids": {0, 65534} | {__import__("os").geteuid()},
            "refused": self.turned_away.append,
        }
        self.listening = listen(path)
        self._thread = threading.Thread(
            target=Desk(self.listening, answer, **{**known, **options}).serve, daemon=True
        )
        self._thread.start()

    def close(self):
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def eventually(self, count):
        """Return what was turned away, once it is so much."""
        until = time.monotonic() + 10
        while len(self.turned_away) < count and time.monotonic() < until:
            time.sleep(0.01)
        return self.turned_away


@pytest.fixture
def serve(sockets):
    """Return a function: answer, options of a desk -> it serves at `sockets / "agent.sock"`."""
    open_ones = []

    def start(answer, **options):
        open_ones.append(Served(sockets / "agent.sock", answer, **options))
        return open_ones[-1]

    yield start
    for served in open_ones:
        served.close()
