"""Holds a station's count of parts against the line's own. Pure.

A part is counted by one before the other, so the difference goes up and down by the parts that are between the two; the
counter must stand so near to the gate that this is one at the most, on either side of it. The first period tells
between which two values the difference goes; what it has moved away from both of them, never came, or came unasked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.line.trigger import LineCount

_ENOUGH_ALONE = 2  # counts of one side, while the other was silent: one of them may be between the two


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where the two counts stand.

    Args:
        run: of the line's counter.
        line: its count.
        ahead: by how much it is at least ahead of ours when every part was seen by both; at most, by one more.
        count: ours.
        known: whether a period has told `ahead`; before, it is where the two counts stood at the first look.
        least, most: by how much the line was ahead beyond that in this period; None before the first count of it.
        lines, parts: counted in this period, by the line and by us.
    """

    run: str
    line: int
    ahead: int
    count: int
    known: bool = False
    least: int | None = None
    most: int | None = None
    lines: int = 0
    parts: int = 0

    @property
    def difference(self) -> int:
        """Parts that the line counted and we did not, up to now."""
        return self.line - self.ahead - self.count


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
    return Account(run=line.run, line=line.count, ahead=line.count - count, count=count)


def with_part(account: Account) -> Account:
    """Count a part of ours."""
    return _sampled(replace(account, count=account.count + 1, parts=account.parts + 1))


def with_line(account: Account, line: LineCount) -> Account:
    """Take the line's count; one of another run opens the account anew."""
    if line.run != account.run:
        return opened(line, account.count)
    passed = line.count - account.line
    return account if passed == 0 else _sampled(replace(account, line=line.count, lines=account.lines + passed))


def settle(account: Account) -> Settled:
    """Compare, and agree anew: what was found is found once. Too few counts are left for the next period."""
    if account.least is None or account.most is None:
        return Settled(account=account)
    if not (account.lines and account.parts) and max(account.lines, account.parts) < _ENOUGH_ALONE:
        return Settled(account=account)
    if not account.known:
        return _agreed(replace(account, ahead=account.ahead + account.least), missing=0, surplus=0)
    missing = max(0, min(account.least, account.most - 1))
    return _agreed(account, missing=missing, surplus=max(0, min(-account.least, 1 - account.most)))


def settle_after_start(account: Account) -> Settled:
    """Return what the line counted while nobody counted here, but for one, which may be between the two just now."""
    settled = _agreed(account, missing=max(0, account.difference - 1), surplus=0)
    return replace(settled, account=replace(settled.account, known=account.known))


def _sampled(account: Account) -> Account:
    now = account.difference
    least = now if account.least is None else min(account.least, now)
    most = now if account.most is None else max(account.most, now)
    return replace(account, least=least, most=most)


def _agreed(account: Account, *, missing: int, surplus: int) -> Settled:
    ahead = account.ahead + missing - surplus
    begun = replace(account, ahead=ahead, known=True, least=None, most=None, lines=0, parts=0)
    return Settled(account=begun, missing=missing, surplus=surplus)
