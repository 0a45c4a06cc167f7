"""RFC 8785 text of records that hold text and integers only."""

import json
from collections.abc import Mapping, Sequence

from ..errors import ConfigError

MAX_INT = 2**53


def canonical_json(body: object) -> str:
    """Return `body` (text, integers, lists, mappings) as RFC 8785 writes it.

    Raises:
        ConfigError: it holds a float, whose text would depend on the writer, an integer beyond
            2^53, or half a character.
    """
    try:
        text = json.dumps(_ordered(body), separators=(",", ":"), ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{error.object[:80]!r} is no text") from error
    except RecursionError:
        raise ConfigError("a record is nested too deeply") from None
    return text


def _ordered(body: object) -> object:
    """Return `body` with its keys in the order of their UTF-16 code units."""
    if isinstance(body, str) or body is None:
        return body
    if isinstance(body, int):
        if abs(body) > MAX_INT:
            raise ConfigError(f"{body} is beyond 2^53, which readers may round")
        return body
    if isinstance(body, Mapping):
        keys = sorted(body, key=lambda key: str(key).encode("utf-16-be"))
        return {key: _ordered(body[key]) for key in keys}
    if isinstance(body, Sequence):
        return [_ordered(part) for part in body]
    raise ConfigError(f"{body!r} may not stand in a record; it holds text and integers only")
