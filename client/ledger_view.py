"""An owner's ledger for a person: what is left, what was spent, what was refused."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fondaco.shared.errors import ConfigError, DataError
from fondaco.shared.files import write_durably
from fondaco.shared.privacy.ledger import Ledger

TYPES = (
    *("GENESIS", "POLICY", "PLAN", "DEBIT", "RELEASE", "UNMASK"),
    *("REFUSAL", "COSIGN", "ERASURE", "AUDIT", "KEYROT"),
)
_DULL = ("plan", "witnessed", "event")


def known_types(texts: Collection[str]) -> set[str]:
    """Return types of records as ledgers write them.

    Raises:
        ConfigError: no record has such a type.
    """
    for text in texts:
        if text.upper() not in TYPES:
            raise ConfigError(f"no record has the type {text!r}; known: {' '.join(TYPES)}")
    return {text.upper() for text in texts}


def ledger_facts(ledger: Ledger, only: Collection[str] = ()) -> dict[str, Any]:
    """Return what the owner sees, as plain values; `only` keeps records of these types."""
    records = [dict(record) for record in ledger.records()]
    plans = [record for record in records if record["type"] == "PLAN"]
    newest = plans[-1] if plans else None
    return {
        "silo_id": ledger.silo_id,
        "head": ledger.chain.head.as_text(),
        "counts": dict(Counter(record["type"] for record in records)),
        "plan": None if newest is None else _plan_facts(newest, records),
        "records": [r for r in records if not only or r["type"] in only],
    }


def show_ledger(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the facts as a table, with what is left under it."""
    table = Table("", "time", "type", "what", title=escape(facts["silo_id"]), box=None)
    for record in facts["records"]:
        line = [str(record["seq"]), record["ts"], record["type"], escape(_words(record))]
        table.add_row(*line)
    console.print(table)
    plan = facts["plan"]
    if plan is None:
        console.print("no plan was approved yet")
        return
    state = "in force" if plan["in_force"] else "withdrawn"
    console.print(
        f"plan {plan['digest'][:19]} ({state}): {plan['left']} of epsilon {plan['epsilon']} left, "
        f"until {plan['expires']}"
    )


def export_lines(ledger: Ledger, path: Path) -> None:
    """Write every record as one line of JSON, for an auditor.

    Raises:
        ConfigError: there is a folder of this name.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file to export to")
    write_durably(path, "".join(f"{line}\n" for line in ledger.chain.lines()).encode())


def read_lines(path: Path) -> list[str]:
    """Return the records of an export.

    Raises:
        DataError: it is no text.
    """
    try:
        return path.read_bytes().decode().rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no exported ledger: {error}") from None


def note_audit(ledger: Ledger, path: Path) -> None:
    """Write an audit's verdict into the ledger.

    Raises:
        DataError: the file is no report of `fondaco-audit report`.
    """
    blob = path.read_bytes()
    try:
        verdict = json.loads(blob)["verdict"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is no report.json of fondaco-audit") from None
    ledger.note_audit(blob, str(verdict), "the owner")


def _plan_facts(newest: Mapping[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    digest, plan = newest["plan_digest"], newest["plan"]
    spent = sum(r["cost"] for r in records if r["type"] == "DEBIT" and r["plan_digest"] == digest)
    left = (1 - spent / plan["budget_units"]) * float(plan["target_epsilon"])
    return {
        "digest": digest,
        "in_force": bool(newest["approved"]),
        "epsilon": plan["target_epsilon"],
        "left": f"{left:.2f}",
        "expires": plan["expires"],
    }


def _words(record: Mapping[str, Any]) -> str:
    """Say in a few words what a record records."""
    whole = {k: v for k, v in record.items() if k not in (*_DULL, "seq", "ts", "type")}
    short = {
        "DEBIT": ("kind", "round_num", "attempt", "cost", "left"),
        "RELEASE": ("kind", "round_num", "attempt", "size_bytes"),
        "REFUSAL": ("kind", "round_num", "code", "reason"),
        "PLAN": ("plan_digest", "approved", "epsilon", "reason"),
        "POLICY": ("policy",),
        "COSIGN": ("heads",),
    }.get(record["type"], tuple(whole))
    return ", ".join(f"{name.replace('_', ' ')} {_text(record[name])}" for name in short)


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{head['origin']}@{head['size']}" for head in value)
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."  # noqa: PLR2004
