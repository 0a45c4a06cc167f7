"""Libraries that only some sources need, imported when such a source is opened."""

from importlib import import_module
from typing import Any

from fondaco.shared.errors import ConfigError


def need(module: str, extra: str) -> Any:  # noqa: ANN401  (a module)
    """Return an optional library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        library = module.partition(".")[0]
        raise ConfigError(f"{library} is not installed; pip install 'fondaco[{extra}]'") from None
