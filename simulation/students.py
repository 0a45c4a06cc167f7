"""Is the small student as good as everybody's fused model, and how much smaller and faster?"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fondaco.client.dataset import SiloDataset
from fondaco.server.distillation import distil, save_student
from fondaco.server.global_model import model_digest
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.models.student import Student8

from .global_quality import Score, customer_values, customers
from .scenario import Scenario

ASKED = 100
"""Customers whose lists are timed, one by one."""


def measure_student(
    silos: Sequence[SiloDataset], parts: GlobalParts, scenario: Scenario, out: Path
) -> dict[str, dict[str, Any]]:
    """Distil everybody's model and return each form's headline metric, size and latency.

    The eight-bit student is written to `out/student.safetensors`.

    Args:
        silos: with test customers.
        parts: the teacher.
        scenario: rank of the student, headline metric.
        out: folder of the run.
    """
    start = time.perf_counter()
    student = distil(parts, scenario.student.rank)
    distilled_s = time.perf_counter() - start
    small = Student8.of(student)
    save_student(small, model_digest(parts.model), out / "student.safetensors")
    forms: dict[str, tuple[Score, int]] = {
        "teacher": (parts.fused, _teacher_bytes(parts)),
        "student": (lambda t, _: student.score(t.incidence()), student.size_bytes),
        "student int8": (lambda t, _: small.score(t.incidence()), small.size_bytes),
    }
    facts: dict[str, dict[str, Any]] = {}
    for name, (score, size_bytes) in forms.items():
        quality = float(customer_values(silos, score, scenario).mean())
        facts[name] = {
            "quality": round(quality, 5),
            "size_bytes": size_bytes,
            "latency_ms": round(1e3 * _latency_s(silos, score, scenario), 3),
        }
    facts["student"]["distilled_s"] = round(distilled_s, 3)
    return facts


def _latency_s(silos: Sequence[SiloDataset], score: Score, scenario: Scenario) -> float:
    """Return the median time of one customer's scores, asked one by one [s]."""
    seconds: list[float] = []
    for timelines, mask, _ in customers(silos, scenario):
        for user in range(min(timelines.n_users, ASKED - len(seconds))):
            alone = timelines.take(np.array([user]))
            start = time.perf_counter()
            score(alone, mask[user : user + 1])
            seconds.append(time.perf_counter() - start)
        if len(seconds) >= ASKED:
            break
    return statistics.median(seconds)


def _teacher_bytes(parts: GlobalParts) -> int:
    """What the teacher needs to score: item factors, networks, popularity, weights."""
    model = parts.model
    needed = (model.item_in, model.item_out, model.popularity, model.parameters, model.fusion)
    return sum(array.nbytes for array in needed)
