import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.simulation import charts
from fondaco.simulation.charts import Estimate, Line

EVIL = '"><script>x</script>'


def _estimate(mean, kind="fused", label="x", half=0.01):
    return Estimate(label=label, kind=kind, mean=mean, low=mean - half, high=mean + half)


def _coordinates(svg):
    return [float(v) for v in re.findall(r'\b(?:cx|x1|x2|x)="([^"]+)"', svg)]


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_are_ascending_and_inside_the_axis(low, length):
    axis = charts._Axis(low, low + length, 0, 100)
    ticks = axis.ticks()
    slack = 1e-6 * length
    assert 2 <= len(ticks) <= 7
    assert all(low - slack <= tick <= low + length + slack for tick in ticks)
    assert ticks == sorted(ticks)


@given(st.floats(1e-3, 1e3), st.floats(2, 1e6))
def test_log_ticks_are_inside_the_axis(low, ratio):
    axis = charts._Axis(low, low * ratio, 0, 100, log=True)
    assert all(low <= tick <= low * ratio for tick in axis.ticks())


def test_axis_maps_its_ends_and_clamps_beyond():
    axis = charts._Axis(1.0, 100.0, 10.0, 50.0, log=True)
    assert [axis(v) for v in (0.0, 1.0, 10.0, 100.0, 1e6)] == [10.0, 10.0, 30.0, 50.0, 50.0]


@given(st.lists(st.floats(0, 300), min_size=1, max_size=8).map(sorted))
def test_spread_keeps_order_and_distance(ys):
    placed = charts._spread(ys, 14.0)
    assert len(placed) == len(ys)
    assert all(b - a >= 14.0 - 1e-6 for a, b in pairwise(placed))


def test_spread_leaves_distant_labels_alone():
    assert charts._spread([10.0, 50.0, 90.0], 14.0) == [10.0, 50.0, 90.0]


def test_interval_plot_draws_one_mark_and_whisker_per_row_inside_the_drawing():
    svg = charts.interval_plot([_estimate(0.1), _estimate(0.3, "global"), _estimate(0.2)], "alt")
    assert svg.count('class="mark') == svg.count('class="whisker') == 3
    assert all(0 <= v <= charts.WIDTH for v in _coordinates(svg))


def test_interval_plot_leaves_out_unknown_intervals():
    svg = charts.interval_plot([Estimate(label="x", kind="rest", mean=0.4)], "alt")
    assert "whisker" not in svg
    assert ">0.4000<" in svg


def test_silo_plot_leaves_out_unknown_figures():
    marks = [_estimate(0.1, "alone"), _estimate(math.nan, "global"), _estimate(0.2)]
    svg = charts.silo_plot([("a", marks), ("b", [_estimate(math.nan)])], "alt")
    assert svg.count('class="mark') == 2
    assert "nan" not in svg


def test_silo_plot_shortens_long_names_and_keeps_them_as_a_tooltip():
    svg = charts.silo_plot([("a" * 30, [_estimate(0.1)])], "alt")
    assert f"{'a' * 16}…<title>{'a' * 30}</title>" in svg


def test_gain_scatter_colours_losses_apart():
    svg = charts.gain_scatter([20, 50, 2000], [0.01, -0.02, 0.0], "alt")
    assert svg.count('class="dot fused"') == 2
    assert svg.count('class="dot alone"') == 1


def test_spectrum_plot_marks_what_stands_above_the_edge():
    svg = charts.spectrum_plot([50.0, 20.0, 9.0, -30.0], 10.0, "alt")
    assert svg.count('class="dot fused"') == 2
    assert svg.count('class="dot rest"') == 1


@pytest.mark.parametrize("values", [[], [-1.0], [3.0]])
def test_spectrum_plot_survives_few_or_no_positive_values(values):
    assert charts.spectrum_plot(values, 2.0, "alt").count("<svg") == 1


def test_spectrum_plot_of_a_large_head_stays_small():
    assert len(charts.spectrum_plot([5000.0 - i for i in range(5000)], 100.0, "alt")) < 30_000


def test_bar_plot_scales_bars_to_their_values():
    svg = charts.bar_plot([("a", 1.0, "1"), ("b", 4.0, "4")], "alt")
    narrow, wide = (float(w) for w in re.findall(r'width="([^"]+)"', svg))
    assert wide == pytest.approx(4 * narrow, rel=0.01)


def test_line_plot_moves_curves_aside_so_that_intervals_stay_visible():
    lines = [Line(label=n, kind=n, points=[_estimate(0.1, n)] * 2) for n in ("fused", "global")]
    svg = charts.line_plot([1.0, 2.0], lines, [], "alt")
    first, second = re.findall(r'<polyline class="curve \w+" points="([^,]+),', svg)
    assert float(second) - float(first) == pytest.approx(4.0)


def test_number_shows_a_dash_for_nan_and_a_true_minus():
    assert charts.number(math.nan) == "—"
    assert charts.number(-0.5) == "\u22120.5000"


def test_every_chart_escapes_labels_and_alternative_text():
    bad = _estimate(0.1, label=EVIL)
    drawn = [
        charts.interval_plot([bad], EVIL),
        charts.silo_plot([(EVIL, [bad])], EVIL),
        charts.gain_scatter([20], [0.1], EVIL),
        charts.spectrum_plot([3.0], 1.0, EVIL),
        charts.bar_plot([(EVIL, 1.0, EVIL)], EVIL),
        charts.line_plot([1.0], [Line(label=EVIL, kind="fused", points=[bad])], [bad], EVIL),
    ]
    for svg in drawn:
        assert "<script" not in svg
        assert svg.count("<svg ") == 1
