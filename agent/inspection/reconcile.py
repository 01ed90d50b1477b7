"""Holds a station's count of parts against the line's own. Pure.

Both counts only grow, and a part is counted by one before the other: it is somewhere between the two. So the line's
count of a minute ago is compared with ours of now: what is not made up for within a minute of a moving belt never came.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.line.trigger import LineCount


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where the two counts stand.

    Args:
        run: of the line's counter.
        ahead: by how much the line's count is ahead of ours when every part was seen by both.
        count: ours.
        mark: both counts when they were last compared, the line's first; None after a start.
    """

    run: str
    ahead: int
    count: int
    mark: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a comparison found.

    Args:
        missing: parts that the line counted and we did not.
        surplus: parts that we counted and the line did not.
    """

    account: Account
    missing: int = 0
    surplus: int = 0


def opened(line: LineCount, count: int) -> Account:
    """Return the account of a counter that is new to us, or has begun anew: nothing is known of what was before."""
    return Account(run=line.run, ahead=line.count - count, count=count, mark=(line.count, count))


def settle(account: Account, line: LineCount) -> Settled:
    """Compare, and agree anew: what was found is found once.

    After a start there is no mark: what the line counted while nobody counted here is missing at once.
    """
    if line.run != account.run:
        return Settled(account=opened(line, account.count))
    line_then, count_then = account.mark or (line.count, account.count)
    missing = max(0, line_then - account.ahead - account.count)
    surplus = max(0, count_then + account.ahead - line.count)
    now = replace(account, ahead=account.ahead + missing - surplus, mark=(line.count, account.count))
    return Settled(account=now, missing=missing, surplus=surplus)
