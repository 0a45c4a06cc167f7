"""Per-customer gradients: Opacus is the oracle of every number, the core of every norm."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample.embedding_norm_sample import compute_embedding_norm_sample
from torch import nn

from fondaco.client import dpsgd
from fondaco.client.dpsgd import (
    DistinctEmbedding,
    LocalSteps,
    check_network,
    clipped_gradient,
    factors,
    ghost_norms,
    rows_by_hooks,
)
from fondaco.shared.errors import ConfigError
from fondaco.shared.models import Timelines
from fondaco.shared.models.networks.base import Network, load_parameters
from fondaco.shared.privacy.gradients import Factors, GradientSum
from fondaco.shared.privacy.noise import NoiseStream

# Opacus' hooks sit on the first layer too, whose inputs are data and need no gradient.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")

N_ITEMS, GRID = 6, 2**20


class Dense(Network):
    """Two layers over a customer's whole history, one row each."""

    def __init__(self, *, bias=True):
        super().__init__()
        self.first = nn.Linear(N_ITEMS, 4, bias=bias)
        self.second = nn.Linear(4, N_ITEMS, bias=bias)

    def encode(self, timelines):
        return {"history": torch.from_numpy(timelines.incidence().toarray())}

    def losses(self, batch):
        history = batch["history"]
        return -(history * torch.log_softmax(self.scores(batch), dim=1)).sum(dim=1)

    def scores(self, batch):
        return self.second(torch.tanh(self.first(batch["history"])))


class Positions(Network):
    """The same over three positions: inputs and outputs have a dimension of time."""

    def __init__(self, *, bias=True):
        super().__init__()
        self.first = nn.Linear(N_ITEMS, 4, bias=bias)
        self.second = nn.Linear(4, 2, bias=bias)

    def encode(self, timelines):
        history = torch.from_numpy(timelines.incidence().toarray())
        return {"steps": torch.stack([history, history.flip(1), history.cumsum(1)], dim=1)}

    def losses(self, batch):
        return (torch.tanh(self.second(torch.tanh(self.first(batch["steps"])))) ** 2).sum((1, 2))

    def scores(self, batch):
        return batch["steps"].sum(dim=1)


NETWORKS = {
    "dense": Dense,
    "dense without biases": lambda: Dense(bias=False),
    "positions": Positions,
    "positions without biases": lambda: Positions(bias=False),
}
each_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())


def _ready(network, seed=0):
    """The network with reproducible parameters."""
    count = sum(p.numel() for p in network.parameters())
    load_parameters(network, np.random.default_rng(seed).normal(0, 0.7, count))
    return network


def _timelines(histories):
    lengths = [len(history) for history in histories]
    items = np.array([item for history in histories for item in history], dtype=np.int64)
    return Timelines(
        indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        item_nums=items,
        times=np.arange(len(items), dtype=np.float64),
        now=np.inf,
        n_items=N_ITEMS,
    )


HISTORIES = [[0, 1], [], [5], [0, 1, 2, 3, 4, 5], [2, 2, 2], [3, 1]]
CUSTOMERS = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=8), min_size=1, max_size=6)


def _rows(parts):
    """(n_users, n_parameters) of per-customer gradients in factors."""
    n_users = len(parts[0].deltas)
    wide = [np.einsum("uto,uti->uoi", p.deltas, p.inputs).reshape(n_users, -1) for p in parts]
    return np.concatenate(wide, axis=1)


def _everybody(n_users):
    return NoiseStream.seeded(0).sample(n_users, 1_000_000)


def _clipped(network, timelines, users=None, clip_norm=1e-3, route="factors"):
    parameters = np.concatenate([p.detach().numpy().ravel() for p in network.parameters()])
    sample = _everybody(timelines.n_users)
    total = GradientSum(len(parameters), clip_norm, GRID, sample)
    users = sample.user_nums if users is None else np.array(users, dtype=np.int64)
    return clipped_gradient(network, parameters, timelines, total, users, route=route).values


# the two routes


@each_network
@settings(deadline=None, max_examples=25)
@given(histories=CUSTOMERS, seed=st.integers(0, 100))
def test_factors_equal_opacus_hooks(make, histories, seed):
    network = _ready(make(), seed)
    batch = network.encode(_timelines(histories))
    found, oracle = _rows(factors(network, batch)), _rows(rows_by_hooks(network, batch))
    assert found.shape == oracle.shape
    np.testing.assert_allclose(found, oracle, atol=1e-6, rtol=1e-6)


@each_network
def test_factors_add_up_to_autograds_gradient(make):
    network = _ready(make())
    batch = network.encode(_timelines(HISTORIES))
    found = _rows(factors(network, batch)).sum(axis=0)
    grads = torch.autograd.grad(network.losses(batch).sum(), list(network.parameters()))
    expected = np.concatenate([grad.numpy().ravel() for grad in grads])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@each_network
def test_ghost_norms_equal_the_cores(make):
    network = _ready(make())
    batch = network.encode(_timelines(HISTORIES))
    parts = [part.in_float64() for part in factors(network, batch)]
    core = np.sqrt(sum(part.squared_norms() for part in parts))
    ghost = ghost_norms(network, batch)
    assert np.all(core >= ghost * (1 - 1e-5))
    np.testing.assert_allclose(core, ghost, atol=1e-5, rtol=1e-3)


@each_network
def test_both_routes_give_the_same_clipped_sum(make):
    """Up to what the core adds to norms of several positions, which may cancel."""
    network, timelines = _ready(make()), _timelines(HISTORIES)
    one, other = (_clipped(network, timelines, route=route) for route in dpsgd.ROUTES)
    np.testing.assert_allclose(one, other, atol=GRID * 1e-3)


@each_network
def test_routes_leave_the_network_as_it_was(make):
    network = _ready(make())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = network.encode(_timelines(HISTORIES))
    for route in dpsgd.ROUTES.values():
        route(network, batch)
    ghost_norms(network, batch)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
    assert not any(hasattr(p, "grad_sample") for p in network.parameters())


@each_network
def test_a_route_that_failed_leaves_the_network_usable(make, monkeypatch):
    network = _ready(make())
    batch = network.encode(_timelines(HISTORIES))
    good = _rows(factors(network, batch))
    with monkeypatch.context() as patched:
        patched.setattr(network, "losses", lambda batch: torch.zeros(6, requires_grad=True))
        with pytest.raises(ConfigError, match="takes no part"):
            factors(network, batch)
    assert np.array_equal(_rows(factors(network, batch)), good)


# what is refused


class _Spoilt(Dense):
    """A network that also holds `layer`."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer


SPOILT = {
    "EmbeddingBag": (nn.EmbeddingBag(3, 2), "repeated ids"),
    "Embedding": (nn.Embedding(3, 2), "only nn.Linear"),
    "DistinctEmbedding": (DistinctEmbedding(3, 2), "only nn.Linear"),
    "BatchNorm": (nn.BatchNorm1d(4), "couples customers"),
    "BatchNorm without parameters": (nn.BatchNorm1d(4, affine=False), "couples customers"),
    "InstanceNorm": (nn.InstanceNorm1d(4), "couples customers"),
    "LayerNorm": (nn.LayerNorm(4), "only nn.Linear"),
    "GRU": (nn.GRU(3, 2), "only nn.Linear"),
    "MultiheadAttention": (nn.MultiheadAttention(4, 1), "only nn.Linear"),
    "Conv1d": (nn.Conv1d(1, 1, 1), "only nn.Linear"),
    "PReLU": (nn.PReLU(), "only nn.Linear"),
    "a Linear of another kind": (type("Odd", (nn.Linear,), {})(2, 2), "only nn.Linear"),
    "nested": (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "layer.1"),
}


@pytest.mark.parametrize(("layer", "hint"), SPOILT.values(), ids=SPOILT.keys())
def test_what_would_be_measured_wrongly_is_refused(layer, hint):
    with pytest.raises(ConfigError, match=hint):
        check_network(_Spoilt(layer))


def test_parameters_of_its_own_are_refused():
    network = Dense()
    network.temperature = nn.Parameter(torch.ones(1))
    with pytest.raises(ConfigError, match=r"only nn\.Linear may"):
        check_network(network)


def test_tied_weights_are_refused():
    network = Dense(bias=False)
    network.second = nn.Linear(4, N_ITEMS, bias=False)
    network.third = nn.Linear(N_ITEMS, 4, bias=False)
    network.third.weight = network.first.weight
    with pytest.raises(ConfigError, match="tied"):
        check_network(network)


@pytest.mark.parametrize("layer", [nn.LayerNorm(4, elementwise_affine=False), nn.Tanh()])
def test_layers_without_parameters_are_fine(layer):
    check_network(_Spoilt(layer))
    check_network(Positions())


class _Twice(Dense):
    def scores(self, batch):
        again = torch.tanh(self.first(self.second(torch.tanh(self.first(batch["history"])))))
        return self.second(again)


class _Unused(Dense):
    def scores(self, batch):
        return batch["history"] * self.first(batch["history"]).sum(dim=1, keepdim=True)


@pytest.mark.parametrize(("spoilt", "hint"), [(_Twice, "used twice"), (_Unused, "takes no part")])
def test_a_layer_used_twice_or_never_is_refused(spoilt, hint):
    network = _ready(spoilt())
    with pytest.raises(ConfigError, match=hint):
        factors(network, network.encode(_timelines(HISTORIES)))


# sums


@each_network
@pytest.mark.parametrize("route", dpsgd.ROUTES)
def test_an_empty_sample_gives_zeros(make, route):
    values = _clipped(_ready(make()), _timelines(HISTORIES), users=[], route=route)
    assert values.dtype == np.int64
    assert not values.any()


@each_network
@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_virtual_batches_give_the_sum_of_one_batch(make, at_once, monkeypatch):
    network, timelines = _ready(make()), _timelines(HISTORIES * 3)
    whole = _clipped(network, timelines)
    sizes, route = [], dpsgd.ROUTES["factors"]

    def seen(network, batch):
        sizes.append(len(next(iter(batch.values()))))
        return route(network, batch)

    monkeypatch.setattr(dpsgd, "ROUTES", {"factors": seen})
    monkeypatch.setattr(dpsgd, "CELLS", at_once * network.cells_per_user)
    np.testing.assert_allclose(_clipped(network, timelines), whole, atol=GRID * 1e-6)
    assert max(sizes) <= at_once
    assert sum(sizes) == 18


def test_a_network_larger_than_the_bound_is_worked_through_one_by_one(monkeypatch):
    network, timelines = _ready(Dense()), _timelines(HISTORIES)
    whole = _clipped(network, timelines)
    monkeypatch.setattr(dpsgd, "CELLS", 1)
    np.testing.assert_allclose(_clipped(network, timelines), whole, atol=GRID * 1e-6)


@each_network
def test_only_the_sampled_take_part(make):
    network = _ready(make())
    some = _clipped(network, _timelines(HISTORIES), users=[0, 3])
    alone = _clipped(network, _timelines([HISTORIES[0], HISTORIES[3]]))
    np.testing.assert_allclose(some, alone, atol=2)


@each_network
@settings(deadline=None, max_examples=25)
@given(history=st.lists(st.integers(0, N_ITEMS - 1), max_size=8), clip=st.floats(1e-6, 1e3))
def test_one_customer_never_exceeds_the_bound(make, history, clip):
    values = _clipped(_ready(make()), _timelines([history]), clip_norm=clip)
    assert np.linalg.norm(values.astype(float)) <= GRID


@each_network
def test_gradients_that_ran_away_count_as_zeros(make):
    network = make()
    count = sum(p.numel() for p in network.parameters())
    load_parameters(network, np.full(count, np.nan))
    assert not _clipped(network, _timelines(HISTORIES)).any()


# Opacus' parts


@settings(deadline=None, max_examples=40)
@given(st.lists(st.permutations(range(7)), min_size=1, max_size=5), st.integers(0, 10**6))
def test_distinct_embeddings_norm_is_opacus_own(orders, seed):
    ids = torch.tensor([order[:4] for order in orders])
    rng = np.random.default_rng(seed)
    backprops = torch.from_numpy(rng.normal(size=(len(orders), 4, 3)).astype(np.float32))
    layer = DistinctEmbedding(7, 3)
    ours = dpsgd._distinct_norms(layer, [ids], backprops)[layer.weight]
    theirs = compute_embedding_norm_sample(layer, [ids], backprops)[layer.weight]
    torch.testing.assert_close(ours, theirs.reshape(-1))


def test_distinct_embeddings_norm_is_too_small_for_repeated_ids():
    """Why it is registered for distinct ids alone: two gradients of one id add up."""
    layer, backprops = DistinctEmbedding(7, 3), torch.ones(1, 2, 3)
    ours, theirs = (
        norms(layer, [torch.tensor([[2, 2]])], backprops)[layer.weight].item()
        for norms in (dpsgd._distinct_norms, compute_embedding_norm_sample)
    )
    assert ours < theirs == pytest.approx(2 * 3**0.5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), rate=st.sampled_from([1e-3, 0.1]), divisor=st.integers(1, 500))
def test_local_steps_are_torchs_adam(seed, rate, divisor):
    rng = np.random.default_rng(seed)
    network, oracle = _ready(Dense(), seed), _ready(Dense(), seed)
    count = sum(p.numel() for p in network.parameters())
    start = rng.normal(size=count).astype(np.float32).astype(np.float64)
    load_parameters(oracle, start)
    adam = torch.optim.Adam(oracle.parameters(), lr=rate)
    steps, moved = LocalSteps(network, rate, float(divisor)), start
    for noisy in rng.normal(0, 50, (3, count)):
        moved = steps.move(moved, noisy)
        rest = torch.from_numpy((noisy / divisor).astype(np.float32))
        for parameter in oracle.parameters():
            parameter.grad = rest[: parameter.numel()].view_as(parameter)
            rest = rest[parameter.numel() :]
        adam.step()
    expected = np.concatenate([p.detach().numpy().ravel() for p in oracle.parameters()])
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_local_steps_see_the_noisy_sum_alone():
    """Opacus' own clipping and noise are switched off: the core has done both."""
    network = _ready(Dense())
    count = sum(p.numel() for p in network.parameters())
    zero = np.zeros(count)
    assert np.array_equal(LocalSteps(network, 0.1, 1.0).move(zero, zero), zero)
    huge = LocalSteps(network, 0.1, 1.0).move(zero, np.full(count, 1e9))
    np.testing.assert_allclose(huge, -0.1, rtol=1e-5)
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())


def test_factors_of_a_bias_are_its_output_gradients():
    network = _ready(Dense())
    batch = network.encode(_timelines(HISTORIES))
    weight, bias = factors(network, batch)[:2]
    assert isinstance(bias, Factors)
    assert np.array_equal(weight.deltas, bias.deltas)
    assert bias.inputs.shape == (len(HISTORIES), 1, 1)
    assert (bias.inputs == 1).all()
