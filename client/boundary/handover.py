"""Binds the agent's socket for a courier in another container, then becomes the agent.

`python -m fondaco.client.boundary.handover SOCKET COMMAND...`: for containers, where nobody is
root and no systemd makes sockets. SOCKET lies in a folder that belongs to the courier's OS user,
with the setgid bit and a group that both users are in; the socket is for that group. Before the
agent starts, the kernel takes the network away, whatever network the container has.
"""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from fondaco.shared.console import err_console
from fondaco.shared.errors import ConfigError

from .seccomp import forbid_network

FOR_THE_GROUP = 0o660
FIRST_PASSED_FD = 3
"""Where systemd passes sockets on, and the desk looks."""
WAITING = 16
"""So many may wait to be let in."""


def bind_for_group(path: Path) -> socket.socket:
    """Return a listening socket that the folder's owner and group can connect to.

    Raises:
        ConfigError: the folder has no setgid bit: nobody but this user could connect.
    """
    if not path.parent.stat().st_mode & 0o2000:
        raise ConfigError(
            f"{path.parent} needs the setgid bit and a group that agent and courier are both in"
        )
    path.unlink(missing_ok=True)  # of an agent that died: containers never run two
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    path.chmod(FOR_THE_GROUP)
    listening.listen(WAITING)
    return listening


def become(command: Sequence[str], listening: socket.socket) -> None:
    """Replace this process by `command`, which gets the socket as systemd would pass it on.

    Raises:
        ConfigError: it cannot be started.
    """
    os.dup2(listening.fileno(), FIRST_PASSED_FD)
    os.set_inheritable(FIRST_PASSED_FD, True)  # it may have been that number before
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    try:
        os.execvp(command[0], list(command))  # noqa: S606  (what the container was told to run)
    except OSError as error:
        raise ConfigError(f"{command[0]!r} cannot be started: {error.strerror}") from None


def main(words: Sequence[str]) -> None:
    """Do it."""
    if len(words) < 2:  # noqa: PLR2004
        raise SystemExit("usage: python -m fondaco.client.boundary.handover SOCKET COMMAND...")
    try:
        listening = bind_for_group(Path(words[0]))
        forbid_network()
        become(words[1:], listening)
    except (ConfigError, OSError) as error:
        err_console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main(sys.argv[1:])
