"""`lineside cameras probe`: opens a camera by its address, without the agent, and says what it is like."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.commands import running
from wire import command_line
from wire.errors import LinesideError

if TYPE_CHECKING:
    from agent.capture.probe import Probed
    from agent.capture.settings import SourceSettings

SCHEMA: Final = "lineside.camera-probe/1"
_BY_ID: Final = Path("/dev/v4l/by-id")
_TIME_WORDS: Final = {
    "hardware_triggered": "the line's trigger fires the shutter",
    "device_timestamped": "the camera stamps each exposure",
    "arrival_only": "only the arrival of a frame is known: parts that trigger must stand still (standstill = true)",
    "recorded": "a recording: each frame is a part (line kind each_frame or interval)",
}


def add_parser(verbs: Any) -> None:
    """Mount the command."""
    probe = verbs.add_parser("probe", help="open a camera by its address, without the agent, and say what it is like")
    probe.add_argument(
        "address", metavar="ADDRESS", help="rtsp://..., a device like /dev/v4l/by-id/..., a file or folder"
    )
    secret = probe.add_mutually_exclusive_group()
    secret.add_argument(
        "--user", metavar="NAME", help="asks for the password, so that it stays out of the shell's history"
    )
    secret.add_argument("--credentials-file", type=Path, metavar="FILE", help="holds one line USER:PASSWORD")
    probe.add_argument("-o", "--output", type=Path, metavar="FILE", help="save the last picture (JPEG)")
    add_seconds(probe)
    running.add_json(probe)
    probe.set_defaults(run=run_probe)


def add_seconds(parser: argparse.ArgumentParser) -> None:
    """Add --seconds."""
    parser.add_argument("--seconds", type=float, default=5.0, metavar="N", help="how long to watch (default: 5)")


def run_probe(args: argparse.Namespace) -> int:
    """Open one source and say what it is like; 4 where it gives no pictures."""
    from agent.capture import probe, source_words, sources
    from agent.clock import SystemClock

    check_seconds(args.seconds)
    quiet()
    settings = _settings_of(args)
    words = source_words.words_of(settings)
    sys.stderr.write(f"Watching {words} for {args.seconds:g} s ...\n")
    seen = probe.probe(
        sources.source_of("probe", settings, SystemClock()),
        seconds=args.seconds,
        open_timeout_s=settings.open_timeout_s + settings.read_timeout_s,
    )
    if args.output is not None and seen.picture_bgr is not None:
        from agent.capture import encode

        args.output.write_bytes(encode.jpeg(seen.picture_bgr)[0])
        sys.stderr.write(f"The last picture is in {args.output}.\n")
    if args.json:
        command_line.print_json(SCHEMA, {"source": words, **_figures(seen)})
    if seen.frames == 0:
        raise LinesideError("source.unavailable", _no_picture(words, seen.trouble), _advice(settings, seen.trouble))
    if not args.json:
        print("\n".join([*_lines(words, seen), *_as_settings(settings, seen)]))
    return 0


def wrong_with(seen: Probed) -> list[str]:
    """Return what was wrong with the pictures; a single bad one of many is no trouble of the camera's."""
    from agent.health.troubles import VITAL_WORDS

    return [
        f"{VITAL_WORDS.get(vital, vital)} ({count} of {seen.frames} frames)."
        for vital, count in seen.vitals.items()
        if count * 2 > seen.frames
    ]


def _settings_of(args: argparse.Namespace) -> SourceSettings:
    """Return the settings an address means."""
    from agent.capture import address as addresses
    from agent.capture.settings import SourceSettings

    text: str = args.address
    credentials = str(args.credentials_file) if args.credentials_file is not None else None
    if text.startswith(("rtsp://", "rtsps://")):
        if addresses.secrets_in(text):
            sys.stderr.write(
                "note: a password in an address stays in the shell's history and in the list of processes; "
                "use --user or --credentials-file.\n"
            )
        if args.user is not None:
            import getpass

            try:
                password = getpass.getpass(f"Password of {args.user}: ")
            except EOFError as error:
                raise LinesideError(
                    "usage.invalid", "No password was given.", "Type it, or use --credentials-file where nobody can."
                ) from error
            text = addresses.with_credentials(text, args.user, password)
        return SourceSettings(kind="rtsp", url=text, policy="latest", credentials_file=credentials)
    path = Path(text)
    if text.startswith("/dev/"):
        return SourceSettings(kind="v4l2", path=text, policy="latest")
    if path.is_dir():
        return SourceSettings(kind="folder", path=text)
    if path.is_file():
        return SourceSettings(kind="video", path=text)
    raise LinesideError(
        "usage.invalid",
        f"{addresses.redact(text)} is no address of a camera, and no file or folder that exists.",
        "For example: rtsp://10.0.0.7/stream, /dev/v4l/by-id/usb-..., clip.mp4",
    )


def quiet() -> None:
    """What the agent's own log would say of a camera is said by the command."""
    import logging

    logging.getLogger("agent").setLevel(logging.CRITICAL)


def check_seconds(seconds: float) -> None:
    """Refuse what nobody means; raises `usage.invalid`."""
    if not 0 < seconds <= 3600:
        raise LinesideError("usage.invalid", "--seconds must be above 0 and at most 3600.", "For example: --seconds 5")


def _lines(words: str, seen: Probed) -> list[str]:
    lines = [
        words,
        f"  first picture  after {seen.first_after_s or 0.0:.1f} s",
        f"  size           {size_of(seen)}",
        f"  pace           {pace_of(seen)}",
        f"  time           {_TIME_WORDS[seen.info.time_class.value]}",
    ]
    wrong = wrong_with(seen)
    return lines + [f"  PICTURE        {sentence}" for sentence in wrong] + ["  picture        good"] * (not wrong)


def size_of(seen: Probed) -> str:
    """Return the sizes that came, in words."""
    return ", then ".join(f"{width} x {height}" for width, height in seen.sizes_px)


def pace_of(seen: Probed) -> str:
    """Return how many frames came and how regularly, in words."""
    rate = f"{seen.frames_per_s:.1f} frames/s, longest gap {seen.longest_gap_ms:.0f} ms" if seen.frames_per_s else "-"
    return f"{seen.frames} frames, {rate}" if seen.frames > 1 else f"{seen.frames} frame"


def _figures(seen: Probed) -> dict[str, Any]:
    return {
        "time_class": seen.info.time_class.value,
        "first_after_s": seen.first_after_s,
        "frames": seen.frames,
        "frames_per_s": seen.frames_per_s,
        "longest_gap_ms": seen.longest_gap_ms,
        "sizes_px": seen.sizes_px,
        "vitals": seen.vitals,
        "trouble": seen.trouble,
    }


def _no_picture(words: str, trouble: str) -> str:
    """Return the source's own word on it, which mostly names the source, or ours."""
    if trouble and words.rpartition(" ")[2] in trouble:
        return trouble
    return f"{words} gave no picture: {(trouble or 'nothing came').rstrip('.')}."


def _advice(settings: SourceSettings, trouble: str) -> str:
    """Return what to do where the source's own word does not say it."""
    if trouble.count(".") > 1 or settings.kind not in {"rtsp", "v4l2"}:
        return ""
    if settings.kind == "rtsp":
        return "Is the camera switched on, and can this device reach it? Are user and password right?"
    return f"Is it plugged in, and used by nothing else? {_BY_ID} lists cameras."


def _as_settings(settings: SourceSettings, seen: Probed) -> list[str]:
    """Return what to write into agent.toml; passwords belong into a file of their own."""
    from agent.capture.address import redact, secrets_in

    lines = ["", "In agent.toml:", "", "[stations.views.source]", f'kind = "{settings.kind}"']
    if settings.url is not None:
        has_secret = bool(secrets_in(settings.url))
        lines.append(f'url = "{redact(settings.url).replace("***@", "")}"')
        if settings.credentials_file is not None or has_secret:
            lines.append(f'credentials_file = "{settings.credentials_file or "FILE"}"  # one line USER:PASSWORD')
    if settings.path is not None:
        path = Path(settings.path)
        lines.append(f'path = "{_stable(path) if settings.kind == "v4l2" else path.resolve()}"')
    if seen.info.live:
        lines.append('policy = "latest"')
    return lines


def _stable(path: Path) -> Path:
    """Return the name under which a local camera is found also after all were plugged in in another order."""
    if path.is_relative_to(_BY_ID) or not _BY_ID.is_dir():
        return path
    return next((name for name in sorted(_BY_ID.iterdir()) if name.resolve() == path.resolve()), path)
