"""The demonstration's orders, on a real PostgreSQL; its proxy, as nginx reads it."""

import os
import shutil
import subprocess
from pathlib import Path

import database_servers
import psycopg
import pytest
from deploy_files import DEPLOY

from fondaco.server.home import ServerHome, ServerSettings

SHOPS = ("alpha", "beta", "gamma")


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """A database filled by the scripts of the image, and how to ask it as a role."""
    secrets = tmp_path_factory.mktemp("secrets")
    for shop in SHOPS:
        (secrets / f"{shop}_password").write_text(f"of {shop}'s own\n")
    with database_servers.postgresql() as server:
        connection = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port)}
        owner = {"PGPASSWORD": database_servers.PASSWORD, "POSTGRES_USER": "shop"}
        names = {"POSTGRES_DB": "shop", "SECRETS": str(secrets), "DEMO": str(DEPLOY / "demo")}
        done = subprocess.run(  # noqa: S603
            ["/bin/sh", DEPLOY / "demo" / "shops.sh"],
            env={**os.environ, **connection, **owner, **names},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

        def ask(shop, query):
            words = {"host": "127.0.0.1", "port": server.port, "dbname": "shop", "user": shop}
            with psycopg.connect(**words, password=f"of {shop}'s own") as session:
                return session.execute(query).fetchall()

        yield ask


@pytest.mark.parametrize("shop", SHOPS)
def test_each_shop_has_customers_items_and_two_years_of_orders(shops, shop):
    ((customers, items, days),) = shops(
        shop,
        "SELECT count(DISTINCT customer), count(DISTINCT sku), "  # noqa: S608
        f"extract(day FROM max(sold_at) - min(sold_at)) FROM {shop}.orders",
    )
    assert customers == 600
    assert 100 <= items <= 120
    assert days >= 725


def test_items_are_those_of_the_catalogue(shops):
    rows = shops("beta", "SELECT DISTINCT sku FROM beta.orders")
    assert {sku for (sku,) in rows} <= {f"item-{num:03d}" for num in range(120)}


def test_no_shop_reads_another_ones_orders_or_writes_its_own(shops):
    for query in ("SELECT * FROM beta.orders", "DELETE FROM alpha.orders"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            shops("alpha", query)


def test_the_proxy_of_the_images_is_a_whole_configuration(tmp_path):
    settings = ServerSettings(name="demo", port=8000, public_address="hub.example:9443")
    home = ServerHome.make(tmp_path / "hub", settings)
    text = (DEPLOY / "proxy" / "nginx.conf").read_text()
    text = text.replace("/tmp/", f"{tmp_path}/")  # noqa: S108
    text = text.replace("/var/lib/fondaco/hub", str(home.folder))
    config = tmp_path / "nginx.conf"
    config.write_text(text)
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert nginx, "no nginx; apt-get install nginx-light"
    words = [nginx, "-t", "-q", "-c", str(config), "-p", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stderr) == (0, "")
    included = Path(home.folder, "proxy", "nginx.conf").read_text()
    assert "listen 9443 ssl" in included
    assert "127.0.0.1:8000" in included
