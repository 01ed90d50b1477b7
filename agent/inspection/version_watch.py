"""What each version has done at one station: counted with every part, for probation to judge.

A part counts for the version whose session judged it, whichever is in use when its record is written. Setup and
challenge parts are left out: they are shown on purpose, and say nothing of the line. Those of a clip are all that its
station has, so they count.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from agent.deploy.figures import LOT_PARTS, Figures, sparse
from agent.inspection.setup import StationSetup
from wire.histogram import Histogram
from wire.inspection import Inspection, Mode, Reason, Verdict, ViewRecord

# What a version did lately is known from so many parts at least and twice as many at most.
WINDOW_PARTS: Final = 1000
_VERSIONS_MAX: Final = 3
_SHOWN_ON_PURPOSE: Final = frozenset({Mode.SETUP, Mode.CHALLENGE})
# A part that has no verdict for another reason never had one by this model: it does not count.
BLAMED: Final = frozenset({Reason.UNUSABLE_OUTPUT, Reason.RUNTIME_ERROR, Reason.DEADLINE})


class _Counts:
    __slots__ = ("faults", "looks", "lot", "lot_squares", "lot_sums", "lots", "parts", "verdicts")

    def __init__(self) -> None:
        self.parts = 0
        self.lot: Counter[str] = Counter()
        self.lots = 0
        self.lot_sums: Counter[str] = Counter()
        self.lot_squares: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.looks = Histogram()

    def add(self, outcome: Verdict | Reason, looks_ms: Iterable[float]) -> None:
        self.parts += 1
        if isinstance(outcome, Verdict):
            self.verdicts[outcome.value] += 1
            self._add_to_lot(outcome.value)
        else:
            self.faults[outcome.value] += 1
        for look_ms in looks_ms:
            self.looks.add(look_ms)

    def _add_to_lot(self, verdict: str) -> None:
        self.lot[verdict] += 1
        if self.lot.total() == LOT_PARTS:
            self.lots += 1
            self.lot_sums.update(self.lot)
            self.lot_squares.update({name: count * count for name, count in self.lot.items()})
            self.lot = Counter()

    def figures(self, digest: str) -> Figures:
        return Figures(
            digest=digest,
            verdicts=dict(self.verdicts),
            faults=dict(self.faults),
            looks=sparse(self.looks),
            lots=self.lots,
            lot_sums=dict(self.lot_sums),
            lot_squares=dict(self.lot_squares),
        )


class _Version:
    __slots__ = ("before", "lately", "since")

    def __init__(self) -> None:
        self.since = _Counts()
        self.lately = _Counts()
        self.before: _Counts | None = None

    def add(self, outcome: Verdict | Reason, looks_ms: list[float]) -> None:
        if self.lately.parts >= WINDOW_PARTS:
            self.before, self.lately = self.lately, _Counts()
        self.since.add(outcome, looks_ms)
        self.lately.add(outcome, looks_ms)


class VersionWatch:
    """Written by a station's threads, read by the deploy thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, str], _Version] = {}

    def begin(self, model: str, digest: str) -> None:
        """Count from here what a version does in this use of it; what it did lately is kept."""
        with self._lock:
            version = self._newest(model, digest)
            version.since = _Counts()

    def note(self, setup: StationSetup, inspection: Inspection, waited_ms: Sequence[float] = ()) -> None:
        """Count a part that was recorded.

        Args:
            setup: which the part was judged with; it knows the version of a view whose record could not name it.
            waited_ms: of each view's look, for a core that other work had: that is not the version's. Empty: none did.
        """
        if inspection.mode in _SHOWN_ON_PURPOSE:
            return
        seen: dict[tuple[str, str], list[ViewRecord]] = {}
        looks_ms: dict[tuple[str, str], list[float]] = {}
        waits_ms = waited_ms or [0.0] * len(inspection.views)
        for view, record, waited in zip(setup.views, inspection.views, waits_ms, strict=True):
            digest = record.model_digest or view.digest
            if digest is not None:
                seen.setdefault((view.model, digest), []).append(record)
                looks_ms.setdefault((view.model, digest), []).extend(_own_ms(record, waited))
        is_late = _is_late(inspection)
        with self._lock:
            for key, records in seen.items():
                outcome = _outcome_of(records)
                if outcome is None:
                    continue
                if is_late and isinstance(outcome, Verdict):
                    outcome = Reason.DEADLINE
                version = self._versions.get(key) or self._newest(*key)
                version.add(outcome, looks_ms[key])

    def figures(self, model: str, digest: str) -> Figures:
        """Return all that a version did since it came into use."""
        with self._lock:
            version = self._versions.get((model, digest))
            return version.since.figures(digest) if version is not None else Figures(digest=digest)

    def recent_figures(self, model: str, digest: str) -> Figures:
        """Return what a version did lately, in whichever use of it."""
        with self._lock:
            version = self._versions.get((model, digest))
            if version is None:
                return Figures(digest=digest)
            lately = version.lately.figures(digest)
            return version.before.figures(digest).plus(lately) if version.before is not None else lately

    def _newest(self, model: str, digest: str) -> _Version:
        """Put a version behind all others of its model, and forget the oldest."""
        version = self._versions.pop((model, digest), None) or _Version()
        of_model = [key for key in self._versions if key[0] == model]
        for key in of_model[: max(0, len(of_model) + 1 - _VERSIONS_MAX)]:
            del self._versions[key]
        self._versions[model, digest] = version
        return version


def _is_late(inspection: Inspection) -> bool:
    """Tell whether the part as a whole came too late, rather than one of its views."""
    return (
        inspection.verdict is Verdict.NO_VERDICT
        and inspection.reason is Reason.DEADLINE
        and all(record.reason is not Reason.DEADLINE for record in inspection.views)
    )


def _outcome_of(records: list[ViewRecord]) -> Verdict | Reason | None:
    """Return what one model says of a part, in the order of `judge.join`; None where it was not asked."""
    verdicts = {record.verdict for record in records}
    if Verdict.NG in verdicts:
        return Verdict.NG
    if Verdict.NO_VERDICT in verdicts:
        return next((record.reason for record in records if record.reason in BLAMED), None)
    return Verdict.UNSURE if Verdict.UNSURE in verdicts else Verdict.OK


def _own_ms(record: ViewRecord, waited_ms: float) -> list[float]:
    """Return how long a view's look took without waiting for a core; nothing where there was none."""
    timings = record.timings_ms
    look_ms = timings.preprocess + timings.run + timings.decode
    return [max(0.0, look_ms - waited_ms)] if look_ms > 0 else []
