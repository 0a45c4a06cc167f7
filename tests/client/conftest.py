"""Everybody's model as a server sends it."""

from dataclasses import replace

import numpy as np
import pytest


@pytest.fixture(scope="session")
def make_model():
    """Return a function: plan, changed fields -> the bytes of a model of zeros."""
    # Flower may be imported only after pytest knows which of its warnings to ignore.
    from fondaco.shared import codec  # noqa: PLC0415
    from fondaco.shared.records import GlobalModel  # noqa: PLC0415

    def make(plan, **changes):
        def zeros(*shape):
            return np.zeros(shape, dtype=np.float32)

        items, head, shapes = plan.n_items, plan.head, codec.Shapes.of_plan(plan)
        model = GlobalModel(
            plan_digest=plan.digest,
            catalogue_digest=plan.catalogue_digest,
            after_round=len(plan.releases),
            noisy_popularity=zeros(items),
            popularity=zeros(items),
            head=np.array([4, 2, 0, 1]),
            head_popularity=zeros(head),
            gram_factors=zeros(head, 1),
            gram_diagonal=zeros(head),
            gram_top=zeros(head),
            kernel_weights=zeros(1),
            item_in=zeros(head, 1),
            item_out=zeros(items, 1),
            spectrum=zeros(head),
            noise_edge=zeros(),
            parameters=zeros(sum(shapes.n_parameters.values())),
            fusion=zeros(*shapes.fusion),
        )
        return codec.encode(replace(model, **changes))

    return make
