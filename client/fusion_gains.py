"""What a part of the global model is worth: the one statistic that reads validation rows."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.fusion import FUSERS
from fondaco.shared.metrics import parse_metric
from fondaco.shared.models import Timelines
from fondaco.shared.models.published import GlobalParts, activity_buckets, never_ranked
from fondaco.shared.models.terms import (
    BUCKET_EDGES,
    FUSION_CLIP,
    FUSION_WEIGHTS,
    PlannedModels,
)
from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.privacy.gradients import Factors, GradientSum
from fondaco.shared.privacy.noise import Sample
from fondaco.shared.privacy.plan import RunPlan

from .dataset import Fold, SiloDataset, as_timelines
from .serving.tuning import Judge

USERS_AT_ONCE = 256


def fusion_gains(
    dataset: SiloDataset, plan: RunPlan, parts: GlobalParts, now: float, sample: Sample
) -> ClippedSum:
    """Return, per activity bucket, the customers' summed gains of each fusion setting.

    A customer's gains are the validation NDCG of "reference + weight * part" minus that of the
    reference alone, for every part and weight; clipped to FUSION_CLIP together; zero for a
    customer without validation rows.

    Args:
        dataset: `dataset.valid` is read, which is in no model.
        plan: its public `headline` names the list length.
        parts: the global model so far.
        now: public moment of recommending [days].
        sample: everybody.
    """
    dim = PlannedModels.of_plan(plan).fusion_dim
    total = GradientSum(dim, FUSION_CLIP, plan.grid, sample)
    for fold in _batches(dataset.valid):
        timelines = as_timelines(dataset, fold.user_nums, fold.history, now)
        gains = _gains(dataset, fold, timelines, parts, plan)
        buckets = np.eye(len(BUCKET_EDGES) + 1)[activity_buckets(timelines)]
        total.add(fold.user_nums, [Factors(deltas=buckets[:, None], inputs=gains[:, None])])
    return total.total()


def _gains(
    dataset: SiloDataset, fold: Fold, timelines: Timelines, parts: GlobalParts, plan: RunPlan
) -> NDArray[np.float64]:
    """(n_users, n_settings) NDCG@k minus that of the reference part alone."""
    mask = never_ranked(timelines, repeats=plan.public["repeats"] == "yes")
    targets = np.asarray(fold.target_matrix(dataset.n_items).toarray() > 0)
    judge = Judge(mask, targets, parse_metric(plan.public["headline"]).k)

    def prepared(name: str) -> NDArray[np.float32]:
        return FUSERS["weighted"].prepare(parts.score(name, timelines), mask)

    reference = prepared(parts.names[0])
    before = judge(reference)
    gains = []
    for name in parts.names[1:]:
        plane = prepared(name)
        gains += [judge(reference + np.float32(w) * plane) - before for w in FUSION_WEIGHTS]
    return np.stack(gains, axis=1)


def _batches(fold: Fold) -> Iterator[Fold]:
    for start in range(0, len(fold.user_nums), USERS_AT_ONCE):
        yield fold.of(fold.user_nums[start : start + USERS_AT_ONCE])
