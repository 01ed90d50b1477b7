"""Free ports on the loopback address; no two tests get the same one, in whichever processes they run."""

from __future__ import annotations

import random
import socket
from collections import deque

# Below the ports that Linux (32768 and up) and macOS (49152 and up) give by themselves to whoever asks for any port or
# connects to somewhere: a port from here stays free between its choice and its use.
_FIRST, _COUNT = 20_000, 12_000
_CLAIMED_MAX = 100
_claims: deque[socket.socket] = deque()
_next = random.SystemRandom().randrange(_COUNT)


def free_port() -> int:
    """Return a TCP port where nobody listens; it stays the caller's until this process has asked for a hundred more."""
    global _next  # noqa: PLW0603  (one row of numbers for the whole process)
    for _ in range(_COUNT):
        number = _FIRST + _next
        _next = (_next + 1) % _COUNT
        if _claim(number):
            return number
    raise RuntimeError("No port is free.")


def _claim(number: int) -> bool:
    """Take a number for this process: who holds it as a UDP port may use it as a TCP port. It ends with the process."""
    claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        claim.bind(("127.0.0.1", number))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that just ended is no hindrance
            probe.bind(("127.0.0.1", number))
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    if len(_claims) > _CLAIMED_MAX:
        _claims.popleft().close()
    return True
