"""`source.toml`, and what is done so that no password is ever read aloud."""

import os
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from database_servers import PASSWORD, free_port

from fondaco.client import sources
from fondaco.client.loading import read_assortment, read_settings
from fondaco.client.sources import open_source
from fondaco.client.sources.config import AssortmentConfig, SourceConfig, SourceFile
from fondaco.client.sources.credentials import Address, find_address
from fondaco.shared.errors import ConfigError, DataError, FondacoError
from fondaco.shared.vocabulary import Vocabulary

EXAMPLE = Path(sources.__file__).parents[1] / "source_example.toml"
CANARY = "c4n4ry"
FILES = '[source]\nkind = "csv"\npath = "a.csv"\n'
SERVER = '[source]\nkind = "mysql"\nurl_env = "X"\ntable = "t"\n'


def written(tmp_path, text):
    path = tmp_path / "source.toml"
    path.write_text(text)
    return read_settings(tmp_path)


def test_example_is_valid_and_its_paths_begin_at_the_file(tmp_path):
    file = written(tmp_path, EXAMPLE.read_text())
    assert file.source.path == str(tmp_path / "orders.csv")
    assert file.checks.on_bad_row == "refuse"
    assert file.sold is None


def test_every_line_of_the_example_that_is_commented_out_can_be_used():
    hints = [
        line.partition("  #")[0].removeprefix("# ") for line in EXAMPLE.read_text().split("\n")
    ]
    keys = {
        hint.partition(" = ")[0]
        for hint in hints
        if " = " in hint and " " not in hint.split(" = ")[0]
    }
    known = {
        name for part in (SourceConfig, AssortmentConfig) for name in part.__dataclass_fields__
    }
    assert {*known, "user_id", "min_rating", "most_bad"} <= keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "source.kind is missing"),
        ('[source]\nkind = "xls"', "must be one of csv, parquet"),
        ('[source]\nkind = "csv"', "needs one of path"),
        ('[source]\nkind = "csv"\npath = "a.csv"\ntable = "t"', "source.table is for databases"),
        ('[source]\nkind = "csv"\npth = "a.csv"', "unknown key .*did you mean"),
        (
            '[source]\nkind = "mysql"\npath = "x"\ntable = "t"',
            "needs one of url_file, url_env, url",
        ),
        ('[source]\nkind = "mysql"\nurl_env = "X"', "needs either table or query"),
        ('[source]\nkind = "mysql"\nurl_env = "X"\ntable = "t"\nquery = "q"', "either table or"),
        (
            '[source]\nkind = "csv"\npath = "a"\nsince = "2020-02-01"\nuntil = "2020-01-01"',
            "before",
        ),
        (FILES + '[assortment]\ncolumn = "sku"', "needs assortment.path, and no table"),
        (FILES + '[assortment]\npath = "b"\ntable = "t"', "needs assortment.path, and no table"),
        (
            SERVER + '[assortment]\ncolumn = "sku"',
            "needs one of assortment.table, assortment.query",
        ),
        (
            SERVER + '[assortment]\npath = "b.csv"',
            "needs one of assortment.table, assortment.query",
        ),
        (SERVER + '[assortment]\npath = "b"\ntable = "t"', "assortment.path is for files"),
        (
            SERVER + '[assortment]\nquery = "q"\ntable = "t"',
            "one of assortment.table, assortment.query",
        ),
        ('[source]\nkind = "csv"\npath = "a"\nsince = "soon"', "must be a date"),
        ('[source]\nkind = "csv"\npath = "a"\n[checks]\nmost_bad = 1.5', "between 0 and 1"),
        ('[source]\nkind = "csv"\npath = "a"\n[checks]\nmin_rating = nan', "must be a number"),
    ],
)
def test_wrong_setting_is_explained(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        written(tmp_path, text)


@pytest.mark.parametrize(
    "line",
    [
        'url = "postgresql://shop:c4n4ry@db/shop"',
        'url = "postgresql://shop:c4n4/ry@db/shop"',
        'url = "mysql://db/shop?password=c4n4ry"',
        'path = "postgresql://shop:c4n4ry@db/shop"',
        'kind = "postgresql://shop:c4n4ry@db/shop"',
        "url_env = 'mysql://:c4n4ry@db/shop'",
        "# an old one: mysql://shop:c4n4ry@db/shop",
    ],
)
def test_password_in_the_settings_is_refused_with_the_fix_and_never_shown(tmp_path, line):
    with pytest.raises(ConfigError, match=r"holds a password.*chmod 600.*url_file") as caught:
        written(tmp_path, f'[source]\n{line}\ntable = "t"\n')
    assert CANARY not in str(caught.value)


def test_password_in_a_config_made_by_hand_is_refused():
    with pytest.raises(ConfigError, match="holds a password") as caught:
        SourceConfig(kind="mysql", url="mysql://shop:c4n4ry@db/shop", table="t")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_address_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "db.url"
    path.write_text("mysql://shop:c4n4ry@db/shop")
    path.chmod(mode)
    with pytest.raises(ConfigError, match="run chmod 600") as caught:
        find_address(SourceConfig(kind="mysql", url_file=str(path), table="t"))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("text", ["", "one\ntwo", "\x00\xff"])
def test_file_without_one_address_is_refused(tmp_path, text):
    path = tmp_path / "db.url"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"db\.url (must hold one line|cannot be read)"):
        find_address(SourceConfig(kind="mysql", url_file=str(path), table="t"))


def test_address_is_found_in_the_environment_or_its_absence_explained(monkeypatch):
    config = SourceConfig(kind="mysql", url_env="SHOP_DATABASE", table="t")
    with pytest.raises(ConfigError, match="SHOP_DATABASE is not set"):
        find_address(config)
    monkeypatch.setenv("SHOP_DATABASE", " mysql://shop:c4n4ry@db/shop ")
    address = find_address(config)
    assert address.text.endswith("@db/shop")
    assert CANARY not in repr(address)


@pytest.mark.parametrize(
    "text",
    [
        CANARY,
        f"mysql://shop:{CANARY}",
        f"mysql://shop:pass@{CANARY}@db/shop",
        f"oracle://shop:{CANARY}@db/shop",
        f"postgresql://shop:{CANARY}@db/shop",
        f"mysql://shop:x@db:{CANARY}/shop",
    ],
)
def test_address_that_is_none_is_refused_without_being_shown(monkeypatch, text):
    monkeypatch.setenv("SHOP_DATABASE", text)
    with pytest.raises(ConfigError, match="environment variable SHOP_DATABASE") as caught:
        open_source(SourceConfig(kind="mysql", url_env="SHOP_DATABASE", table="t"))
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("mysql", "sslmode=require"),  # as PostgreSQL spells it
        ("mysql", "charset=latin9"),
        ("mysql", "connect_timeout=soon"),
        ("mysql", "ssl_ca=/nowhere.pem"),
        ("postgresql", "plugin=x"),
    ],
)
def test_address_with_parameters_of_no_use_is_one_line_without_a_password(
    monkeypatch, kind, parameters
):
    monkeypatch.setenv("SHOP_DATABASE", f"{kind}://shop:{CANARY}@127.0.0.1:1/shop?{parameters}")
    said = r"^environment variable SHOP_DATABASE holds an address with parameters that cannot be"
    with pytest.raises(ConfigError, match=said) as caught:
        open_source(SourceConfig(kind=kind, url_env="SHOP_DATABASE", table="t"))
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_every_form_of_a_password_is_hidden():
    address = Address("mysql://shop:a%40b%2Fc@db/shop?ssl_password=q&Password=z9", "test")
    said = address.hide("no 'a@b/c', a%40b%2Fc or z9 at mysql://shop:a%40b%2Fc@db/shop\nmore")
    assert said.startswith("no '***', *** or *** at ")
    assert not {"a@b/c", "a%40b%2Fc", "z9", "more"} & set(said.split())


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_wrong_password_and_silent_server_are_told_in_one_line(shop, kind, monkeypatch, caplog):
    config = SourceConfig(kind=kind, url_env="SHOP_DATABASE", table="orders1")
    server = shop.servers[kind]
    silent = replace(server, port=free_port())
    wrong = PASSWORD[::-1]
    for url in (
        server.url(password=wrong),
        silent.url(),
        server.url().replace("/shop", "/elsewhere"),
    ):
        monkeypatch.setenv("SHOP_DATABASE", url)
        with pytest.raises(DataError) as caught:
            open_source(config)
        said = f"{caught.value} {caplog.text}"
        assert "\n" not in str(caught.value)
        assert PASSWORD not in said
        assert wrong not in said
        assert url not in said


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        ("sqlite", "sqlalchemy", "sql"),
        ("postgresql", "psycopg", "sql"),
        ("mysql", "pymysql", "sql"),
        ("duckdb", "duckdb", "duckdb"),
    ],
)
def test_missing_library_is_named_with_the_way_to_get_it(shop, kind, module, extra, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    (shop.folder / "shop.db").touch()
    place = (
        {"url": f"{kind}://db/shop"}
        if kind in ("postgresql", "mysql")
        else {"path": str(shop.folder / "shop.db")}
    )
    with pytest.raises(
        ConfigError, match=rf"{module} is not installed; pip install 'fondaco\[{extra}\]'"
    ):
        open_source(SourceConfig(kind=kind, table="t", **place))


def test_sources_need_no_library_until_they_are_opened():
    assert "sqlalchemy" not in vars(import_module("fondaco.client.sources.sql"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_folder_of_files_is_one_source(shop, kind):
    folder = shop.folder / "2020"
    (folder / "_old").mkdir(parents=True)
    (folder / "march").mkdir()
    rows = [("u1", "a", None), ("u2", "b", None)]
    for num, part in enumerate([f"a.{kind}", f"march/b.{kind}", f"_old/c.{kind}"]):
        made = Path(shop.write(kind, rows[num % 2 :]).path)
        made.rename(folder / part)
    with open_source(SourceConfig(kind=kind, path=str(folder))) as source:
        tables = list(source.batches(["user_id"], 10))
    assert [table.cells("user_id").tolist() for table in tables] == [["u1", "u2"], ["u2"]]
    assert tables[1].place(0).startswith(f"march/b.{kind} ")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_folder_whose_files_differ_is_refused(shop, kind):
    folder = shop.folder / "2020"
    folder.mkdir()
    for name, columns in (("a", ("user_id", "item_id")), ("b", ("customer", "item_id"))):
        made = Path(shop.write(kind, [("u", "a")], ("text", "text"), columns).path)
        made.rename(folder / f"{name}.{kind}")
    with (
        open_source(SourceConfig(kind=kind, path=str(folder))) as source,
        pytest.raises(DataError, match=rf"b\.{kind}.* 'user_id'"),
    ):
        list(source.batches(["user_id"], 10))


@pytest.mark.parametrize("path", ["nowhere.csv", "empty"])
def test_path_without_files_is_explained(tmp_path, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=path):
        open_source(SourceConfig(kind="csv", path=str(tmp_path / path)))


@pytest.mark.parametrize("kind", sources.SOURCES)
def test_assortment_is_read_from_the_same_place(shop, kind):
    orders = shop.write(kind, [("u", "a", None)])
    listed = shop.write(kind, [("c",), ("zz",), ("a",)], ("text",), ("sku",))
    place = {"table": listed.table} if listed.table else {"path": listed.path}
    file = SourceFile(source=orders, assortment=AssortmentConfig(column="sku", **place))
    assert read_assortment(file, Vocabulary(tuple("abc"))).tolist() == [True, False, True]
    with pytest.raises(DataError, match="names no item"):
        read_assortment(file, Vocabulary(("q",)))
    wrong = replace(file, assortment=replace(file.assortment, column="item"))
    with pytest.raises(DataError, match="no column 'item'"):
        read_assortment(wrong, Vocabulary(("q",)))


def test_damaged_database_is_a_clear_error(tmp_path):
    path = tmp_path / "shop.db"
    path.write_bytes(os.urandom(5000))
    for kind in ("sqlite", "duckdb"):
        with pytest.raises(FondacoError, match=r"^t: "):
            open_source(SourceConfig(kind=kind, path=str(path), table="t"))


def test_settings_know_every_kind_of_source():
    kinds = get_args(get_type_hints(SourceConfig)["kind"])
    assert kinds == tuple(sources.SOURCES)
