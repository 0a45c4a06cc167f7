"""The agent's end of its socket: who may ask, one at a time, and nothing but known actions."""

import errno
import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Collection
from pathlib import Path

from fondaco.shared import logs
from fondaco.shared.errors import CodecError, ConfigError
from fondaco.shared.parts import Parts

from .frames import ERROR, MAX_REASON, OK, Limits, receive_frame, send_frame
from .handover import FIRST_PASSED_FD, WAITING

PASSED = "FONDACO_AGENT_FD"
"""Environment variable in which `run` names the socket that it passes on."""
REQUEST_S = 600.0
"""Time for one request to arrive, however large it is [s]."""
SILENT_S = 10.0
"""Whoever connects and sends nothing for so long is not waited for: others wait behind [s]."""
REPLY_S = 60.0
"""Time for an answer to be read; whoever could not asks again [s]."""
DOOR_S = 1.0
"""Pause after a connection that could not be taken, such as for lack of handles [s]."""
_CREDENTIALS = struct.Struct("3i")

Answer = Callable[[str, Parts], Parts]
"""(action, what came) -> what is answered."""


class Desk:
    """Answers on a listening socket until it is closed.

    Args:
        listening: bound; only its owner's processes can connect.
        answer: gives the answer to an action; what it raises is told as `reason` says.
        reason: an error -> words that may leave the silo.
        actions: what may be asked.
        limits: of what is asked, called for each request: another plan has others.
        uids: whose processes may ask.
        refused: told why something was not answered, without a word of its content.
    """

    def __init__(
        self,
        listening: socket.socket,
        answer: Answer,
        *,
        reason: Callable[[Exception], str],
        actions: Collection[str],
        limits: Callable[[], Limits],
        uids: Collection[int],
        refused: Callable[[str], None],
    ) -> None:
        self._listening = listening
        self._answer = answer
        self._reason = reason
        self._actions = actions
        self._limits = limits
        self._uids = uids
        self._refused = refused

    def serve(self) -> None:
        """Answer one connection after another; returns once the socket is closed."""
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError as error:
                if self._listening.fileno() < 0 or error.errno in (errno.EBADF, errno.EINVAL):
                    return
                self._refused(f"{type(error).__name__} at the door")
                time.sleep(DOOR_S)
                continue
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        uid = peer_uid(connection)
        if uid not in self._uids:
            self._refused(f"a process of OS user {uid} asked")
            return
        try:
            word, parts = self._reply(connection)
            connection.settimeout(REPLY_S)
            send_frame(connection, word, parts)
        except (OSError, EOFError) as error:
            self._refused(f"{type(error).__name__} on the socket")

    def _reply(self, connection: socket.socket) -> tuple[str, Parts]:
        """Return the frame that answers the one that comes; a malformed one gets a reason."""
        try:
            limits = self._limits()
        except Exception as error:
            logs.failed(error, "agent.refused")
            return ERROR, _in_words(self._reason(error))
        try:
            action, parts = receive_frame(connection, self._actions, limits, REQUEST_S, SILENT_S)
        except CodecError as error:
            self._refused("a malformed request")
            return ERROR, _in_words(self._reason(error))
        try:
            return OK, self._answer(action, parts)
        except Exception as error:
            return ERROR, _in_words(self._reason(error))


def _in_words(reason: str) -> Parts:
    return Parts(record=reason.encode(errors="replace")[:MAX_REASON])


def peer_uid(connection: socket.socket) -> int:
    """Return the OS user at the other end, as the kernel knows it."""
    size = _CREDENTIALS.size
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(_CREDENTIALS.unpack(raw)[1])


def passed_socket() -> socket.socket | None:
    """Return the listening socket that systemd or `run` passed on, None if there is none.

    Source: sd_listen_fds(3); `run` cannot know the agent's pid beforehand and names the socket.
    """
    if PASSED in os.environ:
        return socket.socket(fileno=int(os.environ.pop(PASSED)))
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=FIRST_PASSED_FD)


def listen(path: Path, owner: int | None = None) -> socket.socket:
    """Return a listening socket at `path`, for its owner's processes alone.

    Args:
        path: in a folder that exists; a socket of an agent that died is replaced.
        owner: OS user to give it to (root only); None keeps it.

    Raises:
        ConfigError: an agent listens there already, or the path is something else or too long.
    """
    _clear(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
        if owner is not None:
            _give(path, owner)
    except OSError as error:
        listening.close()
        raise ConfigError(f"the agent cannot listen at {path}: {error}") from error
    finally:
        os.umask(before)
    listening.listen(WAITING)
    return listening


def _give(path: Path, owner: int) -> None:
    """Give the socket to an OS user, whatever that user has put in its place meanwhile.

    Raises:
        OSError: it is no socket any more.
    """
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise OSError("it was replaced while it was made; see who works there")
        os.chown(f"/proc/self/fd/{handle}", owner, -1)
    finally:
        os.close(handle)


def _clear(path: Path) -> None:
    """Remove the socket of an agent that is gone.

    Raises:
        ConfigError: somebody listens there, or it is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is no socket; remove it or choose another courier's folder")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # so many wait there that none is let in
        except OSError as error:
            raise ConfigError(f"{path} cannot be tried: {error}") from error
    raise ConfigError(f"an agent listens at {path} already; stop it first")
