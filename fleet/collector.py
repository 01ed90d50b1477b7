"""Sets Python's cyclic collector to a process that makes many short-lived values at once.

Ingest decodes thousands of records before it lets go of them. With the interpreter's own thresholds the collector
walks through all of them again and again, and finds nothing: they hold no cycles. That is a quarter of ingest's time.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS: Final = 50_000  # about what one transaction decodes; what is really garbage stays under some megabytes


def relax() -> None:
    """Leave out what stands since the start, and look at new values less often; called once, when all is set up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
