"""The handshake with a PLC, for both roles: what is seen and told goes in, events for the station come out.

Pure. The rules:
- A trigger is a growth of TriggerSeq within one Run. Each part the PLC counted is either taken (an event for the
  station), or counted in MissedTrigger or Overrun; none is taken twice.
- After a (re)connection nobody can tell when a part came: what the PLC counted up to there is missed, and the station
  learns the PLC's position.
- Results stand in one row, in the order of the triggers. The oldest is shown until ResultAck changes to its number
  after it was shown; only then the next one follows.
- A new Run, or a stopped agent, ends all that was open: the PLC no longer knows the parts.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Final, assert_never

from agent.line import register_map
from agent.line.handshake_state import (
    Answered,
    Happening,
    Lost,
    RecipeAnswered,
    Rules,
    Seen,
    Shown,
    State,
    Step,
    Stopping,
    Told,
)
from agent.line.register_map import AgentWords, Fault, PlcWords
from agent.line.trigger import Answer, LineCount, LinePosition, RecipeRequest, Trigger
from wire.inspection import Mode

STATION_SILENT_NS: Final = 10_000_000_000
_TORN_NS: Final = 1_000_000_000
_RECIPE_RETRY_NS: Final = 5_000_000_000
_COUNT_EVERY_NS: Final = 200_000_000


def run_name(rules: Rules, run: int) -> str:
    """Return how the station's records name the PLC's run."""
    return f"{rules.name}-{run}"


def step(state: State, happening: Happening, now_ns: int) -> Step:
    """Return the state after one happening, and the events it makes for the station."""
    match happening:
        case Seen():
            return _seen(state, happening, now_ns)
        case Shown():
            return Step(state=state if state.shown or not state.results else dataclasses.replace(state, shown=True))
        case Lost():
            return Step(state=dataclasses.replace(state, greeted=False, torn_since_ns=None, heartbeat=-1))
        case Told():
            return Step(state=dataclasses.replace(state, station=happening.state, station_ns=now_ns))
        case Answered():
            return Step(state=_answered(state, happening.answer))
        case RecipeAnswered():
            return Step(state=_recipe_answered(state, happening, now_ns))
        case Stopping():
            return Step(state=dataclasses.replace(state, stopping=True))
        case _ as unreachable:
            assert_never(unreachable)


def fault(state: State, now_ns: int) -> Fault:
    """Return the first thing that is wrong."""
    rules, station = state.rules, state.station
    checks = (
        (Fault.NO_RUN, not state.greeted and state.run == 0 and state.heartbeat >= 0),
        (Fault.TORN_BLOCK, state.torn_since_ns is not None and now_ns - state.torn_since_ns > _TORN_NS),
        (Fault.NO_BLOCK, not state.greeted),
        (Fault.SEQUENCE_BACK, state.went_back),
        (Fault.PLC_SILENT, 0 < rules.plc_silent_ns < now_ns - state.heartbeat_ns),
        (Fault.STATION_SILENT, station.ready and now_ns - state.station_ns > STATION_SILENT_NS),
        (Fault.NOT_READY, not station.ready and not rules.counter),
        (Fault.RECIPE_REFUSED, state.refused != 0),
        (Fault.RECIPE_SWITCH, not _recipe_is_settled(state)),
        (Fault.NO_ROOM, not _has_room(state)),
        (Fault.ACK_EARLY, state.early_ack),
    )
    return next((name for name, applies in checks if applies), Fault.NONE)


def words(state: State, now_ns: int) -> AgentWords:
    """Return what the agent's block says now."""
    if state.stopping:
        return register_map.FAIL_SAFE
    wrong = fault(state, now_ns)
    common = AgentWords(
        map_version=register_map.VERSION,
        agent_run=state.rules.agent_run,
        heartbeat=now_ns // (register_map.HEARTBEAT_MS * 1_000_000) & 0xFFFF,
        trigger_ready=int(wrong in (Fault.NONE, Fault.ACK_EARLY) and not state.rules.counter),
        busy=len(state.in_flight),
        fault=wrong,
        trigger_ack=state.last,
        missed_trigger=state.missed,
        overrun=state.overrun,
        dropped_results=state.dropped,
        recipe_active=state.station.recipe_number,
        recipe_fault=state.refused,
        results_waiting=len(state.results),
    )
    if not state.results:
        return common
    result = state.results[0]
    sequence = result.trigger.sequence or 0
    return dataclasses.replace(
        common,
        result_seq=sequence,
        result_run=state.run,
        result_valid=1,
        verdict=register_map.VERDICT_CODES[result.verdict],
        route=register_map.ROUTE_CODES[result.route],
        reason=register_map.REASON_CODES[result.reason],
        score=round(min(1.0, max(0.0, result.score)) * 10_000),
        result_ms=min(65_535, max(0, (result.judged_ns - result.trigger.at_ns) // 1_000_000)),
        result_seq_end=sequence,
    )


def _has_room(state: State) -> bool:
    return len(state.in_flight) + len(state.results) < state.rules.max_results


def _recipe_is_settled(state: State) -> bool:
    return state.request in (0, state.station.recipe_number)


def _seen(state: State, seen: Seen, now_ns: int) -> Step:
    plc = seen.plc
    state = _listen(state, plc, now_ns)
    if plc.run == state.run:
        state = _acknowledge(state, plc.result_ack)
    if plc.trigger_seq != plc.trigger_seq_end:
        if state.torn_since_ns is None:
            state = dataclasses.replace(state, torn_since_ns=now_ns)
        return Step(state=state)
    if state.torn_since_ns is not None:
        state = dataclasses.replace(state, torn_since_ns=None)
    if plc.run == 0:
        return Step(state=dataclasses.replace(_forget(state, 0), greeted=False) if state.run else state)
    if state.rules.counter:
        return _count(dataclasses.replace(state, run=plc.run, greeted=True, last=plc.trigger_seq), plc, now_ns)
    if not state.greeted or plc.run != state.run:
        position = _greet(state, plc)
        asked = _ask_for_recipe(position.state, plc.recipe_request, now_ns)
        return Step(state=asked.state, events=position.events + asked.events)
    asked = _ask_for_recipe(state, plc.recipe_request, now_ns)
    came = _take(asked.state, seen, now_ns)
    return Step(state=came.state, events=asked.events + came.events)


def _listen(state: State, plc: PlcWords, now_ns: int) -> State:
    """Note whether the PLC's heartbeat moves."""
    if plc.heartbeat == state.heartbeat:
        return state
    return dataclasses.replace(state, heartbeat=plc.heartbeat, heartbeat_ns=now_ns)


def _acknowledge(state: State, ack: int) -> State:
    """Take a result away once its number newly stands in ResultAck after it was shown."""
    oldest = state.results[0].trigger.sequence if state.results else None
    if oldest is None or ack != oldest:
        return (
            state if state.ack == ack and not state.early_ack else dataclasses.replace(state, ack=ack, early_ack=False)
        )
    if state.shown and state.ack != ack:
        return dataclasses.replace(
            state,
            ack=ack,
            early_ack=False,
            results=state.results[1:],
            shown=False,
            acknowledged=state.acknowledged + 1,
        )
    return dataclasses.replace(state, ack=ack, early_ack=True)


def _greet(state: State, plc: PlcWords) -> Step:
    """Learn where the PLC stands: what it counted meanwhile came at a moment nobody knows."""
    if plc.run == state.run:
        gone = max(0, plc.trigger_seq - state.last)
        last = max(plc.trigger_seq, state.last)
    else:
        gone = plc.trigger_seq if state.run else 0  # an agent that is new to a line does not answer for its past
        last = plc.trigger_seq
        state = dataclasses.replace(_forget(state, plc.run), ack=plc.result_ack)
    event = LinePosition(run=run_name(state.rules, plc.run), sequence=last)
    went_back = plc.trigger_seq < last
    return Step(
        state=dataclasses.replace(state, greeted=True, last=last, missed=state.missed + gone, went_back=went_back),
        events=(event,),
    )


def _forget(state: State, run: int) -> State:
    """Begin a new run: the PLC knows none of the parts that are open."""
    return dataclasses.replace(
        state,
        run=run,
        last=0,
        in_flight=(),
        results=(),
        shown=False,
        early_ack=False,
        went_back=False,
        dropped=state.dropped + len(state.in_flight) + len(state.results),
    )


def _take(state: State, seen: Seen, now_ns: int) -> Step:
    """Take the newest part where it can be judged; count it, and those before it, where not."""
    plc = seen.plc
    went_back = plc.trigger_seq < state.last
    if went_back != state.went_back:
        state = dataclasses.replace(state, went_back=went_back)
    if plc.trigger_seq <= state.last:
        return Step(state=state)
    tells_age = plc.trigger_age_ms > 0
    if tells_age and seen.exchange_ns > state.rules.trust_ns:
        return Step(state=state)  # the age came too slowly to tell the moment; the next look tells it again
    missed = state.missed + plc.trigger_seq - state.last - 1
    state = dataclasses.replace(state, last=plc.trigger_seq, missed=missed)
    is_certain = tells_age or seen.uncertain_ns <= state.rules.trust_ns
    if not is_certain or not _recipe_is_settled(state):
        return Step(state=dataclasses.replace(state, missed=missed + 1))
    if not _has_room(state):
        return Step(state=dataclasses.replace(state, overrun=state.overrun + 1))
    run = run_name(state.rules, plc.run)
    trigger = Trigger(
        id=f"{run}-{plc.trigger_seq}",
        run=run,
        sequence=plc.trigger_seq,
        at_ns=(now_ns if seen.at_ns is None else seen.at_ns) - plc.trigger_age_ms * 1_000_000,
        at_utc=seen.at_utc - timedelta(milliseconds=plc.trigger_age_ms),
        part_id=plc.part_id or None,
        lot=plc.lot or None,
        mode=Mode(register_map.MODES.get(plc.mode, Mode.SETUP.value)),  # what is not known enters no statistics
    )
    state = dataclasses.replace(state, in_flight=(*state.in_flight, plc.trigger_seq), taken=state.taken + 1)
    return Step(state=state, events=(trigger,))


def _count(state: State, plc: PlcWords, now_ns: int) -> Step:
    if plc.part_count == state.count or now_ns - state.count_ns < _COUNT_EVERY_NS:
        return Step(state=state)
    event = LineCount(run=run_name(state.rules, plc.run), count=plc.part_count)
    return Step(state=dataclasses.replace(state, count=plc.part_count, count_ns=now_ns), events=(event,))


def _ask_for_recipe(state: State, number: int, now_ns: int) -> Step:
    """Ask the station once for what the PLC asks for; a refused one again now and then, since models may arrive."""
    if number != state.request:
        state = dataclasses.replace(state, request=number, asked=0, refused=0)
    if _recipe_is_settled(state):
        if state.asked or state.refused:
            state = dataclasses.replace(state, asked=0, refused=0)
        return Step(state=state)
    if state.asked == number or (state.refused == number and now_ns - state.refused_ns < _RECIPE_RETRY_NS):
        return Step(state=state)
    return Step(
        state=dataclasses.replace(state, asked=number),
        events=(RecipeRequest(number=number, source="plc"),),
    )


def _recipe_answered(state: State, answer: RecipeAnswered, now_ns: int) -> State:
    if answer.number != state.asked:
        return state
    if answer.refusal:
        return dataclasses.replace(state, asked=0, refused=answer.number, refused_ns=now_ns)
    station = dataclasses.replace(state.station, recipe_number=answer.number)
    return dataclasses.replace(state, asked=0, refused=0, station=station)


def _answered(state: State, answer: Answer) -> State:
    """Put a result at the end of the row; parts before it that have none will never get one."""
    sequence = answer.trigger.sequence
    if sequence not in state.in_flight or answer.trigger.run != run_name(state.rules, state.run):
        return state
    place = state.in_flight.index(sequence)
    return dataclasses.replace(
        state,
        in_flight=state.in_flight[place + 1 :],
        results=(*state.results, answer),
        dropped=state.dropped + place,
    )
