"""`lineside cameras calibrate`: how many millimetres a pixel is, from a chessboard where the parts lie, or by hand."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.commands import running
from wire.errors import LinesideError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agent.capture.calibration import Calibration


def add_parser(verbs: Any) -> None:
    """Mount the command."""
    parser = verbs.add_parser("calibrate", help="measure in millimetres from now on, by a chessboard or a known scale")
    parser.add_argument("view", metavar="STATION/VIEW")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--chessboard", metavar="CxR", help="inner corners of the board that lies there now: 8 x 6 squares have 7x5"
    )
    how.add_argument("--mm-per-px", type=float, metavar="MM", help="for a camera that looks straight at the part")
    how.add_argument("--remove", action="store_true", help="measure in pixels only again")
    parser.add_argument("--square-mm", type=float, metavar="MM", help="side of one square of the board")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="a picture of the board (default: what it sees now)"
    )
    running.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make a calibration and keep it."""
    if (args.chessboard is None) != (args.square_mm is None):
        raise LinesideError(
            "usage.invalid",
            "--chessboard and --square-mm belong together.",
            "For example: --chessboard 7x5 --square-mm 10",
        )
    looks = args.chessboard is not None and args.picture is None
    status = running.running(args) if looks else running.read(args).status
    station, view, _ = running.view_of(status, args.view)
    place = (station.health.station, view.view)
    name = "/".join(place)

    from agent.capture import commissioned
    from agent.capture.target import CalibrationStore

    store = CalibrationStore(commissioned.root_of(running.data_dir_of(args)))
    if args.remove:
        gone = store.remove(*place)
        sys.stderr.write(f"{name} {'is no longer' if gone else 'was not'} calibrated.\n")
    else:
        made = _made(args, lambda: running.ask(status, "GET", f"/v1/stations/{place[0]}/views/{place[1]}/snapshot.jpg"))
        store.write(*place, made)
        sys.stderr.write(f"{name}: {_words(made)}.\n")
    sys.stderr.write("It counts from the agent's next start on.\n")
    return 0


def _made(args: argparse.Namespace, look: Any) -> Calibration:
    from agent.capture import calibration, target

    if args.mm_per_px is not None:
        return calibration.of_scale(args.mm_per_px)
    corners = re.fullmatch(r"(\d{1,3})x(\d{1,3})", args.chessboard)
    if corners is None:
        raise LinesideError(
            "usage.invalid", f"{args.chessboard!r} is not COLUMNSxROWS.", "For example: --chessboard 7x5"
        )
    data = args.picture.read_bytes() if args.picture is not None else look()
    picture = _picture_of(data, args.picture)
    return target.from_chessboard(picture, columns=int(corners[1]), rows=int(corners[2]), square_mm=args.square_mm)


def _picture_of(data: bytes, path: Path | None) -> NDArray[np.uint8]:
    import cv2
    import numpy as np

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None:
        raise LinesideError("source.unreadable", f"{path or 'The snapshot'} is no picture.", "Give a JPEG or PNG file.")
    return np.asarray(picture, dtype=np.uint8)


def _words(made: Calibration) -> str:
    from wire.inspection import Box

    if made.width_px is None or made.height_px is None:
        return made.target
    middle_x, middle_y = made.width_px / 2, made.height_px / 2
    pixel = Box(x1_px=middle_x, y1_px=middle_y, x2_px=middle_x + 1, y2_px=middle_y + 1)
    width_mm, height_mm = made.size_mm(pixel)
    return (
        f"{made.target}; a pixel in the middle is {width_mm:.3f} x {height_mm:.3f} mm, "
        f"the corners fit within {made.error_mm:.3f} mm"
    )
