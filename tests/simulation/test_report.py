import copy
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from fondaco.shared.errors import ConfigError
from fondaco.simulation.report import (
    summary_frame,
    summary_table,
    write_comparison,
    write_report,
)
from fondaco.simulation.report_figures import SYSTEMS

EVIL = '<script>alert("1")</script>'


def _cell(mean):
    return {"mean": mean, "low": mean - 0.002, "high": mean + 0.002, "n": 500}


def _bare():
    means = {"fused": 0.165, "global": 0.159, "silo_alone": 0.15, "own_cf": 0.11, "popularity": 0.1}
    return {
        "schema": 1,
        "scenario": "market",
        "quality": {
            name: {"ndcg@20": _cell(m), "recall@20": _cell(m)} for name, m in means.items()
        },
    }


def _silo(num, silo_id):
    cells = {"silo_alone": 0.1, "global": 0.12, "fused": 0.13 - 0.001 * (num % 40)}
    figures = {name: {"ndcg@20": value} for name, value in cells.items()}
    return {"silo_id": silo_id, "n_customers": 20 + num, **figures}


def _full(n_silos=8):
    releases = [
        {"kind": "popularity", "round": 1, "noise_multiplier": 3.0, "share": 0.1, "rounds": 1},
        {"kind": "gram", "round": 2, "noise_multiplier": 1.0, "share": 0.9, "rounds": 1},
    ]
    return _bare() | {
        "headline": "ndcg@20",
        "seed": 0,
        "dataset": {"name": "market", "n_customers": 1234, "n_silos": n_silos},
        "privacy": {"epsilon": 4.0, "target_delta": 1e-5, "trust": "silo", "releases": releases},
        "epsilons": {"all_honest": 3.5, "masking_broken": 18.0, "silos": {"1": 4.0, "2": 6.25}},
        "plan": {"n_min": 7, "shares": {"popularity": 0.1, "gram": 0.9}},
        "spectrum": {"eigenvalues": [90.0, 30.0, 9.0, 5.0, -8.0], "noise_edge": 10.0},
        "per_silo": [_silo(num, f"silo-{num}") for num in range(n_silos)],
        "cold": {"customers": {"n": 9, "fused": {"ndcg@20": _cell(0.07)}}, "items": {}},
        "timings_s": {"gram_round": 1.5, "read": 0.25},
        "dropped": [{"silo_id": "late-one", "reason": "no answer within 600 s"}],
        "notes": ["the code list is declared public"],
        "peak_rss_bytes": 2**30,
    }


def _page(result, tmp_path):
    write_report(result, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


class _Balance(HTMLParser):
    """Collects tags that were opened and never closed, and every attribute."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "circle", "line", "rect", "polygon", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _parse(page):
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_report_says_what_silos_gained_and_at_which_epsilon(tmp_path):
    headline = re.search(r"<h1>(.*?)</h1>", _page(_full(), tmp_path)).group(1)
    text = re.sub(r"<[^>]*>", "", headline).replace("&nbsp;", " ")
    assert text == (
        "At ε = 4, silos together reach NDCG@20 of 0.1650: +10.0 % against the best each can do "
        "alone, +50.0 % against its own statistics."
    )


def test_report_shows_every_section(tmp_path):
    page = _page(_full(), tmp_path)
    for text in (
        "The two 95 % intervals do not overlap.",
        "90.0 %, noise 1",
        "a customer of 2 silos",
        "2 of 5 directions stand above the edge of 10",
        "Cold customers",
        "no answer within 600 s",
        "the code list is declared public",
        "It does not hide the totals of a whole silo",
        "1,024 MiB",
    ):
        assert text in page


def test_report_is_self_contained_and_well_formed(tmp_path):
    for result in (_full(), _full(200), _bare()):
        page = _page(result, tmp_path)
        parser = _parse(page)
        assert not {"script", "link", "img", "iframe", "object"} & parser.tags
        assert not [name for name, _ in parser.attributes if name in ("src", "href")]
        assert "http" not in page
        assert "url(" not in page


def test_report_charts_all_have_alternative_text(tmp_path):
    page = _page(_full(), tmp_path)
    labels = re.findall(r'<svg [^>]*role="img" aria-label="([^"]+)"', page)
    assert len(labels) == page.count("<svg") == 6


def test_report_is_deterministic(tmp_path):
    assert _page(_full(), tmp_path) == _page(copy.deepcopy(_full()), tmp_path)


def test_report_needs_nothing_but_quality(tmp_path):
    page = _page(_bare(), tmp_path)
    assert "Together, silos reach NDCG@20" in page
    assert "Who gains" not in page


@pytest.mark.parametrize("section", sorted(set(_full()) - {"quality"}))
def test_report_survives_any_missing_section(section, tmp_path):
    result = _full()
    del result[section]
    _parse(_page(result, tmp_path))


@pytest.mark.parametrize("section", ["fused", "global", "silo_alone", "own_cf"])
def test_report_survives_any_missing_system(section, tmp_path):
    result = _full()
    del result["quality"][section]
    for silo in result["per_silo"]:
        silo.pop(section, None)
    _parse(_page(result, tmp_path))


def test_report_refuses_a_result_without_quality(tmp_path):
    with pytest.raises(ConfigError, match="no `quality`"):
        write_report({"schema": 1}, tmp_path / "report.html")


def test_report_makes_html_in_ids_and_texts_harmless(tmp_path):
    result = _full()
    result |= {"scenario": EVIL, "notes": [EVIL], "dropped": [{"silo_id": EVIL, "reason": EVIL}]}
    result["per_silo"].append(_silo(9, EVIL))
    result["quality"][EVIL] = {EVIL: _cell(0.1)}
    result["cold"][EVIL] = {EVIL: {EVIL: _cell(0.1)}}
    result["timings_s"][EVIL] = 1.0
    result["plan"][EVIL] = EVIL
    result["epsilons"][EVIL] = EVIL
    result["dataset"]["n_silos"] = EVIL
    result["privacy"]["releases"][0]["kind"] = EVIL
    page = _page(result, tmp_path)
    assert "<script" not in page
    assert "&lt;script" in page
    _parse(page)


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ("masked-sum", "masks break, and each silo&#39;s share is seen alone"),
        ("simulated", "seen alone, as here: secure aggregation is only simulated"),
        ("none", "seen alone, as here: each adds all of the noise itself"),
        ("unheard of", "secure aggregation fails"),
    ],
)
def test_report_says_where_each_share_is_seen_alone(tmp_path, hidden, said):
    result = _full()
    result["privacy"]["secure_aggregation"] = hidden
    page = _page(result, tmp_path)
    assert said in page
    assert page.count("only simulated") == (hidden == "simulated")


def test_report_names_keys_and_ring_of_masks_alone(tmp_path):
    result = _full()
    result["plan"] |= {"key_agreement": "x25519", "ring_bits": 32}
    page = _page(result, tmp_path)
    assert "masks agreed by" in page
    assert "ring [bits]" in page
    result["plan"] |= {"key_agreement": "", "ring_bits": 0}
    page = _page(result, tmp_path)
    assert "masks agreed by" not in page
    assert "ring [bits]" not in page


def test_report_of_many_silos_draws_groups_and_lists_all(tmp_path):
    page = _page(_full(1000), tmp_path)
    assert "Fifths of the 1,000 silos, by number of customers" in page
    assert page.count("<td>silo-") == 1000
    assert page.count('class="mark alone"') == 5 + 1  # five groups and the overall figure
    assert len(page) < 400_000


def test_report_of_silos_without_sizes_still_groups_them(tmp_path):
    result = _full(100)
    for silo in result["per_silo"]:
        del silo["n_customers"]
    assert "silos 1 to 20" in _page(result, tmp_path)


def test_report_shows_a_loss_as_a_loss(tmp_path):
    result = _full()
    result["quality"]["fused"]["ndcg@20"] = {"mean": 0.135, "low": None, "high": None, "n": 5}
    page = _page(result, tmp_path)
    assert "\u221210.0 %" in page
    assert "intervals do not overlap" not in page


def test_report_treats_nan_and_none_as_no_figure(tmp_path):
    result = _full()
    result["quality"]["global"]["ndcg@20"] = {"mean": float("nan"), "low": None, "high": None}
    result["per_silo"][0]["fused"] = {"ndcg@20": None}
    page = _page(result, tmp_path)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_comparison_draws_curves_and_reference_lines(tmp_path):
    runs = []
    for epsilon in (8.0, 1.0, 4.0):
        run = _full()
        run["privacy"]["epsilon"] = epsilon
        run["quality"]["fused"]["ndcg@20"] = _cell(0.15 + 0.003 * epsilon)
        runs.append(run)
    write_comparison(runs, tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    _parse(page)
    assert "from ε = 1 to 8" in page
    assert page.count('class="curve') == 2
    assert page.count('class="reference') == 2
    assert "<b>+2.0 %</b> at ε&nbsp;=&nbsp;1" in page
    assert "http" not in page


def test_comparison_of_one_run_still_draws(tmp_path):
    write_comparison([_full()], tmp_path / "c.html")
    _parse((tmp_path / "c.html").read_text(encoding="utf-8"))


def test_comparison_refuses_nothing_and_runs_without_epsilon(tmp_path):
    with pytest.raises(ConfigError, match="at least one"):
        write_comparison([], tmp_path / "c.html")
    with pytest.raises(ConfigError, match="positive privacy"):
        write_comparison([_bare()], tmp_path / "c.html")


def test_summary_frame_has_one_row_per_system_and_metric():
    frame = summary_frame(_full())
    assert list(frame.columns) == ["system", "metric", "mean", "low", "high", "n"]
    assert len(frame) == 10
    first = frame.iloc[0]
    assert (first.system, first.metric, first["mean"]) == ("fused", "ndcg@20", 0.165)


def test_summary_table_prints_systems_with_the_headline_interval():
    console = Console(width=100)
    with console.capture() as captured:
        console.print(summary_table(_full()))
    assert re.search(r"fused\s+│ 0.1650 \[0.163, 0.167\] │\s+0.1650 │", captured.get())


METRICS = ("ndcg@20", "ndcg@10", "recall@10", "recall@20", "coverage@10", "novelty@10")


@pytest.mark.parametrize("headline", ["ndcg@20", "ndcg@10", "novelty@10"])
def test_summary_table_shows_every_name_whole_in_eighty_columns(headline):
    systems = [*SYSTEMS, "other"]
    quality = {system: {metric: _cell(0.1234) for metric in METRICS} for system in systems}
    console = Console(width=80)
    with console.capture() as captured:
        console.print(summary_table(_bare() | {"quality": quality, "headline": headline}))
    text = captured.get()
    assert "…" not in text
    for name in (*systems, headline, "ndcg@10", "recall@20", "coverage@10"):
        assert re.search(rf"\b{name}\b", text), name
    assert text.count("0.1234 [0.121, 0.125]") == len(systems)


def test_summary_table_escapes_markup_in_names():
    result = _bare()
    result["scenario"] = "[red]x[/nope]"
    result["quality"]["[/bad]"] = {"ndcg@20": _cell(np.float32(0.1))}
    console = Console(width=100)
    with console.capture() as captured:
        console.print(summary_table(result))
    assert "[/bad]" in captured.get()
