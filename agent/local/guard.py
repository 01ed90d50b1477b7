"""Who may ask at the local address, told by a request's headers alone. Pure.

There are no passwords here: whoever can run a program on the device may ask. A web page that a browser on the device
shows may not, wherever it came from. Two ways lead from such a page to a loopback address, and both are closed here:
a name of the page's own that suddenly points to 127.0.0.1 (DNS rebinding: the Host header then holds that name), and a
form or script that posts across sites (the Origin or Sec-Fetch-Site header tells).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wire.errors import LinesideError

_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:(?P<port>[0-9]{1,5}))?(?!\n)")
_OWN_SITE: Final = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Lets a request pass, or says why not.

    Args:
        any_address: the agent listens on the network: any numeric address may name it. A number cannot be rebound.
    """

    any_address: bool = False

    def check(
        self, *, method: str, hosts: Sequence[str], origins: Sequence[str], sites: Sequence[str], content_type: str
    ) -> None:
        """Look at the headers Host, Origin and Sec-Fetch-Site (all of each), and Content-Type.

        Raises:
            LinesideError: `access.forbidden`, or `request.invalid` for a POST that is not JSON.
        """
        if len(hosts) != 1 or not self._is_ours(hosts[0].strip()):
            raise LinesideError(
                "access.forbidden",
                "The Host header does not name this device by a numeric address or localhost.",
                "Ask by the address that `lineside status` tells.",
            )
        host = hosts[0].strip().lower()
        if any(origin.strip().lower() != f"http://{host}" for origin in origins) or any(
            site.strip().lower() not in _OWN_SITE for site in sites
        ):
            raise LinesideError("access.forbidden", "Pages of other sites may not ask here.")
        kind, _, _ = content_type.partition(";")
        if method == "POST" and kind.strip().lower() != "application/json":
            raise LinesideError(
                "request.invalid", "The body must be JSON.", "Send the header Content-Type: application/json."
            )

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].lower().removeprefix("[").removesuffix("]")
        if name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self.any_address
