"""What a courier may do to messages on their way: again, crossed, late, garbled."""

import os
import socket
import time

from agents_world import Ask, World
from fault_tools import say

from fondaco.client.boundary.frames import send_frame
from fondaco.client.boundary.link import AgentError
from fondaco.shared.parts import Parts

SILOS = ("merchant-0", "merchant-1", "merchant-2")


def duplicated(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
    """Deliver every message three times; the answers must be the same bytes."""
    first = on(silo, action, parts)
    for _ in range(2):
        again = on(silo, action, parts)
        if again.masking != first.masking or (action == "release" and again.record != first.record):
            say(world.note("meddled"), problem=f"{action}: another answer to the same message")
    return first


_earlier: dict[str, list[tuple[str, Parts, Parts]]] = {}


def replayed(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
    """After every message, deliver all earlier ones again."""
    said = on(silo, action, parts)
    earlier = _earlier.setdefault(silo, [])
    for old, asked, answered in earlier:
        try:
            again = on(silo, old, asked)
        except AgentError as error:
            say(world.note("meddled"), replayed=old, refused=str(error))
            continue
        if old == "release" and again.record != answered.record:
            say(world.note("meddled"), problem="a replayed request got other numbers")
    earlier.append((action, parts, said))
    return said


def crossed(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
    """Before every message, deliver it as if it were each of the other steps."""
    for other in ("hello", "share", "release", "confirm", "unmask", "publish", "witness"):
        if other != action:
            try:
                on(silo, other, parts)
            except AgentError as error:
                say(world.note("meddled"), crossed=f"{action} as {other}", refused=str(error))
            else:
                say(world.note("meddled"), crossed=f"{action} as {other}", refused="")
    return on(silo, action, parts)


def written_down(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
    """Keep every message to the first silo."""
    if silo == SILOS[0]:
        say(world.folder.parent / "letters", action=action, parts=[part.hex() for part in parts])
    return on(silo, action, parts)


GARBAGE = (
    b"",
    b"F",
    b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n",
    b"FND1" + b"\xff" * 25,
    b"FND1\x05" + bytes(24) + b"hello",
    b"FND1\x07" + (1 << 40).to_bytes(8, "big") * 3 + b"release",
    os.urandom(1 << 16),
)


def flooded(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
    """Before every message, send garbage from many connections."""
    path = str(world.socket(silo))
    for blob in GARBAGE * 8:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(20)
            try:
                caller.connect(path)
                caller.sendall(blob)
            except OSError:
                continue
    return on(silo, action, parts)


_held: list[socket.socket] = []


def half_open(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
    """Before a release, open a connection, send half a frame, and keep it open."""
    if action != "release":
        return on(silo, action, parts)
    _held.append(socket.socket(socket.AF_UNIX))
    _held[-1].connect(str(world.socket(silo)))
    _held[-1].sendall(b"FND1\x07\x00")
    start = time.monotonic()
    said = on(silo, action, parts)
    seconds = time.monotonic() - start
    late = {"problem": f"held up for {seconds:.0f} s"} if seconds > 40 else {}
    say(world.note("meddled"), held_s=round(seconds, 1), **late)
    return said


def hung_up(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
    """Ask and hang up before the answer, as a courier that is killed does; then ask again."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(world.socket(silo)))
        send_frame(caller, action, parts)
    return on(silo, action, parts)


def alone(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
    """Ask the first agent of a home; the second one must be gone by the end."""
    if action == "publish" and world.socket(f"{silo}+").exists():
        say(world.note("meddled"), problem="two agents serve one home")
    return on(silo, action, parts)


# disks
