"""From a commit to an installation: the same bytes, every file by its hash, nothing hidden."""

import hashlib
import importlib.util
import json
import os
import re
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from deploy_files import DEPLOY, FILES, ROOT, tool

HOSTS = re.compile(
    r"(py[p]i|python[h]osted|npm[j]s|"
    r"docker\.[i]o|ghcr\.[i]o|quay\.[i]o|gcr\.[i]o|deb\.[d]ebian|debian\.[o]rg)",
    re.I,
)
"""Hosts of registries; brackets, so that no file of ours names one, this one included."""


def load(name):
    spec = importlib.util.spec_from_file_location(name, DEPLOY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


requirements, audit_deps = load("requirements"), load("audit_deps")


def tiny_wheel(folder, name="fondaco", version="0.1.0", needs=""):
    """Write the smallest wheel that pip installs; return its path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    meta += f"Provides-Extra: sql\nRequires-Dist: {needs}\n" if needs else ""
    files = {
        f"{name}.py": "WORD = 'installed'\n",
        f"{info}/METADATA": meta,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


# ---- the wheel ----


def test_the_wheel_is_the_same_bytes_whoever_builds_it_when(tmp_path):
    found = set()
    for num, umask in enumerate((0o022, 0o077)):
        out = tmp_path / str(num)
        done = tool(
            *("hatchling", "build", "-t", "wheel", "-d", out),
            cwd=ROOT,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "TZ": f"UTC+{num}"},
            umask=umask,
        )
        assert done.returncode == 0, done.stderr
        (wheel,) = out.glob("*.whl")
        found.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert len(found) == 1


def test_the_wheel_holds_our_rooms_and_nothing_else(tmp_path):
    done = tool("hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {"/".join(name.split("/")[:2]) for name in names if ".dist-info" not in name}
    assert tops == {f"fondaco/{room}" for room in ("client", "server", "shared", "simulation")}
    assert not any(re.search(r"\.(pyc|pem|key|db)$|/tests/|secrets/", name) for name in names)


# ---- what to install ----


def test_requirements_name_every_file_by_its_hash(tmp_path):
    wheel = tiny_wheel(tmp_path)
    items = requirements.resolved(wheel, "sql", [])
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert [requirements.line_of(item) for item in items] == [
        f"fondaco==0.1.0 --hash=sha256:{digest}\n"
    ]


def test_files_of_this_disk_go_along_and_install_by_hash_alone(tmp_path):
    wheel, out = tiny_wheel(tmp_path / "made"), tmp_path / "out"
    items = requirements.resolved(wheel, "", [])
    requirements.keep_local(items, out / "wheels")
    (out / "requirements.txt").write_text("".join(map(requirements.line_of, items)))
    words = ["install", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-index"]
    words += ["--find-links", out / "wheels", "-r", out / "requirements.txt", "-q"]
    done = tool("pip", *words, "--target", tmp_path / "env")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "env" / "fondaco.py").is_file()


def test_a_file_that_was_changed_on_the_way_is_not_installed(tmp_path):
    wheel, out = tiny_wheel(tmp_path / "made"), tmp_path / "out"
    items = requirements.resolved(wheel, "", [])
    requirements.keep_local(items, out / "wheels")
    (out / "requirements.txt").write_text("".join(map(requirements.line_of, items)))
    with zipfile.ZipFile(next((out / "wheels").iterdir()), "a") as archive:
        archive.writestr("evil.py", "")
    words = ["download", "--require-hashes", "--no-deps", "--no-index", "-d", tmp_path / "got"]
    done = tool("pip", *words, "--find-links", out / "wheels", "-r", out / "requirements.txt")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_a_file_without_a_hash_stops_it():
    item = {
        "metadata": {"name": "A_b", "version": "1"},
        "download_info": {"url": "file:///x", "archive_info": {}},
    }
    with pytest.raises(SystemExit, match="no SHA-256 is known of a-b"):
        requirements.line_of(item)


def test_requirements_bind_to_what_is_installed_and_tested_here():
    lines = requirements.installed()
    assert any(line.startswith("flwr==1.41.") for line in lines)
    assert not any(line.startswith("fondaco") for line in lines)


# ---- vulnerabilities ----


def answers(monkeypatch, *documents):
    """Let pip-audit answer these, one after another; return what it was asked."""
    asked, left = [], list(documents)

    def run(command, **options):
        asked.append(Path(command[4]).read_text(encoding="utf-8").split())
        said = left.pop(0)
        text = said if isinstance(said, str) else json.dumps({"dependencies": said})
        return SimpleNamespace(stdout=text, stderr="boom\n", returncode=0)

    monkeypatch.setattr(audit_deps.subprocess, "run", run)
    return asked


OLD = {"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-2019-217"}]}


@pytest.fixture
def pinned(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# head\nfondaco==0.1.0 --hash=x\ntorch==2.13.0+cpu --hash=y\nrich==14 --hash=z\n"
    )
    return path


def audited(*paths):
    sys.argv = ["audit_deps.py", *map(str, paths)]
    try:
        audit_deps.main()
    except SystemExit as end:
        return end.code
    return 0


def test_everything_sound_is_said_only_if_a_known_fault_was_found(monkeypatch, capsys, pinned):
    sound = [{"name": n, "version": "1", "vulns": []} for n in ("rich", "torch")]
    asked = answers(monkeypatch, [OLD], sound)
    assert audited(pinned) == 0
    assert asked == [["jinja2==2.10"], ["rich==14", "torch==2.13.0"]]
    assert "no known vulnerabilities" in capsys.readouterr().out


def test_a_vulnerable_release_is_named(monkeypatch, capsys, pinned):
    bad = {"name": "rich", "version": "14", "vulns": [{"id": "CVE-1"}]}
    answers(monkeypatch, [OLD], [bad, {"name": "torch", "version": "2", "vulns": []}])
    assert audited(pinned) == 1
    assert "rich 14: CVE-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "documents",
    [
        [[{"name": "jinja2", "skip_reason": "not found"}]],
        [[{**OLD, "vulns": []}]],
        ["Traceback"],
        ["{}"],
        [[OLD], [{"name": "rich", "version": "14", "vulns": []}]],
        [[OLD], [{"name": "rich", "skip_reason": "x"}, {"name": "torch", "skip_reason": "x"}]],
    ],
)
def test_a_service_that_does_not_answer_is_never_taken_for_good_news(
    monkeypatch, capsys, pinned, documents
):
    answers(monkeypatch, *documents)
    assert audited(pinned) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: nothing was audited")
    assert printed.err.count("\n") == 1


# ---- what stands in the files ----


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_a_registry(path):
    assert not HOSTS.search(path.read_text(encoding="utf-8"))


def test_no_file_that_git_keeps_holds_hashes_or_addresses_of_packages():
    kept = tool("git", "ls-files", cwd=ROOT)
    assert kept.returncode == 0, kept.stderr
    names = kept.stdout.split("\n")
    assert not [n for n in names if re.search(r"(^|/)(uv\.lock|requirements[^/]*\.txt)$", n)]
