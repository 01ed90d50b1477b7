"""The door to pymodbus, which only devices with a PLC need: present, quiet, or a clear error."""

from __future__ import annotations

import importlib
import logging
import threading
from typing import Final

from wire.errors import LinesideError

_MODULES: Final = ("pymodbus.client", "pymodbus.server", "pymodbus.simulator")
_lock = threading.Lock()


def require() -> None:
    """Import pymodbus, here and once: its modules import each other, which two threads at a time do not survive.

    Its own log of each failed attempt is left out, since changes are logged here.

    Raises:
        LinesideError: `config.missing_extra` where it is not installed.
    """
    with _lock:
        try:
            for name in _MODULES:
                importlib.import_module(name)
        except ImportError as error:
            raise LinesideError(
                "config.missing_extra",
                f"A line of kind modbus needs the package pymodbus: {error}.",
                'Install it: pip install "lineside[modbus]".',
            ) from error
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
