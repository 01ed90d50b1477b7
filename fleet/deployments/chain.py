"""All that is known of one device and one version, in its order. Pure.

Facts come with the time at which they were so and with who says so; times of the device are by its own clock.
"""

from __future__ import annotations

from fleet.deployments import advice, answer
from fleet.deployments.deviation import asked_by, words_of
from fleet.deployments.gathered import DESIRED, DEVICE, FLEET, REGISTRY, Asked, Chain, Fact, Gathered, Told
from fleet.deployments.progress import FLEET_ENDS
from fleet.deployments.timeouts import stamp
from wire.deployment import DeploymentState, Origin


def of(gathered: Gathered) -> Chain:
    """Return the chain of one device and one version."""
    facts = [*_past(gathered)]
    facts.sort(key=lambda fact: fact.at or gathered.now)  # stable: what has one time stays in the order of its making
    return Chain(
        device=gathered.device,
        model=gathered.model,
        release=gathered.release,
        digest=gathered.digest,
        has_it=gathered.runs_digest == gathered.digest,
        answer=answer.of(gathered),
        facts=(*facts, *_present(gathered)),
    )


def _past(one: Gathered) -> list[Fact]:
    facts: list[Fact] = []
    name = f"{one.model} {words_of(one.digest, one.release, registered=one.registered_at is not None)}"
    if one.registered_at is not None:
        facts.append(Fact(at=one.registered_at, source=REGISTRY, text=f"{name} was registered by {one.registered_by}."))
    for asked in one.asked:
        facts += _of_deployment(asked, name)
    if one.read_revision is not None:
        text = f"{one.device} has read revision {one.read_revision} of its desired document"
        behind = one.desired_revision - one.read_revision
        more = f"; revision {one.desired_revision} is in force" if behind > 0 else ""
        facts.append(Fact(at=one.reported_at, source=DEVICE, text=f"{text}{more}."))
    return facts


def _of_deployment(asked: Asked, name: str) -> list[Fact]:
    if asked.origin is Origin.DEVICE:
        told = next((told.report.reason for told in asked.reports if not told.report.code and told.report.reason), "")
        why = f": {told.rstrip('.')}" if told else ""
        text = f"{name} was {asked_by(asked.origin, asked.by)}{why} ({asked.id})."
        asking = Fact(at=asked.created_at, source=DEVICE, text=text)
    elif asked.revision is None and asked.created_by == "unknown":
        text = f"{name} is reported on as asked for by a fleet, and this database has no record of it ({asked.id})."
        asking = Fact(at=asked.created_at, source=DEVICE, text=text)
    else:
        revision = f" in revision {asked.revision}" if asked.revision is not None else ""
        text = f"{name} was asked for{revision} by {asked.created_by} ({asked.id})."
        asking = Fact(at=asked.created_at, source=DESIRED, text=text)
    facts = [asking, *(_of_report(told) for told in asked.reports)]
    if asked.state in FLEET_ENDS:
        word = asked.state.replace("_", " ")
        facts.append(Fact(at=asked.ended_at, source=FLEET, text=f"The deployment was {word}: {asked.reason}"))
    return facts


def _of_report(told: Told) -> Fact:
    report = told.report
    parts = [report.state.replace("_", " ")]
    if report.attempt > 1:
        parts.append(f"attempt {report.attempt}")
    if report.hold is not None:
        parts.append(answer.hold_words(report.hold))
    if report.tested is not None and report.state is DeploymentState.STAGED and report.hold is None:
        parts.append(answer.tested_words(report.tested))
    if report.probation is not None:
        parts.append(answer.probation_words(report.probation))
    if report.code:
        parts.append(": ".join(part for part in (report.code, report.reason) if part))
    elif report.reason and report.origin is not Origin.DEVICE:
        parts.append(report.reason)
    return Fact(
        at=report.at,
        source=DEVICE,
        text=f"reported: {'; '.join(parts)}.".replace("..", "."),
        code=report.code,
        next_step=advice.of(report.code),
    )


def _present(one: Gathered) -> list[Fact]:
    facts: list[Fact] = []
    if one.reported_at is None and one.runs_digest is None:
        facts.append(Fact(at=one.now, source=FLEET, text=f"{one.device} has not told yet what it runs."))
    elif one.runs_digest is None:
        facts.append(Fact(at=one.now, source=DEVICE, text=f"{one.device} runs no version of {one.model}."))
    else:
        since = f" since {stamp(one.runs_since)}" if one.runs_since is not None else ""
        what = words_of(one.runs_digest, one.runs_release, registered=one.runs_registered)
        facts.append(Fact(at=one.now, source=DEVICE, text=f"{one.device} runs {one.model} {what}{since}."))
    if one.deviation:
        facts.append(Fact(at=one.now, source=FLEET, text=f"{one.model} {one.deviation}."))
    facts += [Fact(at=one.now, source=DEVICE, text=f"{one.device} refuses: {refusal}") for refusal in one.refusals]
    if one.revoked_at is not None:
        facts.append(Fact(at=one.revoked_at, source=FLEET, text=f"{one.device} is revoked."))
    elif not one.online:
        facts.append(
            Fact(at=one.now, source=FLEET, text=f"{one.device} is offline, last seen {stamp(one.last_seen_at)}.")
        )
    return facts
