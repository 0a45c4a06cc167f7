import pytest

from fondaco.simulation.api import simulate

TINY = (
    "dataset.n_users=200",
    "dataset.n_items=40",
    "dataset.declared_users=200",
    "silos.count=2",
    "baselines=[]",
)


@pytest.fixture(scope="module", params=["true", "false"])
def study(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("repeats")
    return request.param, simulate(
        "synthetic", [*TINY, f"dataset.keep_repeats={request.param}"], out
    )


def test_items_of_the_history_come_back_only_where_repeats_count(study):
    keep, run = study
    silo = run._simulation.prepared.silos[0]
    user = silo.train.user_nums[0]
    taken = set(silo.train.item_nums[silo.train.user_nums == user].tolist())
    ids = run._simulation.prepared.market.catalogue.items
    shown = run.recommend(silo.silo_id, silo.user_ids[user], n=10)["item_id"]
    assert bool(taken & set(ids.nums(list(shown)).tolist())) == (keep == "true")


def test_parts_of_a_recommendation_add_up_to_its_score(study):
    _, run = study
    silo = run._simulation.prepared.silos[0]
    rows = run.recommend(silo.silo_id, silo.user_ids[0], n=5)
    total = rows["global"] + rows["own"] + rows["content"]
    assert (total - rows["score"]).abs().max() < 1e-3
