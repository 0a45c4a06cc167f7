"""An example of a reverse proxy that shows silos the fleet routes and nothing else.

Flower's SuperLink serves three programming interfaces on one port. Silos need `/v1/fleet/`, where
every request is signed with a registered node key. `/v1/control/` and `/v1/runtime/` know no
users: whoever reaches them registers nodes, starts runs and takes tasks. The SuperLink therefore
listens on a loopback address, and what stands in front of it passes one prefix on.
"""

from importlib.resources import files

from fondaco.shared.address import is_ip, split_address

from .tls import TlsFiles

ROUTES = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
"""What a SuperNode with a registered key asks for under `/v1/fleet/`."""
TEMPLATE = "nginx_example.conf"


def nginx_example(public: str, local: str, tls: TlsFiles) -> str:
    """Return a configuration for nginx, to include in its `http` block.

    Args:
        public: where silos connect to, `host:port`.
        local: where the SuperLink listens, `host:port`.
        tls: shown to silos, and asked of the SuperLink.
    """
    host, port = split_address(public)
    values = {
        "listen": public if is_ip(host) else str(port),
        "server_name": host,
        "routes": "|".join(ROUTES),
        "superlink": local,
        "certificate": tls.certificate,
        "key": tls.key,
        "ca": tls.ca,
    }
    text = (files(__package__) / TEMPLATE).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text
