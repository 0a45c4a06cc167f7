"""Images: linted, pinned, without root, installed by hash."""

import re

import pytest
from deploy_files import DOCKERFILES, SWITCHES, tool

each = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


def text_of(path):
    return re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))


def test_both_images_are_there():
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.coordinator", "Dockerfile.silo"]


@each
def test_the_linter_finds_nothing(path):
    done = tool("hadolint", "--failure-threshold", "style", path)
    assert (done.returncode, done.stdout) == (0, "")


@each
def test_python_comes_from_a_pinned_image_and_everything_else_by_hash(path):
    text = text_of(path)
    assert re.findall(r"^ARG PYTHON=(.*)$", text, re.M) == ["python:3.11.14-slim-bookworm"]
    assert set(re.findall(r"^FROM (\S+)", text, re.M)) == {"${PYTHON}"}
    installs = re.findall(r"pip install[^\n]*", text)
    assert len(installs) == 1
    for word in ("--require-hashes", "--no-deps", "--only-binary :all:"):
        assert word in installs[0]
    assert not re.search(r"apt-get|curl|wget|ADD ", text)


@each
def test_the_image_is_quiet_and_runs_without_root(path):
    text = text_of(path)
    for name, value in SWITCHES.items():
        assert f"{name}={value}" in text
    last = re.findall(r"^USER (.*)$", text, re.M)[-1]
    assert re.fullmatch(r"1000[12]:1000[12]", last)


def test_agent_and_courier_are_two_users_with_a_folder_each():
    text = text_of(DOCKERFILES[1])
    assert "--uid 10002" in text
    assert "--uid 10003" in text
    assert "--mode=0700 --owner=fondaco-agent" in text
    assert "--mode=0700 --owner=fondaco-courier" in text
    assert "--mode=2770 --owner=fondaco-courier --group=fondaco-link /run/fondaco" in text
