"""The pages of metrics and of the events a device sends, for scripts/reference.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.health import troubles
from agent.health.exposition import METRICS

Table = Callable[[Iterable[str], Iterable[Iterable[object]]], str]


def metrics_page(made: str, table: Table) -> str:
    """Return docs/reference/metrics.md."""
    rows = [
        (f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels) or "-", metric.help)
        for metric in METRICS.values()
    ]
    return f"""# Metrics

{made}
`GET /metrics` at the agent's local address (`lineside status` tells it) answers in the text form that Prometheus and
its relatives read. The table is `agent/health/exposition.py`. Times are in seconds, sizes in bytes; counters begin with
the agent and only grow. What a device cannot tell is absent: a missing `lineside_throttled` does not mean that the
processor is cool.

{table(("Metric", "Kind", "Labels", "Meaning"), rows)}
A station's account: `lineside_triggers_total` is the sum of `lineside_verdicts_total` over the verdicts and
`lineside_parts_missed_total`, but for the parts in work at this moment. A view's account: `lineside_frames_in_total`
is used, not triggered and dropped frames together, but for those on their way.

The address is a loopback one: to have it scraped from elsewhere, put a proxy with a password in front of it.

```yaml
scrape_configs:
  - job_name: lineside
    static_configs:
      - targets: ["127.0.0.1:8090"]
```
"""


def events_page(made: str, table: Table) -> str:
    """Return docs/reference/events.md."""
    rows = [(f"`{kind.raised}`", f"`{kind.cleared}`", kind.severity.value, _MEANINGS[kind]) for kind in troubles.Kind]
    return f"""# Events of troubles

{made}
When something is wrong with a device, its cameras or its line, it tells the fleet by an event, and by another when that
is over; both stand in its log under the same names. The table is `agent/health/troubles.py`.

{table(("Begins", "Ends", "Severity", "Meaning"), rows)}
- A trouble is told once it has stood for {troubles.STANDS_NS / 1e9:g} s, and its end likewise. A vital has been seen on
  several frames in a row before that (`raise_after`, `clear_after` of the view's settings).
- One that comes and goes is told at most once a minute (four times in a row at first), with how often it did; all
  troubles together at most thirty times a minute. Nothing is lost by that: what a trouble is in the end is always told.
- What was told before the agent was restarted is not told again, and its end is told by the next run.
- The present state is not in events but in health: the views' troubles and vitals there are always those of now.

## Other events

{table(("Event", "Severity", "Meaning"), _OTHERS)}"""


_OTHERS = (
    ("`recipe.changed`", "note", "A station took another recipe."),
    ("`recipe.refused`", "warning", "A recipe that was asked for is not in force, and why."),
    ("`gate.surplus_found`", "warning", "A part gate counted more parts than the line's own counter."),
    ("`agent.killed`", "warning", "The agent's last run ended without notice; no record was lost."),
    ("`agent.power_lost`", "alarm", "The machine went down while the agent ran: the last 100 ms may be missing."),
    ("`outbox.set_aside`", "alarm", "The outbox was damaged; its file is kept, and a new one was begun."),
    ("`link.publish_refused`", "alarm", "The broker refuses a lane's messages; they are kept and tried again."),
    (
        "`deployment.awaits_confirmation`",
        "warning",
        "A version is ready, and a person must say that it may be swapped in: `lineside models confirm`.",
    ),
    (
        "`deployment.shifted`",
        "alarm",
        "The verdicts of a version in probation have another mix than before; a person is asked.",
    ),
    ("`deployment.reverted`", "warning", "A version was taken back, and the former one is active again."),
    ("`deployment.revert_failed`", "alarm", "A version was given up, and there is none that could take its place."),
    ("`shadow.refused`", "warning", "A candidate that is asked for is not run, or no longer, and why."),
    ("`command.finished`", "note", "A command of the fleet was carried out."),
)


_MEANINGS = {
    troubles.Kind.CAMERA: "A camera gives no frames; its parts have no verdict.",
    troubles.Kind.VITAL: "The pictures of a view are wrong: " + ", ".join(f"`{name}`" for name in troubles.VITAL_WORDS),
    troubles.Kind.LINE: "The PLC, broker or wire that triggers a station cannot be reached.",
    troubles.Kind.STATION: "A station cannot judge parts; the line is told so.",
    troubles.Kind.OUTPUT: "Somebody who should be told the verdicts is not.",
    troubles.Kind.THREAD: "A part of the agent does not answer.",
    troubles.Kind.DISK: f"Less than {troubles.LOW_DISK_FRACTION:.0%} of the data folder's disk is free.",
    troubles.Kind.THROTTLING: "Heat or a weak supply slow the processor down.",
}
