"""What PostgreSQL and MySQL have in common: an address that may hold a password."""

from collections.abc import Mapping, Sequence
from typing import Any

from fondaco.shared.errors import ConfigError

from .config import SourceConfig
from .credentials import find_address
from .extras import need
from .sql import Dialect, SqlSource

CONNECT_TIMEOUT_S = 20


def open_server(
    config: SourceConfig,
    dialect: Dialect,
    driver: str,
    schemes: Sequence[str],
    arguments: Mapping[str, Any],
) -> SqlSource:
    """Return the source of a table or query on a server.

    Args:
        config: names the address, and what to read.
        dialect: the engine's ways.
        driver: SQLAlchemy's name of engine and driver, such as "mysql+pymysql".
        schemes: what addresses may begin with.
        arguments: for the driver's connect function.

    Raises:
        ConfigError: SQLAlchemy or the driver is not installed, or the address is none of
            this engine's or has parameters that the driver does not take.
        DataError: the server cannot be reached, or refuses.
    """
    sqlalchemy = need("sqlalchemy", "sql")
    need(driver.partition("+")[2], "sql")
    address = find_address(config)
    try:
        url = sqlalchemy.make_url(address.text)
    except (sqlalchemy.exc.ArgumentError, ValueError, TypeError):
        raise ConfigError(
            f"{address.origin} holds no address such as {schemes[0]}://user@host/database"
        ) from None
    if url.drivername.partition("+")[0] not in schemes:
        raise ConfigError(
            f"{address.origin} holds an address of none of {', '.join(schemes)}, "
            f"but source.kind={config.kind!r}"
        )
    unusable = sqlalchemy.exc.SQLAlchemyError, TypeError, ValueError, AttributeError, OSError
    try:
        engine = sqlalchemy.create_engine(
            url.set(drivername=driver),
            poolclass=sqlalchemy.NullPool,
            hide_parameters=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, **arguments},
        )
        return SqlSource(config, engine, dialect, address.hide)
    except unusable as error:  # what drivers raise for parameters that they do not know
        raise ConfigError(
            f"{address.origin} holds an address with parameters that cannot be used: "
            f"{address.hide(error)}"
        ) from None
