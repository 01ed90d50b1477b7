"""Whether a station can judge parts now, and if not, why not, in a sentence. Pure but for the setups it looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.capture.frame import TimeClass
from agent.inspection.catalogue import Catalogue
from agent.line.settings import LineSettings
from agent.line.trigger import StationState


def timeless_views(line: LineSettings, time_classes: Mapping[str, TimeClass]) -> tuple[str, ...]:
    """Return the views that cannot tell which part a frame shows, since they know arrivals only.

    It is no matter where the line asks for the next frame, nor in the view in whose own frames the part gate finds the
    parts.
    """
    if line.kind in {"each_frame", "interval"}:
        return ()
    gated = line.part_gate.view if line.kind == "part_gate" and line.part_gate is not None else None
    return tuple(view for view, known in time_classes.items() if known is TimeClass.ARRIVAL_ONLY and view != gated)


def state_of(catalogue: Catalogue, timeless: Sequence[str], trouble: str = "") -> StationState:
    """Return what the line may know.

    Args:
        timeless: of `timeless_views`.
        trouble: why the station judges nothing just now, whatever its recipe; empty where nothing is in the way.
    """
    recipe = catalogue.current.recipe
    why = trouble or catalogue.why_absent
    if not why and timeless and not recipe.standstill:
        why = (
            f"The view {timeless[0]} cannot tell which part a frame shows: it knows arrivals only, and recipe "
            f"{recipe.id} declares no standstill."
        )
    return StationState(ready=not why, not_ready=why, recipe=recipe.id, recipe_number=recipe.number or 0)
