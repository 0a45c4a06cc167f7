"""What float64 can add to a sum of gradients fits into the part of the bound kept free for it."""

import math

from fondaco.shared.privacy import gradients


def test_slack_covers_two_sums_of_the_most_customers():
    """Higham 2002, section 4.2, as `FLOAT_SLACK` says: blocks of rows, then a sum of blocks."""
    at_most = 1 / math.sqrt(gradients._CANCELLED)  # clip norms added up per customer
    unit = 2.0**-53
    error = (gradients._ROWS + gradients.MAX_USERS) * unit * at_most * gradients.MAX_USERS
    assert 2 * error + 1e-9 < gradients.FLOAT_SLACK


def test_squares_of_the_least_clip_norm_do_not_vanish():
    assert gradients._TINY**2 > 5e-324
