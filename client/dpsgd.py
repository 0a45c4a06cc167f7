"""Per-customer gradients of a network, for the trusted core to clip; the only opacus import.

One example is one customer's whole history, so clipping per example *is* clipping per customer.
Two routes give the same numbers:

- `factors` (the default) keeps each layer's inputs and output gradients of one backward pass:
  a customer's gradient of a `Linear` is sum_t outer(delta_t, input_t). No weight gradient is
  ever formed before the clipped sum (Goodfellow 2015; Bu et al. 2023).
- `hooks` takes Opacus' `GradSampleModule`: slow, and the oracle of the tests.

Opacus' ghost clipping is here to be measured and compared (`ghost_norms`), not to
release: it adds up what autograd gives and clips by norms computed elsewhere, so a wrong norm
(repeated ids in a bag, a table used twice) breaks the bound in silence. The core clips the very
numbers that it adds up. Opacus' engine is not used: it divides the noise by the private number
of customers and draws it from torch's generator.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.grad_sample import (
    GradSampleModuleFastGradientClipping,
    register_grad_sampler,
    register_norm_sampler,
)
from opacus.grad_sample.embedding import compute_embedding_grad_sample
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from fondaco.shared.errors import ConfigError
from fondaco.shared.models.base import Timelines
from fondaco.shared.models.networks.base import Batch, Network, load_parameters
from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.privacy.gradients import Factors, GradientSum

CELLS = 4_000_000
"""Activations held at once; a larger silo is worked through in virtual batches."""

Route = Callable[[Network, Batch], list[Factors]]


class DistinctEmbedding(nn.Embedding):
    """An embedding whose ids are distinct within one customer's bag.

    Then the norm of a customer's gradient is that of the flattened output gradients, which
    saves Opacus' sort of all (customer, id) pairs.
    """


register_grad_sampler(DistinctEmbedding)(compute_embedding_grad_sample)


@register_norm_sampler(DistinctEmbedding)  # type: ignore[untyped-decorator]
def _distinct_norms(
    layer: DistinctEmbedding, activations: list[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    del activations
    return {layer.weight: backprops.reshape(len(backprops), -1).norm(dim=1)}


def check_network(network: nn.Module) -> None:
    """Refuse what would mix customers or be measured wrongly.

    Raises:
        ConfigError: naming the layer and what to use instead.
    """
    for name, layer in network.named_modules():
        kind = type(layer).__name__
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            raise ConfigError(f"layer {name!r}: {kind} couples customers; normalise each row alone")
        if isinstance(layer, nn.EmbeddingBag):
            raise ConfigError(f"layer {name!r}: norms of EmbeddingBag are wrong for repeated ids")
        if any(True for _ in layer.parameters(recurse=False)) and type(layer) is not nn.Linear:
            raise ConfigError(f"layer {name!r}: {kind} has parameters; only nn.Linear may")
    names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    if len(names) != len(list(network.parameters())):
        raise ConfigError(f"parameters {names} are tied; give every use a table of its own")


def factors(network: Network, batch: Batch) -> list[Factors]:
    """Return every parameter's per-customer gradients, in the order of `network.parameters()`.

    Raises:
        ConfigError: a layer is used twice, or not at all.
    """
    taken: dict[nn.Linear, tuple[Tensor, Tensor]] = {}
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not isinstance(layer, nn.Linear) or layer in taken:
            raise ConfigError("a layer is used twice in one pass; give every use its own")
        taken[layer] = (
            inputs[0].detach(),
            output if output.requires_grad else output.requires_grad_(),
        )

    handles = [layer.register_forward_hook(keep) for layer in layers]
    frozen = [p.requires_grad_(False) for p in network.parameters()]
    try:
        losses = network.losses(batch)
        if set(taken) != set(layers):
            raise ConfigError("a layer of the network takes no part in the loss")
        deltas = torch.autograd.grad(losses.sum(), [output for _, output in taken.values()])
    finally:
        for handle in handles:
            handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)
    by_layer = {
        layer: (_positions(delta), _positions(inputs))
        for (layer, (inputs, _)), delta in zip(taken.items(), deltas, strict=True)
    }
    return [part for layer in layers for part in _of_linear(layer, *by_layer[layer])]


def _of_linear(
    layer: nn.Linear, deltas: NDArray[np.float32], inputs: NDArray[np.float32]
) -> list[Factors]:
    parts = [Factors(deltas=deltas, inputs=inputs)]
    if layer.bias is not None:
        parts.append(Factors(deltas=deltas, inputs=np.ones((*deltas.shape[:2], 1))))
    return parts


def _positions(values: Tensor) -> NDArray[np.float32]:
    """(n_users, n_positions, n) of (n_users, ..., n)."""
    n_users, width = values.shape[0], values.shape[-1]
    return values.detach().reshape(n_users, -1, width).numpy()


def rows_by_hooks(network: Network, batch: Batch) -> list[Factors]:
    """Return what `factors` does, from Opacus' per-sample gradients."""
    module = GradSampleModule(network, loss_reduction="sum")
    try:
        network.train()
        if len(next(iter(batch.values()))):
            torch.autograd.backward(network.losses(batch).sum())
        rows = [
            np.asarray(p.grad_sample.reshape(len(p.grad_sample), 1, -1))
            for p in module.parameters()
        ]
    finally:
        module.to_standard_module()
        network.zero_grad()
    ones = np.ones((len(rows[0]), 1, 1))
    return [Factors(deltas=row, inputs=ones) for row in rows]


ROUTES: Mapping[str, Route] = {"factors": factors, "hooks": rows_by_hooks}


def clipped_gradient(
    network: Network,
    parameters: NDArray[np.floating],
    timelines: Timelines,
    total: GradientSum,
    users: NDArray[np.int64],
    *,
    route: str = "factors",
) -> ClippedSum:
    """Return the clipped sum of the gradients of `users` at `parameters`.

    Worked through in virtual batches, so that memory does not grow with the silo.

    Args:
        network: checked by `check_network`.
        parameters: (n_parameters,).
        timelines: of all customers.
        total: an empty sum.
        users: (n_sampled,) customers that take part; nobody gives zeros.
        route: a name of ROUTES.
    """
    load_parameters(network, parameters)
    network.train()
    at_once = max(1, CELLS // network.cells_per_user)
    for start in range(0, len(users), at_once):
        some = users[start : start + at_once]
        batch = network.encode(timelines.take(some))
        total.add(some, ROUTES[route](network, batch))
    return total.total()


class LocalSteps(DPOptimizer):  # type: ignore[misc]  # opacus has no types
    """Opacus' optimizer, moving a silo's copy by sums that the trusted core clipped and noised.

    Args:
        network: its parameters are moved.
        learning_rate: of Adam.
        divisor: public number of customers that a sum is divided by.
    """

    def __init__(self, network: Network, learning_rate: float, divisor: float) -> None:
        super().__init__(
            torch.optim.Adam(network.parameters(), lr=learning_rate),
            noise_multiplier=0.0,
            max_grad_norm=1.0,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self._network = network
        self._divisor = divisor

    def move(
        self, parameters: NDArray[np.float64], noisy: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the parameters after one step along a (n_parameters,) noisy sum."""
        load_parameters(self._network, parameters)
        rest = torch.from_numpy((noisy / self._divisor).astype(np.float32))
        for parameter in self.params:
            part, rest = rest[: parameter.numel()], rest[parameter.numel() :]
            parameter.summed_grad = part.view_as(parameter)
            parameter.grad_sample = parameter.summed_grad[None]
        self.step()
        self.zero_grad()
        return parameters_to_vector(self._network.parameters()).detach().double().numpy()

    def clip_and_accumulate(self) -> None:
        """Leave the sum as it is: the core clipped it."""

    def add_noise(self) -> None:
        """Take the sum as it is: the core noised it."""
        for parameter in self.params:
            parameter.grad = parameter.summed_grad


def ghost_norms(network: Network, batch: Batch) -> NDArray[np.float32]:
    """Return (n_users,) gradient norms as Opacus' ghost clipping finds them."""
    module = GradSampleModuleFastGradientClipping(
        network, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="sum"
    )
    try:
        network.train()
        torch.autograd.backward(network.losses(batch).sum())
        return np.asarray(module.get_norm_sample().detach())
    finally:
        module.to_standard_module()
        network.zero_grad()


def opacus_step(network: Network, mode: str) -> Callable[[Batch], None]:
    """Return one whole step as Opacus takes it by default, noise included: for comparison.

    Args:
        network: is given hooks and keeps them.
        mode: "hooks" or "ghost".
    """
    clip_norm, adam = 1.0, torch.optim.Adam(network.parameters(), lr=0.01)
    knobs: dict[str, Any] = {
        "noise_multiplier": 1.0,
        "max_grad_norm": clip_norm,
        "expected_batch_size": None,
        "loss_reduction": "sum",
    }
    network.train()
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    if mode == "hooks":
        GradSampleModule(network, loss_reduction="sum")
        optimizer = DPOptimizer(adam, **knobs)

        def step(batch: Batch) -> None:
            torch.autograd.backward(network.losses(batch).sum())
            optimizer.step()
            optimizer.zero_grad()

        return step
    module = GradSampleModuleFastGradientClipping(
        network, max_grad_norm=clip_norm, use_ghost_clipping=True, loss_reduction="sum"
    )
    ghost = DPOptimizerFastGradientClipping(adam, **knobs)

    def ghost_step(batch: Batch) -> None:
        losses = network.losses(batch)
        torch.autograd.backward(losses.sum(), retain_graph=True)
        ghost.zero_grad()
        weights = module.get_clipping_coef()
        module.disable_hooks()
        torch.autograd.backward((weights * losses).sum())
        module.enable_hooks()
        ghost.step()
        ghost.zero_grad()

    return ghost_step
