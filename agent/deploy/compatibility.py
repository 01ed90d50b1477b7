"""Whether a version suits this device: what its manifest requires against what the device offers."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from wire import manifest
from wire.errors import LinesideError


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What this device offers.

    Args:
        architecture: as the kernel names it: `x86_64`, `aarch64`.
        runtime_version: of onnxruntime.
        max_opset: the latest opset of the standard operators that this onnxruntime knows.
        provider: the one sessions run on.
    """

    architecture: str
    runtime_version: str
    max_opset: int
    provider: str


def this_device(provider: str) -> DeviceFacts:
    """Read the facts of the device this runs on."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    schemas = native.get_all_operator_schema()
    return DeviceFacts(
        architecture=platform.machine(),
        runtime_version=onnxruntime.__version__,
        max_opset=max(schema.since_version for schema in schemas if schema.domain == ""),
        provider=provider,
    )


def check(requires: manifest.Requires, device: DeviceFacts) -> None:
    """Compare what a version requires with what the device offers.

    Raises:
        LinesideError: `deployment.incompatible`, `model.unsupported_opset` or `model.provider_unavailable`.
    """
    if requires.architectures and device.architecture not in requires.architectures:
        raise LinesideError(
            "deployment.incompatible",
            f"It is made for {', '.join(requires.architectures)}; this device is {device.architecture}.",
        )
    if requires.runtime is not None and _numbers(device.runtime_version) < _numbers(requires.runtime):
        raise LinesideError(
            "deployment.incompatible",
            f"It needs onnxruntime {requires.runtime} or later; this device has {device.runtime_version}.",
            "Update the device.",
        )
    if requires.opset is not None and requires.opset > device.max_opset:
        raise LinesideError(
            "model.unsupported_opset",
            f"It needs opset {requires.opset}; onnxruntime {device.runtime_version} knows up to {device.max_opset}.",
            "Export it with an older opset, or update the device.",
        )
    if requires.providers and device.provider not in requires.providers:
        raise LinesideError(
            "model.provider_unavailable",
            f"It needs one of {', '.join(requires.providers)}; this device runs {device.provider}.",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
