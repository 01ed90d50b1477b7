"""Takes the orders of people beside the machine: the journal first, then the answer; none is lost or obeyed twice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from agent.clock import Clock
from agent.deploy import order_rules
from agent.deploy.attempt import Attempt, ModelJournal
from agent.deploy.facts import Installed
from agent.deploy.journal import Journal
from agent.deploy.logbook import Logbook
from agent.deploy.orders import Order, Orders
from agent.deploy.pauses import Pauses
from agent.deploy.store import Store
from agent.deploy.verify import RELEASE_UNKNOWN
from wire.deployment import DeploymentState as S
from wire.deployment import Origin
from wire.errors import LinesideError

log = logging.getLogger(__name__)


class OrderDesk:
    """The runner's side of the orders.

    Args:
        collect: removes what nothing refers to, and returns how many files that were.
    """

    def __init__(
        self,
        orders: Orders,
        store: Store,
        journal: Journal,
        logbook: Logbook,
        pauses: Pauses,
        clock: Clock,
        collect: Callable[[], int],
    ) -> None:
        self._orders = orders
        self._store = store
        self._journal = journal
        self._logbook = logbook
        self._pauses = pauses
        self._clock = clock
        self._collect = collect

    def take(self) -> bool:
        """Take the order that has waited longest, if any; return whether there was one.

        Raises:
            LinesideError: `storage.full` or `storage.corrupt`; the order is taken again then.
        """
        pending = self._orders.pending()
        if not pending:
            return False
        order = pending[0]
        remembered = self._journal.of(order.model) if order.model is not None else ModelJournal()
        installed = self._store.installed(order.model) if order.model is not None else Installed()
        outcome = order_rules.decide(order, remembered, installed)
        match outcome:
            case order_rules.Refused():
                self._orders.answer(order, done=False, text=outcome.text, code=outcome.code)
                return True
            case order_rules.Obeyed():
                text = outcome.text
            case order_rules.Confirms():
                self._logbook.hold(replace(outcome.attempt, confirmed=True, order=order.id), None)
                text = f"Version {outcome.attempt.digest[:12]} goes on."
            case order_rules.TakesBack():
                text = self._take_back(order, outcome.attempt)
            case order_rules.Deploys():
                text = self._deploy(order, outcome)
            case order_rules.Collects():
                return self._collects(order)
            case _:
                assert_never(outcome)
        log.info(
            "%s by %s: %s", order.kind, order.by or "somebody at the device", text, extra={"event": "order.obeyed"}
        )
        self._orders.answer(order, done=True, text=text)
        return True

    def _take_back(self, order: Order, attempt: Attempt) -> str:
        words = f"{order.by or 'Somebody at the device'} went back to the former version."
        reason = f"{words} {order.reason}".strip()
        self._logbook.keep(replace(attempt.failed("deployment.rolled_back", reason), order=order.id))
        return f"Version {attempt.digest[:12]} is taken back."

    def _deploy(self, order: Order, outcome: order_rules.Deploys) -> str:
        remembered = self._journal.of(outcome.model)
        latest = remembered.attempt
        if latest is not None and not latest.has_ended:
            reason = f"{order.by or 'Somebody at the device'} asked for version {outcome.digest[:12]} meanwhile."
            end = S.FAILED_REVERTED if latest.state is S.PROBATION else S.FAILED_NO_CHANGE
            self._logbook.enter(latest.failed("deployment.overruled", reason), end)
        self._logbook.report(outcome.model)  # that end, where a kill or a full outbox came before; now it is replaced
        self._pauses.end(outcome.model)
        self._logbook.keep(
            Attempt(
                deployment_id=order.id,
                model=outcome.model,
                digest=outcome.digest,
                release=outcome.release if outcome.release is not None else self._release_of(outcome.digest),
                origin=Origin.DEVICE,
                by=order.by,
                why=order.reason,
                urgent=outcome.urgent,
                sequence=remembered.first_sequence,
                at=self._clock.now_utc(),
            )
        )
        return f"Version {outcome.digest[:12]} of {outcome.model} is being deployed."

    def _release_of(self, digest: str) -> int:
        """Return the release of a version on disk; 0 where its index is damaged, which its verification will repair."""
        try:
            index = self._store.index(digest)
        except LinesideError:
            index = None
        return index.release if index is not None else RELEASE_UNKNOWN

    def _collects(self, order: Order) -> bool:
        try:
            count = self._collect()
        except LinesideError as error:
            self._orders.answer(order, done=False, text=str(error), code=error.code)
        else:
            self._orders.answer(order, done=True, text=f"{count} files that nothing refers to were removed.")
        return True
