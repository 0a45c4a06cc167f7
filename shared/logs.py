"""What our processes say of themselves while they run: one line per event, public facts only.

A line is a JSON object on standard error, or words where that is a terminal. EVENTS is all that
can be said. There is no field for a text: not for a customer, an item, a file, a message of an
error, nor for a count of anything at a silo but bytes, whose number the plan fixes.

What other libraries say is cut down in the same way once `install` was called: of a warning, of a
record of Python's `logging` (Flower's logger writes there) and of an error that nobody caught,
only the kind and the line of code remain. Flower's own programs (SuperLink, SuperNode, SuperExec)
are processes of their own and write what they like: ids of runs, messages and nodes, types of
messages, addresses, and the texts of errors. None of them ever sees a silo's data, and the texts
of errors that reach them are those that `client.answers.public_reason` lets out.
"""

import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import FrameType, TracebackType
from typing import Any

from .errors import ConfigError, FondacoError, RefusalError
from .fields import Fields, Value, misfits

_MESSAGE: Fields = {"action": "word", "kind": "word", "round_num": "count", "attempt": "count"}
_FAILURE: Fields = {"error": "error", "code": "word", "place": "place", "inner": "place"}

EVENTS: Mapping[str, Fields] = {
    "agent.started": {"silo_id": "silo", "plan": "digest", "network": "word"},
    "agent.answered": {
        **_MESSAGE,
        "seconds": "seconds",
        "received": "count",
        "sent": "count",
    },
    "agent.refused": {**_MESSAGE, **_FAILURE},
    "agent.turned_away": {"why": "phrase", "uid": "count"},
    "agent.stopped": {},
    "courier.started": {"silo_id": "silo", "superlink": "address"},
    "courier.ended": {"program": "word", "exit_code": "count", "signal": "count"},
    "courier.stopped": {},
    "coordinator.started": {"address": "address"},
    "coordinator.renewed": {},
    "coordinator.ended": {"program": "word", "exit_code": "count", "signal": "count"},
    "coordinator.stopped": {},
    "failed": _FAILURE,
    "crashed": _FAILURE,
    "warned": {"error": "error", "place": "place"},
    "library": {"library": "word", "level": "word", "place": "place"},
    "unlisted": {"place": "place"},
}
"""Event -> its fields. `failed` is an error of ours, `crashed` one that nobody expected."""

_process = "fondaco"


def event(name: str, **fields: Value) -> None:
    """Write one line.

    What EVENTS does not name is left out, and the line says how much (`left_out`); in tests it is
    an error.

    Raises:
        ConfigError: in tests only.
    """
    wrong = misfits(EVENTS[name], fields) if name in EVENTS else [name]
    if not wrong:
        _emit(name, fields)
        return
    if "PYTEST_VERSION" in os.environ:
        raise ConfigError(f"no log line has a place for {', '.join(wrong)}")
    if name in EVENTS:
        kept = {field: value for field, value in fields.items() if field not in wrong}
        _emit(name, {**kept, "left_out": len(wrong)})
    else:
        _emit("unlisted", {"place": _place(sys._getframe(1)), "left_out": 1 + len(fields)})


def failed(error: BaseException, name: str = "failed", **fields: Value) -> None:
    """Write that something failed: the kind of error and where, never its text."""
    event(name, **{**fields, **_of_error(error)})


def install(process: str) -> None:
    """Name this process, and let nothing but such lines out of it: warnings, crashes, libraries."""
    global _process  # noqa: PLW0603  (one name per process, as in `logging`)
    _process = process
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warned  # type: ignore[assignment]
    root = logging.getLogger()
    for logger in (root, *_loggers()):
        logger.handlers.clear()
        logger.propagate = True
    root.addHandler(_Cut(logging.WARNING))


@contextmanager
def guard() -> Iterator[None]:
    """Let no text of an error out of a service: log its kind and exit with 2.

    On a terminal the error goes on to whoever shows it to the owner.
    """
    try:
        yield
    except (FondacoError, OSError) as error:
        if _on_terminal():
            raise
        failed(error)
        raise SystemExit(2) from None


def stop_on_signals() -> None:
    """Make SIGTERM end this process as Ctrl-C does, so that whoever cleans up gets to."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


class _Cut(logging.Handler):
    """Says of a library's record who logged it and where, and not what."""

    def emit(self, record: logging.LogRecord) -> None:
        place = f"{_clean(record.module)}:{record.lineno}"
        library = _clean(record.name.partition(".")[0].lower())
        _emit("library", {"library": library, "level": record.levelname.lower(), "place": place})


def _loggers() -> list[logging.Logger]:
    known = logging.getLogger().manager.loggerDict.values()
    return [logger for logger in known if isinstance(logger, logging.Logger)]


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    del kind, trace
    if isinstance(error, KeyboardInterrupt):
        return
    with suppress(Exception):
        failed(error, "crashed")


def _thread_crashed(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is not None:
        _crashed(crash.exc_type, crash.exc_value, crash.exc_traceback)


def _unraisable(crash: "sys.UnraisableHookArgs") -> None:
    if crash.exc_value is not None:
        _crashed(crash.exc_type, crash.exc_value, crash.exc_traceback)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    *_: Any,  # noqa: ANN401  (Python's own signature)
) -> None:
    del message
    module = _clean(os.path.basename(filename).removesuffix(".py"))
    _emit("warned", {"error": category.__name__, "place": f"{module}:{lineno}"})


def _of_error(error: BaseException) -> dict[str, Value]:
    """Return the kind of an error, its code, and the innermost lines of ours and of anybody."""
    frames = list(_frames(error.__traceback__))
    ours = [place for place in frames if place.startswith("fondaco.")]
    facts: dict[str, Value] = {"error": type(error).__name__}
    if isinstance(error, RefusalError):
        facts["code"] = error.code
    if ours:
        facts["place"] = ours[-1]
    if frames and frames[-1:] != ours[-1:]:
        facts["inner"] = frames[-1]
    return facts


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        yield _place(trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next


def _place(frame: FrameType, line: int = 0) -> str:
    return f"{_clean(str(frame.f_globals.get('__name__', '?')))}:{line or frame.f_lineno}"


def _clean(name: str) -> str:
    """Return the name of a module in the characters that a log line takes."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in name)[:160]


def _emit(name: str, fields: Mapping[str, Value]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    if _on_terminal():
        words = " ".join(f"{field}={value}" for field, value in fields.items())
        line = f"{now[11:19]} {_process}: {name.rpartition('.')[2].replace('_', ' ')} {words}"
    else:
        line = json.dumps({"time": now, "process": _process, "event": name, **fields})
    with suppress(OSError, ValueError):  # nobody listens: that is no reason to stop
        sys.stderr.write(f"{line.rstrip()}\n")
        sys.stderr.flush()


def _on_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False
