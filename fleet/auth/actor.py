"""Who acts: a person with a role, a device, or someone at the server's own command line."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.StrEnum):
    """What a token allows; each role may do all that the ones before it may."""

    VIEWER = "viewer"  # read
    REVIEWER = "reviewer"  # judge pictures
    OPERATOR = "operator"  # say what devices run
    RELEASER = "releaser"  # bring in model versions
    ADMIN = "admin"  # enrol and revoke, tokens, audit


RANK = {role: rank for rank, role in enumerate(Role)}


class Kind(enum.StrEnum):
    """What kind of actor."""

    OPERATOR = "operator"
    DEVICE = "device"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Someone whose credential was checked.

    Args:
        name: of the token, the device, or the account at the command line.
        role: None for devices.
    """

    kind: Kind
    name: str
    role: Role | None = None

    @property
    def label(self) -> str:
        """As the audit writes it: `operator:anna`, `device:cell-1`, `local:root`."""
        return f"{self.kind}:{self.name}"

    def may(self, role: Role) -> bool:
        """Tell whether this actor has at least `role`."""
        return self.role is not None and RANK[self.role] >= RANK[role]
