from dataclasses import replace

import numpy as np
import pytest

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.content_space import DIM, content_space
from fondaco.shared.errors import ConfigError
from fondaco.shared.models import MODELS, PublicFacts, Sizes, Timelines
from fondaco.shared.models.content_tower import ContentTowerTerms
from fondaco.shared.vocabulary import Vocabulary

TERMS = ContentTowerTerms(width=4)
TOWER = MODELS["content_tower"]
N_ITEMS = 24


def facts(n_items=N_ITEMS, prefix="i"):
    catalogue = Catalogue(
        items=Vocabulary(tuple(f"{prefix}{num:04d}" for num in range(n_items))),
        texts=tuple(f"kind{num % 6} word{num % 5}" for num in range(n_items)),
        categories=tuple(f"c{num % 6}" for num in range(n_items)),
        brands=("",) * n_items,
        prices=np.full(n_items, np.nan),
    )
    return PublicFacts(catalogue=catalogue, model=None)


FACTS = facts()


def timelines(*histories, n_items=N_ITEMS, sold=None):
    items = np.array([item for history in histories for item in history], dtype=np.int64)
    return Timelines(
        indptr=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        item_nums=items,
        times=np.arange(len(items), dtype=np.float64),
        now=np.inf,
        n_items=n_items,
        assortment=sold,
    )


def network(known=FACTS):
    """The network at its beginning."""
    from fondaco.shared.models.networks.base import load_parameters  # noqa: PLC0415  (torch)

    net = TOWER.network(TERMS, known)
    load_parameters(net, TOWER.initial(TERMS, known))
    return net


def losses(net, asked):
    return net.losses(net.encode(asked)).detach().numpy()


def test_parameters_do_not_grow_with_the_catalogue():
    sizes = [Sizes(n_items=n, head=min(n, 50)) for n in (24, 10_000_000)]
    assert {TOWER.n_parameters(TERMS, size) for size in sizes} == {DIM * (2 * TERMS.width + 1)}
    assert TOWER.initial(TERMS, FACTS).tolist() == TOWER.initial(TERMS, facts(90)).tolist()


def test_it_begins_as_likeness_to_the_mean_of_the_history():
    found = TOWER.scores(TERMS, FACTS, TOWER.initial(TERMS, FACTS), timelines([0, 1], []))
    vectors = content_space(FACTS.catalogue)
    mean = vectors[0] + vectors[1]
    likeness = TERMS.skip * vectors @ (mean / np.linalg.norm(mean))
    np.testing.assert_allclose(found[0], likeness, atol=1e-5)
    assert not found[1].any()


def test_items_that_are_not_sold_get_no_score():
    sold = np.arange(N_ITEMS) % 2 == 0
    start = TOWER.initial(TERMS, FACTS)
    some = TOWER.scores(TERMS, FACTS, start, timelines([0, 2], sold=sold))
    everything = TOWER.scores(TERMS, FACTS, start, timelines([0, 2]))
    assert np.isnan(some[:, ~sold]).all()
    np.testing.assert_array_equal(some[:, sold], everything[:, sold])


def test_parameters_carry_over_to_a_catalogue_of_other_items():
    learned = np.random.default_rng(0).normal(size=DIM * 9).astype(np.float32)
    other = facts(50, prefix="other")
    found = TOWER.scores(TERMS, other, learned, timelines([40, 41], n_items=50))
    assert found.shape == (1, 50)
    assert np.isfinite(found).all()


def test_loss_is_the_cross_entropy_of_each_half_seen_from_the_other():
    net, asked = network(), timelines([0, 1, 2, 7, 9])
    batch = net.encode(asked)
    vectors = content_space(FACTS.catalogue)
    by_hand = []
    for half in range(2):
        logits = TERMS.skip * vectors @ batch["shown"][0, half].numpy()
        target = TERMS.skip * batch["shown"][0, half].numpy() @ batch["hidden"][0, half].numpy()
        by_hand.append(np.log(np.exp(logits).sum()) - target)
    assert batch["counts"].tolist() == [[1.0, 1.0]]
    assert losses(net, asked)[0] == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_both_halves_together_are_the_history():
    batch = network().encode(timelines([0, 1, 2, 7, 9], [3], []))
    assert batch["counts"].sum(dim=1).tolist() == [2.0, 1.0, 0.0]
    vectors = content_space(FACTS.catalogue)
    np.testing.assert_allclose(batch["hidden"][1].sum(dim=0), vectors[3], atol=1e-6)


def test_a_customer_without_items_has_no_loss():
    assert losses(network(), timelines([], [0, 5])).tolist()[0] == 0.0


def test_loss_reads_the_silos_own_items_only():
    sold = np.arange(N_ITEMS) < 12
    wide, narrow = timelines([0, 1, 2]), timelines([0, 1, 2], sold=sold)
    assert losses(network(), narrow)[0] < losses(network(), wide)[0]


def test_loss_over_a_large_assortment_is_normalised_over_a_public_part():
    known = facts(3000)
    net, asked = network(known=known), timelines([0, 1, 2], n_items=3000)
    sold = np.ones(3000, dtype=bool)
    again = losses(net, replace(asked, assortment=sold))
    np.testing.assert_array_equal(losses(net, asked), again)
    assert losses(net, asked)[0] < np.log(1024) + 4 * TERMS.skip


@pytest.mark.parametrize("change", [{"width": 0}, {"width": 257}, {"skip": -1.0}])
def test_terms_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        ContentTowerTerms(**change)
