"""Hosts of a make-believe network on this machine: network namespaces, joined by a bridge.

Linux, as root. Without them everything shares the loopback address, which `Hosts.none` stands for.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from fondaco.shared.errors import ConfigError

COORDINATOR = "127.0.0.1"
BRIDGED = "10.77.{net}.{num}"
NETS = 250


@dataclass
class Hosts:
    """A coordinator's address and one namespace per silo.

    Attributes:
        address: where the coordinator listens.
        names: silo -> its namespace; empty where all share this host.
    """

    address: str
    names: dict[str, str] = field(default_factory=dict)
    _bridge: str = ""

    @classmethod
    def none(cls) -> "Hosts":
        """Return this host for everybody."""
        return cls(address=COORDINATOR)

    @classmethod
    def make(cls, silo_ids: Sequence[str]) -> "Hosts":
        """Make a namespace per silo, on a bridge with this host.

        Raises:
            ConfigError: this is not root, or the kernel does not let it.
        """
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise ConfigError("hosts of their own need root and the program `ip` (iproute2)")
        net = _free_net()
        hosts = cls(address=BRIDGED.format(net=net, num=1), _bridge=f"fdc{net}")
        try:
            _ip("link", "add", hosts._bridge, "type", "bridge")
            _ip("addr", "add", f"{hosts.address}/24", "dev", hosts._bridge)
            _ip("link", "set", hosts._bridge, "up")
            for num, silo_id in enumerate(silo_ids):
                hosts._add(silo_id, num, BRIDGED.format(net=net, num=num + 2))
        except ConfigError:
            hosts.remove()
            raise
        return hosts

    def _add(self, silo_id: str, num: int, address: str) -> None:
        name = f"{self._bridge}-{num}"
        _ip("netns", "add", name)
        self.names[silo_id] = name
        _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", name, "master", self._bridge, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")

    def inside(self, silo_id: str) -> list[str]:
        """Return what to put before a command that is to run at a silo."""
        name = self.names.get(silo_id)
        return [] if name is None else ["ip", "netns", "exec", name]

    def cut(self, silo_id: str) -> None:
        """Pull a silo's cable."""
        _ip("link", "set", self.names[silo_id], "down")

    def mend(self, silo_id: str) -> None:
        """Plug it in again."""
        _ip("link", "set", self.names[silo_id], "up")

    def remove(self) -> None:
        """Take everything away again."""
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)  # noqa: S603, S607
        if self._bridge:
            subprocess.run(["ip", "link", "del", self._bridge], capture_output=True, check=False)  # noqa: S603, S607


def _free_net() -> int:
    """Return the number of a bridge that is not there yet."""
    taken = {name for _, name in socket.if_nameindex()}
    first = os.getpid() % NETS
    numbers = ((first + step) % NETS for step in range(NETS))
    return next(num for num in numbers if f"fdc{num}" not in taken)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode != 0:
        raise ConfigError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
