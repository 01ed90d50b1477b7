"""What an error means for a deployment: try again, give this attempt up, or never run this version."""

from __future__ import annotations

from typing import Final

from agent.deploy.attempt import Fault, FaultKind
from wire.errors import LinesideError

AWAY: Final = "network.unreachable"

# Errors that lie in the version itself, or between it and this kind of device: they would come again every time. A
# crash, a hang or a want of time or memory may lie in the moment, so it ends only this deployment.
REFUSALS: Final = frozenset(
    {
        "deployment.incompatible",
        "deployment.out_of_bounds",
        "model.custom_ops",
        "model.external_data",
        "model.golden_mismatch",
        "model.manifest_invalid",
        "model.manifest_mismatch",
        "model.not_onnx",
        "model.not_vision",
        "model.provider_unavailable",
        "model.too_large",
        "model.truncated",
        "model.unloadable",
        "model.unsupported_opset",
        "model.unusable_output",
        "package.invalid",
    }
)


def fault_of(code: str, reason: str, otherwise: FaultKind) -> Fault:
    """Return a fault; `otherwise` is its kind where the code is no refusal."""
    return Fault(kind=FaultKind.REFUSAL if code in REFUSALS else otherwise, code=code, reason=reason)


def fault_of_download(error: LinesideError) -> Fault:
    """Return the fault that a download's error is."""
    return fault_of(error.code, str(error), FaultKind.AWAY if error.code == AWAY else FaultKind.PASSING)


def fault_from(error: LinesideError, otherwise: FaultKind) -> Fault:
    """Return the fault an error is."""
    return fault_of(error.code, str(error), otherwise)
