"""Sessions of one version that leak or end the process: a fault of a runtime or a driver, which no ONNX file can hold.

`spoil` replaces `agent.vision.runtime.load` in the process that calls it; the self-test's child is a process of its own
and does not have the fault.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from agent.vision import runtime
from wire.package import Package

MIB: Final = 1024 * 1024
_leaked: list[bytearray] = []


class FaultySession:
    """Looks like the session it wraps, and does harm with every look."""

    def __init__(self, session: runtime.Session, harm: Callable[[], None]) -> None:
        self._session = session
        self._harm = harm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        self._harm()
        return self._session.run(*args, **kwargs)


def leak_of(size: int) -> Callable[[], None]:
    """Return a harm that takes so many bytes with each look and never gives them back."""

    def harm() -> None:
        block = bytearray(size)
        block[::4096] = b"x" * len(block[::4096])
        _leaked.append(block)

    return harm


def let_go() -> None:
    """Give back what was leaked, when the test is over."""
    _leaked.clear()


def crash_at(count: int) -> Callable[[], None]:
    """Return a harm that ends the process with the so-manieth look."""
    looks = iter(range(1, count + 1))

    def harm() -> None:
        if next(looks, count) == count:
            os.abort()

    return harm


def spoil(harms: dict[str, Callable[[], None]], replace: Callable[[object, str, object], None] = setattr) -> None:
    """Wrap the sessions of these digests.

    Args:
        replace: `monkeypatch.setattr` where the process lives on after it.
    """
    load = runtime.load

    def spoiled(package: Package, options: runtime.RuntimeOptions) -> Any:
        session = load(package, options)
        harm = harms.get(package.digest)
        return FaultySession(session, harm) if harm is not None else session

    replace(runtime, "load", spoiled)
