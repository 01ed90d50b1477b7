"""The register of error codes: one table for CLI exit status, HTTP problem and device report alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCode:
    """One kind of failure, as every part of Lineside names it.

    Args:
        title: what went wrong, in a few words for a person.
        exit_status: what a command line program exits with.
        http_status: what the API answers with.
    """

    title: str
    exit_status: int
    http_status: int


# Exit statuses by family: 2 usage, 3 configuration, 4 network, 5 refused by rule, 6 model, 7 not found, 8 access,
# 9 internal.
REGISTER: Final[dict[str, ErrorCode]] = {
    "usage.invalid": ErrorCode(title="The command line is wrong", exit_status=2, http_status=400),
    "config.missing_file": ErrorCode(title="A configuration file is missing", exit_status=3, http_status=500),
    "config.invalid_syntax": ErrorCode(title="A configuration file is not valid TOML", exit_status=3, http_status=500),
    "config.unknown_key": ErrorCode(title="A configuration file has an unknown key", exit_status=3, http_status=500),
    "config.wrong_type": ErrorCode(title="A configuration value has the wrong type", exit_status=3, http_status=500),
    "config.invalid_value": ErrorCode(title="A configuration value is not allowed", exit_status=3, http_status=500),
    "config.missing_key": ErrorCode(title="A configuration key is missing", exit_status=3, http_status=500),
    "config.missing_extra": ErrorCode(title="A part of Lineside is not installed", exit_status=3, http_status=500),
    "source.unavailable": ErrorCode(title="A picture source cannot be opened", exit_status=4, http_status=502),
    "source.unreadable": ErrorCode(title="A picture source holds no readable picture", exit_status=4, http_status=422),
    "source.region_outside": ErrorCode(
        title="The model's region lies outside the picture", exit_status=6, http_status=422
    ),
    "calibration.no_target": ErrorCode(
        title="The picture does not show the calibration target", exit_status=5, http_status=422
    ),
    "calibration.invalid": ErrorCode(title="The calibration cannot be used", exit_status=5, http_status=422),
    "network.unreachable": ErrorCode(title="The other side cannot be reached", exit_status=4, http_status=502),
    "network.bad_answer": ErrorCode(title="The other side gave an unexpected answer", exit_status=4, http_status=502),
    "network.address_unavailable": ErrorCode(title="An address cannot be listened on", exit_status=4, http_status=500),
    "broker.unavailable": ErrorCode(title="The broker cannot be started or reached", exit_status=4, http_status=503),
    "broker.not_loopback": ErrorCode(
        title="The embedded broker serves this machine only", exit_status=5, http_status=400
    ),
    "message.undecodable": ErrorCode(title="A message cannot be decoded", exit_status=5, http_status=400),
    "message.too_large": ErrorCode(title="A message is over its byte budget", exit_status=5, http_status=413),
    "message.foreign_id": ErrorCode(title="A message names another device", exit_status=5, http_status=403),
    "message.unknown_device": ErrorCode(title="A message comes from an unknown device", exit_status=5, http_status=403),
    "message.invalid_value": ErrorCode(
        title="A message holds a value that is not allowed", exit_status=5, http_status=422
    ),
    "device.revoked": ErrorCode(title="The device is revoked", exit_status=8, http_status=403),
    "model.not_onnx": ErrorCode(title="The file is not an ONNX model", exit_status=6, http_status=422),
    "model.truncated": ErrorCode(title="The model file is cut short or damaged", exit_status=6, http_status=422),
    "model.custom_ops": ErrorCode(title="The model needs operators the runtime lacks", exit_status=6, http_status=422),
    "model.not_vision": ErrorCode(title="The model does not take a picture", exit_status=6, http_status=422),
    "model.too_large": ErrorCode(title="The model is over the size limit", exit_status=6, http_status=422),
    "model.external_data": ErrorCode(title="The model keeps data outside its file", exit_status=6, http_status=422),
    "model.unsupported_opset": ErrorCode(title="The model's opset is not supported", exit_status=6, http_status=422),
    "model.unloadable": ErrorCode(title="The runtime cannot load the model", exit_status=6, http_status=422),
    "model.crashed": ErrorCode(title="The model ended the process that loaded it", exit_status=6, http_status=422),
    "model.timed_out": ErrorCode(title="The model took too long", exit_status=6, http_status=422),
    "model.manifest_invalid": ErrorCode(title="The manifest is not valid", exit_status=6, http_status=422),
    "model.manifest_mismatch": ErrorCode(title="The manifest does not fit the model", exit_status=6, http_status=422),
    "model.out_of_memory": ErrorCode(title="The model needs too much memory", exit_status=6, http_status=422),
    "model.illegal_instruction": ErrorCode(
        title="The model needs an instruction the processor lacks", exit_status=6, http_status=422
    ),
    "model.too_slow": ErrorCode(title="The model is slower than its limit", exit_status=6, http_status=422),
    "model.golden_mismatch": ErrorCode(title="The golden samples give other results", exit_status=6, http_status=422),
    "model.unusable_output": ErrorCode(
        title="The model gave an output that cannot be used", exit_status=6, http_status=422
    ),
    "model.run_failed": ErrorCode(title="The runtime could not run the model", exit_status=6, http_status=422),
    "model.provider_unavailable": ErrorCode(title="A required provider is missing", exit_status=6, http_status=422),
    "package.invalid": ErrorCode(title="The model package is not valid", exit_status=6, http_status=422),
    "package.incomplete": ErrorCode(title="Files of the model package are missing", exit_status=6, http_status=422),
    "package.not_an_archive": ErrorCode(title="The file is not a packed package", exit_status=6, http_status=422),
    "package.archive_truncated": ErrorCode(title="The packed package is cut short", exit_status=6, http_status=422),
    "package.unsafe_path": ErrorCode(
        title="A packed package names a path outside itself", exit_status=6, http_status=422
    ),
    "package.unsafe_entry": ErrorCode(
        title="A packed package holds something other than plain files", exit_status=6, http_status=422
    ),
    "package.too_large": ErrorCode(title="A packed package is over the size limit", exit_status=6, http_status=422),
    "package.damaged": ErrorCode(
        title="Files of a package are not those its index lists", exit_status=6, http_status=422
    ),
    "deployment.digest_mismatch": ErrorCode(
        title="Downloaded bytes differ from their digest", exit_status=6, http_status=422
    ),
    "deployment.incompatible": ErrorCode(title="The model does not suit this device", exit_status=6, http_status=422),
    "deployment.out_of_bounds": ErrorCode(
        title="A parameter is outside the bounds the model allows", exit_status=5, http_status=422
    ),
    "deployment.self_test_failed": ErrorCode(title="The model failed its self-test", exit_status=6, http_status=422),
    "deployment.activation_failed": ErrorCode(title="The model could not be activated", exit_status=6, http_status=422),
    "deployment.revert_failed": ErrorCode(
        title="The former model could not be restored", exit_status=6, http_status=500
    ),
    "deployment.download_failed": ErrorCode(title="The model could not be downloaded", exit_status=4, http_status=502),
    "deployment.attempts_exhausted": ErrorCode(
        title="Too many attempts without success", exit_status=6, http_status=422
    ),
    "deployment.crashed": ErrorCode(title="The agent crashed while the model was new", exit_status=6, http_status=422),
    "deployment.no_verdicts": ErrorCode(
        title="The model gave no verdict for too many parts", exit_status=6, http_status=422
    ),
    "deployment.too_slow": ErrorCode(
        title="The model is much slower than the one before it", exit_status=6, http_status=422
    ),
    "deployment.grew": ErrorCode(title="Memory kept growing with the model", exit_status=6, http_status=422),
    "deployment.unproven": ErrorCode(title="Too few parts came to prove the model", exit_status=5, http_status=409),
    "deployment.rolled_back": ErrorCode(title="A person went back to the former model", exit_status=5, http_status=409),
    "deployment.overruled": ErrorCode(
        title="A person beside the machine asked for another model", exit_status=5, http_status=409
    ),
    "deployment.withdrawn": ErrorCode(title="The model was no longer asked for", exit_status=5, http_status=409),
    "deployment.hold_expired": ErrorCode(
        title="What the deployment waited for did not come in time", exit_status=5, http_status=409
    ),
    "deployment.illegal_transition": ErrorCode(title="A deployment cannot go that way", exit_status=9, http_status=409),
    "recipe.refused": ErrorCode(title="The station does not take the recipe", exit_status=5, http_status=409),
    "resource.not_found": ErrorCode(title="There is no such thing", exit_status=7, http_status=404),
    "resource.conflict": ErrorCode(title="It exists already, with other content", exit_status=5, http_status=409),
    "resource.stale": ErrorCode(title="It was changed by someone else meanwhile", exit_status=5, http_status=412),
    "resource.precondition_required": ErrorCode(title="If-Match is required", exit_status=5, http_status=428),
    "request.invalid": ErrorCode(title="The request is not valid", exit_status=2, http_status=422),
    "request.range_unsatisfiable": ErrorCode(title="The range lies outside the file", exit_status=2, http_status=416),
    "request.too_large": ErrorCode(title="The request is over the size limit", exit_status=5, http_status=413),
    "request.timed_out": ErrorCode(title="The request did not come in time", exit_status=4, http_status=408),
    "request.too_many": ErrorCode(title="Too many requests at once", exit_status=4, http_status=429),
    "access.unauthenticated": ErrorCode(title="No valid credential was given", exit_status=8, http_status=401),
    "access.forbidden": ErrorCode(title="The credential does not allow this", exit_status=8, http_status=403),
    "claim.invalid": ErrorCode(title="The claim token is unknown, used or expired", exit_status=8, http_status=403),
    "database.not_current": ErrorCode(title="The database has another schema version", exit_status=3, http_status=503),
    "storage.full": ErrorCode(title="There is no room left", exit_status=9, http_status=507),
    "storage.corrupt": ErrorCode(title="A stored file is damaged", exit_status=9, http_status=500),
    "storage.unusable": ErrorCode(title="A file or folder cannot be used", exit_status=9, http_status=500),
    "storage.in_use": ErrorCode(title="Another process uses the file", exit_status=9, http_status=409),
    "internal.unexpected": ErrorCode(title="Something went wrong inside Lineside", exit_status=9, http_status=500),
}


class LinesideError(Exception):
    """A failure a person can act on: what went wrong and why, and what to do next.

    Args:
        code: a key of `REGISTER`.
        message: what went wrong and why, one sentence, with the names and values concerned.
        next_step: what the person can do about it.
    """

    def __init__(self, code: str, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.next_step = next_step

    @property
    def entry(self) -> ErrorCode:
        return REGISTER[self.code]

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".rstrip()
