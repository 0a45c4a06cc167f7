"""The sequence model: what it predicts, what it attends to, and how its server moves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.client.dpsgd import check_network, factors
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.models import PublicFacts, Sizes, Timelines
from fondaco.shared.models.base import Released
from fondaco.shared.models.networks.base import load_parameters, network_scores
from fondaco.shared.models.sequence import SequenceModel, SequenceTerms
from fondaco.shared.records import GlobalModel
from fondaco.shared.vocabulary import Vocabulary

N_ITEMS, NOW = 5, 1000.0
HEAD = np.array([2, 0, 1, 3])
SIZES = Sizes(n_items=N_ITEMS, head=len(HEAD))
MODEL = SequenceModel()
N_FIXED = 12  # recency and gate, which come before the trend
EARLY, LATE = NOW - 90, NOW - 10
"""Before and within the window of 60 days."""


def _terms(**changes):
    return SequenceTerms(optimizer="dual-averaging", trend_rate=0.5, **changes)


@pytest.fixture(scope="module")
def facts():
    """Each head item leads to itself and a little to the next; item 4 is in no head."""
    floats = {name: np.zeros(len(HEAD)) for name in ("head_popularity", "gram_top", "spectrum")}
    floats |= {"gram_diagonal": np.ones(len(HEAD)), "gram_factors": np.ones((len(HEAD), 1))}
    floats |= {"kernel_weights": np.zeros(0), "noise_edge": np.zeros(()), "fusion": np.ones((4, 2))}
    floats |= {"popularity": np.array([5.0, 4, 3, 2, 1]), "noisy_popularity": np.zeros(N_ITEMS)}
    out = np.eye(N_ITEMS) + 0.5 * np.roll(np.eye(N_ITEMS), 1, axis=0)
    floats |= {"item_in": np.eye(len(HEAD)), "item_out": out[:, HEAD], "parameters": np.zeros(0)}
    catalogue = Catalogue(
        items=Vocabulary(tuple("abcde")),
        texts=("",) * N_ITEMS,
        categories=("",) * N_ITEMS,
        brands=("",) * N_ITEMS,
        prices=np.full(N_ITEMS, np.nan),
    )
    model = GlobalModel(
        plan_digest="sha256:plan",
        catalogue_digest=catalogue.digest,
        after_round=2,
        head=HEAD,
        **{name: values.astype(np.float32) for name, values in floats.items()},
    )
    return PublicFacts(catalogue=catalogue, model=model)


def _timelines(*histories, now=NOW, assortment=None):
    rows = np.array([row for rows in histories for row in rows], dtype=float).reshape(-1, 2)
    return Timelines(
        indptr=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        item_nums=rows[:, 0].astype(np.int64),
        times=rows[:, 1],
        now=now,
        n_items=N_ITEMS,
        assortment=assortment,
    )


def _network(facts, terms=None):
    terms = terms or _terms()
    network = MODEL.network(terms, facts)
    load_parameters(network, MODEL.initial(terms, facts))
    return network


def _scores(facts, *histories, parameters=None, terms=None, **about):
    terms = terms or _terms()
    start = MODEL.initial(terms, facts) if parameters is None else parameters
    return network_scores(MODEL.network(terms, facts), start, _timelines(*histories, **about))


def _targets(facts, *histories, **about):
    found = _network(facts).encode(_timelines(*histories, **about))["targets"].tolist()
    return [[item for item in row if item < N_ITEMS] for row in found]


def test_targets_are_the_windows_new_items_each_once(facts):
    mine = [(0, EARLY), (0, LATE), (1, LATE), (1, LATE), (3, NOW - 60)]
    assert _targets(facts, mine, [], [(2, EARLY)], [(4, LATE)]) == [[1, 3], [], [], [4]]


def test_without_a_clock_the_last_fifth_of_the_rows_is_predicted(facts):
    six = [(0, 0), (1, 1), (0, 2), (1, 3), (3, 4), (2, 5)]
    assert _targets(facts, six, [(0, 9)], [(0, 3), (1, 4)], now=np.inf) == [[2, 3], [], [1]]


def test_without_a_clock_only_order_counts(facts):
    history = [(0, 0.0), (1, 1.0), (2, 5.0), (0, 6.0)]
    stretched = [(item, 100.0 * time**2) for item, time in history]
    found = _scores(facts, history, stretched, now=np.inf)
    np.testing.assert_array_equal(found[0], found[1])
    batch = _network(facts).encode(_timelines(history, stretched, now=np.inf))
    assert torch.isfinite(batch["now_features"]).all()


def test_losses_see_the_past_and_scores_the_whole(facts):
    batch = _network(facts).encode(_timelines([(0, EARLY), (1, LATE)]))
    there = {moment: (batch[f"{moment}_places"] < len(HEAD)).sum() for moment in ("then", "now")}
    assert there == {"then": 1, "now": 2}
    assert batch["then_features"][0, 0, 0] == pytest.approx(0.3)  # 30 of 100 days before the window


def test_loss_by_hand(facts):
    """Trend alone: without a history in the head, popularity is what the softmax starts from."""
    network = _network(facts)
    batch = network.encode(_timelines([(4, EARLY), (0, LATE)], [(4, EARLY)]))
    scores = network.popularity[:4]  # item 4 was seen
    expected = torch.logsumexp(scores, 0) - scores[0]
    np.testing.assert_allclose(network.losses(batch).detach(), [expected, 0.0], rtol=1e-5)


def test_customer_without_target_has_no_gradient(facts):
    network = _network(facts)
    timelines = _timelines([], [(0, EARLY), (1, EARLY)], [(0, EARLY), (0, LATE)])
    parts = factors(network, network.encode(timelines))
    assert [float(part.squared_norms().sum()) for part in parts] == [0.0, 0.0, 0.0]


def test_every_customer_with_a_target_is_clipped_to_one_length(facts):
    """However many targets: the default bound lies far below any such gradient."""
    network = _network(facts)
    timelines = _timelines([(0, LATE)], [(3, EARLY), (0, LATE), (1, LATE), (2, LATE)])
    parts = factors(network, network.encode(timelines))
    norms = np.sqrt(sum(part.squared_norms() for part in parts))
    assert np.all(norms > 100 * SequenceTerms().clip_norm)


def test_recent_items_weigh_more(facts):
    """Two items 60 days apart: by the half-life, what the newer leads to scores higher."""
    found = _scores(facts, [(0, NOW - 70), (2, NOW - 10)], [(2, NOW - 70), (0, NOW - 10)])
    assert found[0, 2] > found[0, 0]
    assert found[1, 0] > found[1, 2]


def test_only_the_latest_items_are_attended_to(facts):
    short = _terms(length=2)
    found = _scores(facts, [(0, 1), (1, 2), (3, 3)], [(1, 2), (3, 3)], terms=short)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_customer_without_head_items_gets_popularity_and_trend(facts):
    moved = MODEL.initial(_terms(), facts)
    moved[N_FIXED + 4] = 9.0
    before, after = (_scores(facts, [], [(4, LATE)], parameters=p) for p in (None, moved))
    for row in before:
        assert np.argsort(-row).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(after - before, [[0, 0, 0, 0, 9]] * 2, atol=1e-6)


def test_what_a_silo_does_not_sell_is_no_target_and_no_alternative(facts):
    sold = np.array([True, True, False, True, True])
    history = [(0, EARLY), (1, LATE), (2, LATE)]
    assert _targets(facts, history, assortment=sold) == [[1]]
    network = _network(facts)
    trend = factors(network, network.encode(_timelines(history, assortment=sold)))[-1]
    pull = trend.deltas[0, 0]
    assert pull[2] == 0.0
    assert pull[0] == 0.0  # had before
    assert pull[1] < 0.0 < pull[3]


ROW = st.tuples(st.integers(0, N_ITEMS - 1), st.integers(0, 120).map(lambda ago: NOW - ago))
HISTORIES = st.lists(st.lists(ROW, max_size=9).map(lambda r: sorted(r, key=lambda x: x[1])))


@given(HISTORIES)
@settings(max_examples=40, deadline=None)
def test_customers_never_meet(facts, histories):
    network = _network(facts)
    timelines = _timelines(*histories)
    losses = network.losses(network.encode(timelines)).detach().numpy()
    for user in range(timelines.n_users):
        alone = network.losses(network.encode(timelines.take(np.array([user]))))
        np.testing.assert_allclose(losses[user], alone.item(), atol=1e-5)
    assert np.all(np.isfinite(losses))


def test_query_starts_as_if_it_were_not_there(facts):
    wide = _terms(query_width=3)
    network = _network(facts, wide)
    check_network(network)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == MODEL.n_parameters(wide, SIZES) == len(MODEL.initial(wide, facts))
    history = [(0, EARLY), (2, LATE)]
    np.testing.assert_allclose(
        _scores(facts, history, terms=wide), _scores(facts, history), atol=1e-6
    )
    batch = network.encode(_timelines([(0, EARLY), (3, EARLY), (1, LATE)]))
    pulled = [part.squared_norms().sum() > 0 for part in factors(network, batch)]
    assert pulled == [True, True, False, True, True]  # the key moves once the query has


def _released(facts, *totals, noise=1.0):
    size = MODEL.n_parameters(_terms(), SIZES)
    return [
        Released(total=np.broadcast_to(t, size).astype(float), noise_stddev=noise) for t in totals
    ]


def _advance(facts, released, start=None, **changes):
    terms = _terms(**changes)
    parameters = MODEL.initial(terms, facts) if start is None else start
    return MODEL.advance(terms, facts, parameters, released)


def test_trend_moves_against_what_stands_out_of_the_noise(facts):
    total = np.zeros(MODEL.n_parameters(_terms(), SIZES))
    total[N_FIXED:] = [0.0, 0.9, -0.9, 5.0, -13.0]
    found = _advance(facts, _released(facts, total), rounds=6)
    expected = -0.5 / 6 * np.array([0.0, 0.0, 0.0, 4.0, -12.0])
    np.testing.assert_allclose(found[N_FIXED:], expected, rtol=1e-6)


def test_trend_is_solved_from_all_sums_and_their_joint_noise(facts):
    """Four sums of 1.5 with noise 1 each add up to 6 with noise 2; one alone to 0.5 above it."""
    released = _released(facts, 1.5, 1.5, 1.5, 1.5)
    parameters = MODEL.initial(_terms(), facts)
    for upto in range(1, 5):
        parameters = _advance(facts, released[:upto], parameters, rounds=4)
    np.testing.assert_allclose(parameters[N_FIXED:], -0.5 / 4 * (6 - 2), rtol=1e-5)


def test_trend_builds_upon_an_earlier_runs(facts):
    earlier = MODEL.initial(_terms(), facts) + np.float32(0.25)
    released = _released(facts, 3.0)
    gained = _advance(facts, released, earlier) - earlier
    np.testing.assert_allclose(gained, _advance(facts, released), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_other_layers_take_steps_of_a_set_length(facts, scale):
    """With one sum, and all numbers alike, every number of a layer moves by the layer's step."""
    found = _advance(facts, _released(facts, scale))
    np.testing.assert_allclose(found[:N_FIXED], [-1.5] * 8 + [-5.0] * 4, rtol=1e-4)


def test_steps_fade_out_in_the_second_half(facts):
    moves, parameters = [], MODEL.initial(_terms(), facts)
    released = _released(facts, *[1.0] * 6)
    for upto in range(1, 7):
        moved = _advance(facts, released[:upto], parameters, rounds=6)
        moves.append(float(parameters[0] - moved[0]))
        parameters = moved
    np.testing.assert_allclose(moves, 1.5 * np.array([1, 1, 1, 1, 2 / 3, 1 / 3]), rtol=1e-4)


def test_named_optimizer_moves_in_place_of_the_rule(facts):
    terms = SequenceTerms(optimizer="fedadam")
    assert MODEL.advance(terms, facts, MODEL.initial(terms, facts), _released(facts, 1.0)) is None


def test_trend_rate_follows_the_declared_customers():
    assert MODEL.resolve(SequenceTerms(), 1.0, 5000).trend_rate == 0.2
    assert MODEL.resolve(SequenceTerms(trend_rate=3.0), 1.0, 5000).trend_rate == 3.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_days": 0.0},
        {"half_life_days": -1.0},
        {"length": 0},
        {"query_width": -1},
        {"trend_rate": -0.1},
        {"optimizer": "adam"},
    ],
)
def test_terms_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SequenceTerms(**wrong)
