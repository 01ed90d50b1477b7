"""What a person can do about the code of a refused or failed deployment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_OTHER_RELEASE: Final = "Publish a corrected release, and ask for that one."
_PACKAGE: Final = (
    "Build the package anew with `lineside model check` and `lineside model pack`, and push a new release."
)
_RETRY: Final = "When the cause is gone: `lineside-fleet desired set DEVICE --model NAME=RELEASE --retry`."
_NETWORK: Final = "Look at the network between the device and the fleet. " + _RETRY

OF_CODE: Final[Mapping[str, str]] = {
    "deployment.incompatible": "Ask for a release that is made for this device's architecture and runtime.",
    "deployment.out_of_bounds": "Change the recipe's parameters, or publish a release whose bounds allow them.",
    "deployment.digest_mismatch": "Push the version again; then ask for it with --retry.",
    "deployment.download_failed": _NETWORK,
    "deployment.self_test_failed": "Look at the device's log, and run `lineside model check` there. " + _RETRY,
    "deployment.activation_failed": "Look at the device's log. " + _RETRY,
    "deployment.revert_failed": "Neither version runs. On the device: `lineside models list`, then rollback or import.",
    "deployment.attempts_exhausted": "The agent ended again and again with it: look at its log. " + _RETRY,
    "deployment.crashed": "Look at the device's log; do not ask for it again before the cause is known.",
    "deployment.no_verdicts": "Compare the pictures without verdict; publish a corrected release.",
    "deployment.too_slow": "Publish a lighter release, or one for this device's provider.",
    "deployment.grew": "Look for what holds memory; publish a corrected release.",
    "deployment.unproven": "Too few parts came: lower `[deploy.probation] parts`, or wait for production. " + _RETRY,
    "deployment.rolled_back": "Ask whoever went back why, before asking for it again with --retry.",
    "deployment.overruled": "A person at the device chose another version: talk to them, then ask again with --retry.",
    "deployment.withdrawn": "Nothing: it was taken back before it was proven.",
    "deployment.hold_expired": "End what it waited for (window, line, confirmation). " + _RETRY,
    "storage.full": "Make room on the device: `lineside models gc`, or fewer kept pictures. " + _RETRY,
    "storage.unusable": "Look at the device's disk. " + _RETRY,
    "storage.corrupt": "Look at the device's disk. " + _RETRY,
    "network.unreachable": _NETWORK,
    "network.bad_answer": _NETWORK,
    "resource.not_found": "The fleet no longer has the version's files: push it again. " + _RETRY,
    "access.unauthenticated": "Enrol the device again with a new claim. " + _RETRY,
    "access.forbidden": "Enrol the device again with a new claim. " + _RETRY,
    "device.revoked": "Enrol the device again with a new claim.",
    "model.golden_mismatch": "Compare on the device with `lineside model compare`, and publish a release for it.",
    "model.too_slow": "Raise the limit in the manifest, or publish a lighter release.",
    "model.out_of_memory": "Publish a smaller release, or free memory on the device. " + _RETRY,
    "model.crashed": "Look at the device's log, and run `lineside model check` there. " + _RETRY,
    "model.timed_out": "Look at what else the device does. " + _RETRY,
    "model.illegal_instruction": "Ask for a release that is made for this device's processor.",
    "model.provider_unavailable": "Install the provider on the device, or publish a release that does not need it.",
    "model.unsupported_opset": "Export the model with an older opset, or update the agent.",
    "model.unusable_output": _OTHER_RELEASE,
    "model.run_failed": "Look at the device's log. " + _RETRY,
}


def of(code: str) -> str:
    """Return what to do about a code, empty where there is none."""
    if not code:
        return ""
    found = OF_CODE.get(code)
    if found is not None:
        return found
    return _PACKAGE if code.startswith(("package.", "model.")) else "Look at the device's log. " + _RETRY
