"""Real database servers of Debian's packages, as long as the tests run: own data, a free port."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

PASSWORD = "c4n4ry of@the/shop"  # noqa: S105
STARTS_WITHIN_S = 60


@dataclass(frozen=True)
class Server:
    """A server under which user `shop` may do anything in database `shop`."""

    kind: str
    scheme: str
    port: int

    def url(self, scheme=None, password=PASSWORD):
        secret = quote(password, safe="")
        return f"{scheme or self.scheme}://shop:{secret}@127.0.0.1:{self.port}/shop"


@contextmanager
def postgresql():
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        raise LookupError("no PostgreSQL under /usr/lib/postgresql; apt-get install postgresql")
    with _folder("postgres") as (folder, owner):
        data, words = folder / "data", folder / "password"
        words.write_text(PASSWORD)
        shutil.chown(words, *owner)
        make = [
            binaries[-1] / "initdb",
            "-D",
            data,
            "-U",
            "shop",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
        ]
        _run([*make, f"--pwfile={words}", "--no-sync", "--locale=C.UTF-8"], owner)
        port = free_port()
        serve = [binaries[-1] / "postgres", "-D", data, "-p", port, "-k", folder]
        quick = [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
            "-c",
            "full_page_writes=off",
        ]
        with _serving([*serve, *quick], owner, folder / "log", signal.SIGINT):
            import psycopg  # noqa: PLC0415

            def connect():
                words = {"host": "127.0.0.1", "port": port, "user": "shop", "password": PASSWORD}
                return psycopg.connect(dbname="postgres", autocommit=True, **words)

            with _patiently(connect, psycopg.OperationalError) as admin:
                admin.execute("CREATE DATABASE shop")
            yield Server("postgresql", "postgresql", port)


@contextmanager
def mariadb():
    server, make = shutil.which("mariadbd", path=_PATH), shutil.which("mariadb-install-db")
    if not server or not make:
        raise LookupError("no mariadbd; apt-get install mariadb-server")
    with _folder("mysql") as (folder, owner):
        data, port, door = folder / "data", free_port(), folder / "socket"
        plain = ["--no-defaults", f"--datadir={data}"]
        _run([make, *plain, "--auth-root-authentication-method=normal", "--skip-test-db"], owner)
        serve = [server, *plain, f"--port={port}", f"--socket={door}", "--bind-address=127.0.0.1"]
        quick = ["--innodb-flush-log-at-trx-commit=0", "--skip-log-bin", "--skip-name-resolve"]
        with _serving([*serve, *quick], owner, folder / "log", signal.SIGTERM):
            import pymysql  # noqa: PLC0415

            with _patiently(lambda: socket.create_connection(("127.0.0.1", port)), OSError):
                admin = pymysql.connect(unix_socket=str(door), user="root")
            with admin, admin.cursor() as cursor:
                cursor.execute("CREATE DATABASE shop CHARACTER SET utf8mb4")
                cursor.execute("CREATE USER shop@'127.0.0.1' IDENTIFIED BY %s", (PASSWORD,))
                cursor.execute("GRANT ALL ON shop.* TO shop@'127.0.0.1'")
            yield Server("mysql", "mysql", port)


_PATH = f"/usr/sbin:/usr/libexec:{os.environ.get('PATH', '')}"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def _folder(user):
    """A short path (sockets allow about 100 characters) that belongs to the server's user."""
    owner = pwd.getpwnam(user)[2:4] if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    folder = Path(tempfile.mkdtemp(prefix="shopdb-"))
    shutil.chown(folder, *owner)
    try:
        yield folder, owner
    finally:
        shutil.rmtree(folder)


def _run(words, owner):
    done = subprocess.run(  # noqa: S603
        list(map(str, words)), **_as(owner), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _serving(words, owner, log, end):
    with log.open("w") as file:
        server = subprocess.Popen(list(map(str, words)), **_as(owner), stdout=file, stderr=file)  # noqa: S603
        try:
            yield
        finally:
            server.send_signal(end)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _as(owner):
    if os.geteuid() != 0:
        return {}
    return {"user": owner[0], "group": owner[1], "extra_groups": [], "cwd": "/"}


@contextmanager
def _patiently(connect, not_yet):
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until:
        with suppress(not_yet):
            connection = connect()
            break
        time.sleep(0.1)
    else:
        connection = connect()
    try:
        yield connection
    finally:
        connection.close()
