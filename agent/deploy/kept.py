"""Which versions must stay on this device, whatever else is collected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from agent.deploy.journal import Journal
from agent.deploy.store import Store
from wire import deployment, desired


def kept(
    store: Store,
    journal: Journal,
    inferring: Callable[[str], str | None],
    wanted: Mapping[str, desired.DesiredModel],
    pinned: Iterable[str] = (),
) -> set[str]:
    """Return the versions that must stay: those installed, inferred with, on their way, or pinned.

    Args:
        inferring: the digest of the session in use for a model.
        wanted: the desired versions, by model.
        pinned: what a person wants kept.
    """
    found: list[str | None] = [*pinned]
    for model in {*store.models(), *journal.models(), *wanted}:
        installed = store.installed(model)
        found.extend((installed.current, installed.previous, inferring(model)))
        remembered = journal.of(model)
        attempt = remembered.attempt
        if attempt is not None and attempt.state not in deployment.ENDS:
            found.extend((attempt.digest, attempt.former))
        entry = wanted.get(model)
        found.append(entry.shadow if entry is not None else None)
        if entry is not None and not remembered.has_ended(entry.deployment_id):
            is_latest = attempt is not None and attempt.deployment_id == entry.deployment_id
            found.append(None if is_latest else entry.active)
    return {digest for digest in found if digest is not None}
