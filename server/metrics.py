"""What a coordinator tells Prometheus: public numbers only, read anew at every scrape.

Names of silos and kinds of releases, counts of rounds, phases and refusals, sizes and times of
messages, and what the plan promises. All of it is in the plan, or the coordinator saw it happen.
No sum, no model and no quality of one, noised or not: those would be further releases.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fondaco.shared.errors import ConfigError

from .home import ServerHome
from .outside import newest_run, takes_connections
from .status import Status

STATES = ("waiting", "running", "finished", "failed")


class CoordinatorMetrics(Collector):
    """Reads a coordinator's folder whenever it is asked."""

    def __init__(self, folder: Path) -> None:
        self._home = ServerHome.open(folder)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; those of a run only once there was one."""
        up = takes_connections(self._home.settings.local)
        yield GaugeMetricFamily(
            "fondaco_superlink_up", "Whether the SuperLink takes connections.", value=up
        )
        yield GaugeMetricFamily(
            "fondaco_certificate_expires_timestamp_seconds",
            "The last moment at which the server's certificate is good, 0 if it is damaged.",
            value=_expires(self._home),
        )
        registered = len(list(self._home.silos.glob("*.json")))
        yield GaugeMetricFamily(
            "fondaco_silos_registered", "Silos that handed in their keys.", value=registered
        )
        try:
            status = newest_run(self._home.runs)
        except ConfigError:
            status = None
            yield GaugeMetricFamily(
                "fondaco_status_unreadable", "The status of the newest run is damaged.", value=1
            )
        if status is not None:
            yield from _run(status)
            yield from _silos(status)
            yield from _rounds(status)


def registry(folder: Path) -> CollectorRegistry:
    """Return a registry of this coordinator's metrics alone.

    Raises:
        ConfigError: the folder is no coordinator's.
    """
    found = CollectorRegistry(auto_describe=False)
    found.register(CoordinatorMetrics(folder))
    return found


def _expires(home: ServerHome) -> float:
    try:
        return home.tls.expires().timestamp()
    except ConfigError:
        return 0.0


def _run(status: Status) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "fondaco_run_info", "The newest run.", labels=["plan", "dataset", "task"]
    )
    info.add_metric([status.plan, status.dataset, status.task], 1)
    state = GaugeMetricFamily("fondaco_run_state", "1 for the state it is in.", labels=["state"])
    for name in STATES:
        state.add_metric([name], status.state == name)
    yield info
    yield state
    gauges = {
        "fondaco_rounds_planned": ("Rounds of the plan.", status.planned),
        "fondaco_rounds_done": ("Rounds that are over.", len(status.rounds)),
        "fondaco_silos_present": (
            "Silos that take part.",
            sum(silo.present for silo in status.silos),
        ),
        "fondaco_silos_planned": ("Silos of the plan.", len(status.silos)),
        "fondaco_epsilon_promised": ("What the plan promises.", float(status.epsilon)),
        "fondaco_delta_promised": ("The delta of that promise.", float(status.target_delta)),
        "fondaco_status_updated_timestamp_seconds": ("Last news.", _unix(status.updated)),
        "fondaco_run_started_timestamp_seconds": ("Its beginning.", _unix(status.started)),
    }
    for name, (text, value) in gauges.items():
        yield GaugeMetricFamily(name, text, value=value)
    counters = {
        "fondaco_phases": ("How often silos were asked something.", status.phases),
        "fondaco_refusals": ("How often silos said no.", status.refused),
        "fondaco_resumes": ("How often the run was taken up again.", status.resumed),
    }
    for name, (text, value) in counters.items():
        yield CounterMetricFamily(name, text, value=value)


def _silos(status: Status) -> Iterator[Metric]:
    present = GaugeMetricFamily(
        "fondaco_silo_present", "Whether a silo takes part.", labels=["silo"]
    )
    newest = GaugeMetricFamily(
        "fondaco_silo_last_round", "The newest round it took part in.", labels=["silo"]
    )
    traffic = CounterMetricFamily(
        "fondaco_silo_bytes", "Bytes of messages, by who sent them.", labels=["silo", "sender"]
    )
    for silo in status.silos:
        present.add_metric([silo.silo_id], silo.present)
        newest.add_metric([silo.silo_id], silo.last_round)
        traffic.add_metric([silo.silo_id, "silo"], silo.sent)
        traffic.add_metric([silo.silo_id, "coordinator"], silo.received)
    yield from (present, newest, traffic)


def _rounds(status: Status) -> Iterator[Metric]:
    seconds = CounterMetricFamily(
        "fondaco_round_seconds", "Wall time of finished rounds.", labels=["kind"]
    )
    for kind, spent in status.seconds.items():
        seconds.add_metric([kind], spent)
    yield seconds


def _unix(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
