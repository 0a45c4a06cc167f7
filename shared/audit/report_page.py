"""Facts -> one page without scripts that loads nothing; every text of them is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .losses import WHO
from .report_charts import bound_plot, loss_plot, spending_plot

Facts = Mapping[str, Any]

_STYLE = """
:root { --paper:#fdfcfa; --ink:#1d2326; --soft:#5c6669; --rule:#dfdcd5; --wash:#f3f1ec;
 --good:#00705f; --blue:#4457b8; --bad:#a35a00; --rest:#7b8588; }
@media (prefers-color-scheme: dark) { :root { --paper:#14181a; --ink:#e6e8e6; --soft:#9aa5a6;
 --rule:#2f3739; --wash:#1c2224; --good:#4fd1b3; --blue:#9aa8ff; --bad:#eaa54a; --rest:#87928f; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--paper); color:var(--ink);
 font:16px/1.55 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif; }
header, main, footer { max-width:62rem; margin:0 auto; padding:0 1.25rem; }
header { padding-top:2.5rem; } .brand { margin:0; color:var(--soft); font-size:.875rem; }
h1 { margin:.5rem 0 0; font-weight:600; font-size:clamp(1.4rem,1.1rem + 1.4vw,2rem);
 line-height:1.25; letter-spacing:-.015em; }
 h1.good { color:var(--good); } h1.bad { color:var(--bad); }
h2 { margin:0; font-size:1.125rem; font-weight:600; } p { margin:.5rem 0 0; }
.tiles { display:flex; flex-wrap:wrap; gap:1rem 2.75rem; margin:1.75rem 0 0; }
.tiles dl { margin:0; } .tiles dt { color:var(--soft); font-size:.8125rem; }
.tiles dd { margin:0; font-size:1.5rem; font-weight:600; line-height:1.25; }
.tiles dd + dd { font-size:.8125rem; font-weight:400; color:var(--soft); }
section { display:grid; grid-template-columns:minmax(0,15rem) minmax(0,1fr); gap:.5rem 2.5rem;
 margin-top:2.2rem; padding-top:1.3rem; border-top:1px solid var(--rule); }
section > .say p { color:var(--soft); font-size:.9063rem; } section > .show { min-width:0; }
.plain { background:var(--wash); border-radius:.5rem; padding:1.25rem; margin-top:1.75rem;
 display:grid; grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));
 gap:1.5rem 2.5rem; }
ul { margin:.4rem 0 0; padding-left:1.1rem; } li { margin-top:.4rem; overflow-wrap:anywhere; }
li.unknown { color:var(--soft); list-style:circle; }
.scroll { overflow-x:auto; } table { border-collapse:collapse; font-size:.875rem;
 font-variant-numeric:tabular-nums; margin-top:.6rem; }
th, td { padding:.34rem 1.1rem .34rem 0; text-align:right; vertical-align:top;
 border-bottom:1px solid var(--rule); } th { font-weight:600; color:var(--soft); }
th:first-child, td:first-child, td.text { text-align:left; overflow-wrap:anywhere; }
td.error { color:var(--bad); font-weight:600; }
code { display:block; padding:.7rem .9rem; background:var(--wash); border-radius:.4rem;
 font-size:.8125rem; overflow-wrap:anywhere; }
svg { display:block; width:100%; max-width:36rem; height:auto; margin-top:.4rem; }
svg text { font:12px ui-sans-serif,system-ui,sans-serif; fill:var(--ink); }
svg .tick { fill:var(--soft); font-size:11px; } svg .end { text-anchor:end; }
svg .middle { text-anchor:middle; } svg .grid { stroke:var(--rule); }
svg .line { fill:none; stroke-width:2.25; } svg .limit { stroke:var(--bad); stroke-dasharray:5 4; }
svg .c0 { stroke:var(--good); } svg .c1 { stroke:var(--blue); } svg .c2 { stroke:var(--bad); }
svg .c3 { stroke:var(--rest); } svg circle { fill:var(--paper); stroke-width:2; }
svg text.c0, svg text.c1, svg text.c2, svg text.c3 { stroke:none; font-weight:600; }
svg text.c0 { fill:var(--good); } svg text.c1 { fill:var(--blue); } svg text.c2 { fill:var(--bad); }
svg text.c3 { fill:var(--rest); }
svg .claim { fill:var(--rule); } svg .bound { fill:var(--good); } svg .beyond { fill:var(--bad); }
footer { margin-top:2.5rem; padding:1.1rem 1.25rem 3rem; color:var(--soft); font-size:.8125rem; }
@media (max-width:46rem) { section { grid-template-columns:minmax(0,1fr); } }
@media print { section, table, svg { break-inside:avoid; } }
"""


def page(facts: Facts) -> str:
    """Return the whole page."""
    plain = facts["plain"]
    mood = "good" if facts["holds"] and not facts["contradicted"] else "bad"
    parts = [
        f'<header><p class="brand">fondaco · privacy audit</p>'
        f'<h1 class="{mood}">{escape(plain["verdict"])}</h1>{_tiles(facts)}</header><main>',
        '<div class="plain">',
        *(f"<div><h2>{escape(t)}</h2>{_list(texts)}</div>" for t, texts in plain["sections"]),
        "</div>",
        _findings(facts),
        _spending(facts),
        *(_losses(plan) for plan in facts["plans"] if plan["losses"]),
        _attacks(facts),
        *(_answer(num, answer) for num, answer in enumerate(facts["answers"], start=1)),
        _repeat(facts),
        "</main><footer>Written by fondaco-audit from files alone; it saw no raw data. This page "
        "loads nothing from elsewhere.</footer>",
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += '<meta name="color-scheme" content="light dark"><title>Privacy audit</title>'
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _tiles(facts: Facts) -> str:
    errors = sum(found["severity"] == "error" for found in facts["findings"])
    tiles = [("Findings", str(errors), f"{len(facts['findings']) - errors} warnings")]
    if facts["plans"] and facts["plans"][-1]["epsilons"]["epsilon"] is not None:
        plan = facts["plans"][-1]
        value = f"ε = {plan['epsilons']['epsilon']:.2f}"
        tiles.insert(0, ("Certified", value, f"per customer, δ = {plan['target_delta']}"))
    records = sum(ledger["records"] for ledger in facts["ledgers"])
    tiles.append(("Ledgers", str(len(facts["ledgers"])), f"{records:,} records"))
    shares = [budget["share"] for ledger in facts["ledgers"] for budget in ledger["budgets"]]
    if shares:
        tiles.append(("Budget spent", f"{max(shares):.0%}", "of the silo that spent most"))
    cells = (
        f"<dl><dt>{escape(a)}</dt><dd>{escape(b)}</dd><dd>{escape(c)}</dd></dl>"
        for a, b, c in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _findings(facts: Facts) -> str:
    if not facts["findings"]:
        return ""
    rows = [
        f'<tr><td class="{escape(f["severity"])}">{escape(f["code"])}</td>'
        f'<td class="text">{escape(f["ledger"])}</td><td>{f["seq"] or ""}</td>'
        f'<td class="text">{escape(f["text"])}</td></tr>'
        for f in facts["findings"]
    ]
    table = _table(("kind", "ledger", "record", "what does not hold"), rows)
    return _section("Findings", "Warnings are for a person to look at.", table)


def _spending(facts: Facts) -> str:
    lines = [(led["silo"], led["spending"]) for led in facts["ledgers"] if led["spending"]]
    if not lines:
        return ""
    rows = [
        f"<tr><td>{escape(ledger['silo'])}</td><td>{budget['spent']:,}</td>"
        f"<td>{budget['budget']:,}</td><td>{budget['share']:.1%}</td>"
        f"<td>{budget['epsilon_spent']:.3f}</td></tr>"
        for ledger in facts["ledgers"]
        for budget in ledger["budgets"]
    ]
    head = ("silo", "spent [1e-9 RDP]", "of", "share", "ε as the filter counts")
    say = "Share of the plan's budget after each debit. No debit is ever handed back."
    return _section("Budget over time", say, spending_plot(lines) + _table(head, rows))


def _losses(plan: Facts) -> str:
    rows = [
        f"<tr><td>{escape(WHO[who])}</td>"
        + "".join(f"<td>{_num(row['tight'])}</td>" for row in plan["losses"] if row["who"] == who)
        + "</tr>"
        for who in WHO
    ]
    silos = sorted({row["k"] for row in plan["losses"]})
    head = ("ε if …", *(f"{k} silo{'s' if k > 1 else ''}" for k in silos))
    lines = {w: [r["tight"] for r in plan["losses"] if r["who"] == w] for w in WHO}
    say = f"A customer of several silos is released several times. Plan {plan['digest'][:19]}…"
    return _section("Epsilon by number of silos", say, loss_plot(lines) + _table(head, rows))


def _attacks(facts: Facts) -> str:
    if not facts["attacks"] or not facts["attacks"]["results"]:
        return ""
    results = facts["attacks"]["results"]
    rows = [
        f'<tr><td>{escape(str(r.get("attack")))}</td><td class="text">'
        f"{escape(str(r.get('target')))}</td><td>{_num(r.get('value'))}</td>"
        f"<td>{_num(r.get('claim_epsilon'))}</td><td>{escape(str(r.get('confidence')))}</td>"
        f'<td class="text">{escape(str(r.get("verdict")))}</td></tr>'
        for r in results
    ]
    head = ("attack", "target", "found", "claim ε", "confidence", "verdict")
    say = "What attacks found (filled) beside what is claimed (grey). Below is as it should be."
    return _section("Claim and practice", say, bound_plot(results) + _table(head, rows))


def _answer(number: int, answer: Facts) -> str:
    known = [f"<li>{escape(text)}</li>" for text in answer["known"]]
    unknown = [f'<li class="unknown">Unanswered: {escape(text)}</li>' for text in answer["unknown"]]
    body = f"<ul>{''.join([*known, *unknown])}</ul>"
    return _section(f"{number}. {answer['question']}", "", body)


def _repeat(facts: Facts) -> str:
    if not facts["command"]:
        return ""
    say = "Needs the same files and nothing else."
    return _section("To repeat it", say, f"<code>{escape(facts['command'])}</code>")


def _section(title: str, say: str, show: str) -> str:
    words = f"<p>{escape(say)}</p>" if say else ""
    return (
        f'<section><div class="say"><h2>{escape(title)}</h2>{words}</div>'
        f'<div class="show">{show}</div></section>'
    )


def _list(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _num(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "—"
