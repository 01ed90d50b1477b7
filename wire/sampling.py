"""The sampling draw, computed alike on the device and in the office: u, inclusion probability, kept or not."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

import msgspec

from wire.ids import Count, Name

Rate = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Salt = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16,64}$(?!\n)")]
FLOOR_DEFAULT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """Which pictures are kept and sent.

    Args:
        revision: counts up with each change; the salt is fixed within a revision.
        salt: hexadecimal, mixed into every draw.
        floor_rate: the least inclusion probability any part has; never 0, so that no group of parts is unknowable.
        gate_rate: the units with u < gate_rate form the constant-probability sample that gates read.
    """

    revision: Count
    salt: Salt
    floor_rate: Rate = FLOOR_DEFAULT
    gate_rate: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What sampling decided about one inspection, kept in its record so that estimates can weigh it.

    Args:
        plan_revision: the plan that was in force.
        stratum: the group of parts that shares one inclusion probability.
        pi: inclusion probability.
        u: the draw in [0, 1).
        kept: u < pi, and the picture could be kept.
    """

    plan_revision: Count
    stratum: Name
    pi: Rate
    u: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
    kept: bool


def uniform(salt: str, inspection_id: str) -> float:
    """Return the draw u in [0, 1) of an inspection: 53 leading bits of SHA-256(salt ":" id).

    53 bits are what a double holds exactly, so that both sides and every language get the same number.
    """
    digest = hashlib.sha256(f"{salt}:{inspection_id}".encode()).digest()
    return float((int.from_bytes(digest[:8], "big") >> 11) / 2**53)


def draw(plan: SamplingPlan, inspection_id: str) -> Draw:
    """Decide whether an inspection's pictures are kept, under a floor-only plan.

    Args:
        plan: the plan in force.
        inspection_id: the inspection's UUIDv7.

    Returns:
        The draw; `kept` iff u < pi (accuracy.md section 1, pi = max(floor, rates of the rules that apply)).
    """
    u = uniform(plan.salt, inspection_id)
    pi = max(plan.floor_rate, plan.gate_rate)
    return Draw(plan_revision=plan.revision, stratum="all", pi=pi, u=u, kept=u < pi)
