"""Matrix factorisation by descent: what a customer's gradient on the items' factors is.

The loss is the softmax negative log likelihood of a customer's items over the head. The
customer's factor p is the ridge solution on the items' factors, held fixed: an input, not a
parameter. The gradient is then one outer product (chance - own items) p'.
"""

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.privacy.gradients import Factors

from .base import Array32, PublicFacts
from .kernel_factors import (
    HeadFacts,
    extended,
    head_facts,
    log_popularity,
    start_rows,
    user_moment,
)


def initial(known: HeadFacts, width: int) -> Array32:
    """Return (M * width,) factors from public features."""
    return start_rows(known, width).ravel().astype(np.float32)


def gradients(facts: PublicFacts, items: Array32, rows: Array32) -> Factors:
    """Return every customer's gradient on the (M, width) `items`.

    Args:
        facts: popularity is the frozen bias.
        items: factors of the head.
        rows: (n_users, M) histories of norm 1 or empty, which give zeros.
    """
    known = head_facts(facts, len(items))
    users = solved_users(known, items, rows)
    chance = users @ items.T
    chance += log_popularity(facts)[known.head]
    chance -= chance.max(axis=1, keepdims=True)
    np.exp(chance, out=chance)
    chance /= chance.sum(axis=1, keepdims=True)
    chance[~rows.any(axis=1)] = 0.0
    chance -= rows**2
    return Factors(deltas=chance[:, None], inputs=users[:, None])


def scores(facts: PublicFacts, items: Array32, rows: Array32) -> Array32:
    """Return (n_users, n_items) log-odds of histories as in `gradients`."""
    users = solved_users(head_facts(facts, len(items)), items, rows)
    return np.asarray(users @ extended(facts, items).T + log_popularity(facts))


def solved_users(known: HeadFacts, items: Array32, rows: Array32) -> Array32:
    """Return (n_users, width) customers' factors."""
    moment: NDArray[np.float64] = user_moment(items.astype(np.float64), known.share)
    return np.linalg.solve(moment, (rows @ items).T).T.astype(np.float32)
