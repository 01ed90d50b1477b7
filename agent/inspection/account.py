"""The account of triggers: which parts passed while nobody was looking, from the line's own sequence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """Sequences `first` to `last` of a controller's run that no inspection stands for; empty when first > last."""

    run: str
    first: int
    last: int

    def __len__(self) -> int:
        return max(0, self.last - self.first + 1)


def missed_before(last_seen: tuple[str, int], run: str, sequence: int) -> Missed:
    """Return what passed between the last trigger on record and `sequence` (both excluded).

    Args:
        last_seen: run and sequence of the last trigger that is on record.
        run: the controller's present run.
        sequence: the present trigger.

    Returns:
        The gap. A new run starts at 1: all before `sequence` were missed, and what the old run did after `last_seen`
        cannot be known.
    """
    last_run, last_sequence = last_seen
    first = last_sequence + 1 if run == last_run else 1
    return Missed(run=run, first=first, last=sequence - 1)


def is_repeat(last_seen: tuple[str, int], run: str, sequence: int) -> bool:
    """Tell whether a trigger is on record already: the line sent it twice, or it came late."""
    last_run, last_sequence = last_seen
    return run == last_run and sequence <= last_sequence
