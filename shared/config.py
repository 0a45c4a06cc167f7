"""TOML -> frozen dataclasses: one loader for every knob; unknown keys are errors.

A knob exists once, as a field of a frozen keyword-only dataclass with a docstring under it.
Knobs that can change privacy end up in a `RunPlan`, which is what the ledger holds.
"""

import difflib
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """How a silo combines global, own and content scores; read at home only."""

    fuser: Literal["weighted", "rank", "stacked"] = "weighted"
    """A name of `shared/fusion`."""
    personal: Literal["own", "dp-only"] = "own"
    """`own`: the silo's exact statistics join in at home; `dp-only`: they never do."""
    content: bool = True
    """Whether public item features take part."""
    half_life_days: float = 0.0
    """Age at which a history row counts half; 0 where times are no clock [days]."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.half_life_days < float("inf"):
            raise ConfigError(f"fusion.half_life_days={self.half_life_days} must be >= 0")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        ConfigError: the file is missing or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error


def override(tables: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return `tables` with every `a.b=c` of `settings` applied; c is TOML, else text.

    Raises:
        ConfigError: a setting has no `=` or goes through something that is no table.
    """
    changed = _copy(tables)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {setting!r} must read a.b=value")
        *parents, last = path.strip().split(".")
        table = changed
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {setting!r}: {parent!r} is a value, not a table")
        table[last] = _value(text.strip())
    return changed


def build(config_type: type[T], tables: Mapping[str, Any], where: str = "") -> T:
    """Return a `config_type` filled from `tables`, nested dataclasses included.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a missing key, a value of the
            wrong type, or whatever the dataclass' own check says.
    """
    hints = get_type_hints(config_type)
    known = {field.name: field for field in fields(config_type)}  # type: ignore[arg-type]
    for key in tables:
        if key not in known:
            raise ConfigError(unknown_name(f"{where}{key}", [f"{where}{name}" for name in known]))
    values = {key: _convert(hints[key], value, f"{where}{key}") for key, value in tables.items()}
    for name, field in known.items():
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and name not in values and is_dataclass(hints[name]):
            values[name] = build(hints[name], {}, f"{where}{name}.")
        elif needed and name not in values:
            raise ConfigError(f"{where}{name} is missing")
    return config_type(**values)


def unknown_name(name: str, known: Sequence[str], what: str = "key") -> str:
    """Return an error text that names the nearest of `known`."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
    return f"unknown {what} {name!r}{hint}"


def _copy(tables: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in tables.items()}


def _value(text: str) -> Any:  # noqa: ANN401  (TOML values are of any type)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _convert(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}={value!r} must be a table")
        return build(hint, value, f"{where}.")
    origin = get_origin(hint)
    if origin is Literal:
        return _one_of(get_args(hint), value, where)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"{where}={value!r} must be a list")
        return tuple(_convert(get_args(hint)[0], part, where) for part in value)
    if origin in (Union, types.UnionType):
        raise ConfigError(f"{where} cannot be set")
    return _plain(hint, value, where)


def _one_of(choices: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401
    if value not in choices:
        raise ConfigError(f"{where}={value!r} must be one of {', '.join(map(str, choices))}")
    return value


def _plain(hint: type, value: Any, where: str) -> Any:  # noqa: ANN401
    if hint is float and type(value) is int:
        return float(value)
    if hint is str and type(value) in (int, float):
        return str(value)
    if type(value).__name__ in ("date", "datetime") and hint is str:
        return value.isoformat()
    if type(value) is not hint:
        raise ConfigError(f"{where}={value!r} must be a {hint.__name__}")
    return value
