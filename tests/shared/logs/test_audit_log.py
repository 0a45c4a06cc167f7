"""Who did what: appended, chained, and free of whatever is nobody's business."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.audit_log import ACTIONS, FIRST, AuditLog, verify
from fondaco.shared.errors import ConfigError, DataError
from fondaco.shared.fields import KINDS

PLAN = "sha256:" + "ab" * 32


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def three(path):
    """A log of three lines."""
    log = AuditLog(path)
    log.write("init", silo_id="alpha")
    log.write("approve", plan=PLAN)
    log.write("recommend", count=3)
    return path


def test_lines_say_when_who_and_what(three):
    trail = verify(three)
    first = trail.entries[0]
    assert (first.action, dict(first.fields), first.prev) == ("init", {"silo_id": "alpha"}, FIRST)
    assert first.time.endswith("+00:00")
    assert first.user
    assert trail.findings == ()


def test_log_is_for_its_owner_only(three):
    assert three.stat().st_mode & 0o777 == 0o600


def test_log_is_never_written_through_a_link(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        AuditLog(path).write("erase")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("action", "fields"),
    [
        ("shop", {}),
        ("erase", {"customer": "c-17"}),
        ("load", {"source": "/data/customers.csv"}),
        ("recommend", {"count": "c-17"}),
        ("recommend", {"count": True}),
        ("approve", {"plan": "the one of c-17"}),
        ("run", {"plan": PLAN, "outcome": "failed\nforged line"}),
    ],
)
def test_what_the_table_does_not_name_is_not_written(path, action, fields):
    with pytest.raises(ConfigError, match="no place for"):
        AuditLog(path).write(action, **fields)
    assert not path.exists()


def test_a_changed_line_is_found(three):
    three.write_bytes(three.read_bytes().replace(b'"count":3', b'"count":2'))
    log = AuditLog(three)
    assert verify(three).findings == ()  # nobody has followed upon it yet: only the head tells
    three.write_bytes(three.read_bytes().replace(b"alpha", b"gamma"))
    assert verify(three).findings == ("line 2 follows upon another line than the one before it",)
    log.write("erase")
    assert len(verify(three).findings) == 1


@pytest.mark.parametrize(
    ("field", "forged"), [("time", "[/red]2026"), ("time", "yesterday"), ("user", "root\u001b[31m")]
)
def test_a_forged_time_or_user_is_a_finding_and_never_shown(three, field, forged):
    lines = three.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), field: forged})
    three.write_text("\n".join(lines) + "\n")
    trail = verify(three)
    assert "line 2 was cut off, or is none of this log's" in trail.findings
    assert [entry.num for entry in trail.entries] == [1, 3]


@pytest.mark.parametrize("gone", [0, 1])
def test_a_removed_line_is_found(three, gone):
    lines = three.read_bytes().splitlines(keepends=True)
    three.write_bytes(b"".join(line for num, line in enumerate(lines) if num != gone))
    assert len(verify(three).findings) == 1


def test_lines_cut_off_the_end_change_the_head(three):
    head = verify(three).head
    three.write_bytes(b"".join(three.read_bytes().splitlines(keepends=True)[:-1]))
    assert verify(three).head != head


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_torn_last_line_is_reported_and_stays_as_it_is(three, cut):
    torn = three.read_bytes()[: -1 - cut]
    three.write_bytes(torn)
    assert verify(three).findings == ("line 3 was cut off, or is none of this log's",)
    AuditLog(three).write("leave", plan=PLAN)
    trail = verify(three)
    assert three.read_bytes().startswith(torn + b"\n{")
    assert [entry.action for entry in trail.entries] == ["init", "approve", "leave"]
    assert trail.findings == ("line 3 was cut off, or is none of this log's",)


def test_a_last_line_that_lacks_its_end_only_is_no_finding(three):
    three.write_bytes(three.read_bytes()[:-1])
    assert verify(three).findings == ()
    AuditLog(three).write("erase")
    assert (len(verify(three).entries), verify(three).findings) == (4, ())


def test_several_processes_append_one_chain(path, children):
    def work():
        for _ in range(25):
            AuditLog(path).write("erase")

    ids = [children.fork(work) for _ in range(4)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ids] == [0] * 4
    trail = verify(path)
    assert (len(trail.entries), trail.findings) == (100, ())


def test_a_log_that_is_not_there_is_said_to_be_missing(path):
    with pytest.raises(DataError, match="nothing was done here yet"):
        verify(path)


def test_a_line_longer_than_the_last_kilobytes_is_still_followed(three):
    with three.open("ab") as file:
        file.write(b"x" * 50_000 + b"\n")
    AuditLog(three).write("erase")
    assert verify(three).findings == ("line 4 was cut off, or is none of this log's",)


@given(st.binary(max_size=300))
def test_reading_whatever_bytes_never_fails(tmp_path_factory, blob):
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    path.write_bytes(blob)
    AuditLog(path).write("erase")
    trail = verify(path)
    assert trail.entries[-1].action == "erase"
    assert path.read_bytes().startswith(blob)


@given(st.text(max_size=50))
def test_no_free_text_but_a_silos_name_fits_any_field(text):
    for fields in ACTIONS.values():
        for kind in fields.values():
            if kind != "silo" and KINDS[kind](text):
                assert text.isascii()
                assert text.isprintable()


def test_every_action_writes_all_its_fields(path):
    samples = {
        "silo": "alpha",
        "digest": PLAN,
        "word": "preflight",
        "address": "coordinator.example:9093",
        "decimal": "1.5",
        "count": 3,
        "seconds": 0.5,
        "place": "client/agent.py:10",
    }
    for action, fields in ACTIONS.items():
        AuditLog(path).write(action, **{name: samples[kind] for name, kind in fields.items()})
    assert [e.action for e in verify(path).entries] == list(ACTIONS)
    assert all(json.loads(line) for line in path.read_text().splitlines())
