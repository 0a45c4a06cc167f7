"""Named scenarios: checked-in TOML files, overridable field by field."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from fondaco.shared.config import build, override, read_toml, unknown_name
from fondaco.shared.errors import ConfigError

from .scenario import Scenario


def scenario_names() -> list[str]:
    """Return the names of all checked-in scenarios."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load_scenario(name: str, settings: Sequence[str] = ()) -> Scenario:
    """Return a checked-in scenario, or the one in a TOML file, with `settings` applied.

    Args:
        name: of `scenario_names`, or a path that ends in `.toml`.
        settings: `a.b=value` each, later ones win.

    Raises:
        ConfigError: an unknown scenario or key, or a value out of range.
    """
    path = scenario_path(name)
    tables = {"name": path.stem, **read_toml(path)}
    return build(Scenario, override(tables, settings))


def scenario_path(name: str) -> Path:
    """Return the file of a checked-in scenario, or `name` itself if it ends in `.toml`.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(name) if name.endswith(".toml") else _folder() / f"{name}.toml"
    if path.is_file():
        return path
    if name.endswith(".toml"):
        raise ConfigError(f"{path} does not exist")
    raise ConfigError(unknown_name(name, scenario_names(), "scenario"))


def _folder() -> Path:
    return Path(str(files(__package__))) / "scenarios"
