"""What is done next about a candidate, as a table: one fact changed at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.deploy.shadow_plan import (
    Asked,
    ChangeRate,
    Download,
    Facts,
    Forget,
    Refuse,
    Remembered,
    SelfTest,
    Start,
    Step,
    Stop,
    Verify,
    Wait,
    Word,
    next_step,
)

ACTIVE, CANDIDATE, OTHER = "a" * 64, "c" * 64, "d" * 64
ASKED = Asked(digest=CANDIDATE, rate=0.25)
TESTED = Remembered(digest=CANDIDATE, word=Word.TESTED, memory_mb=90.0, runtime_version="1.31.1")
REFUSED = Remembered(digest=CANDIDATE, word=Word.REFUSED, code="model.crashed", reason="It crashed.")
NEW = Facts(asked=ASKED, active=ACTIVE, runtime_version="1.31.1")
READY = replace(NEW, is_complete=True, remembered=TESTED)
RUNS = replace(READY, running=ASKED, remembered=replace(TESTED, word=Word.STARTED))

TABLE: list[tuple[str, Facts, Step]] = [
    ("nothing is asked for", Facts(active=ACTIVE), Wait()),
    ("nothing has come", NEW, Download()),
    ("the disk is full", replace(NEW, no_room=True), Wait(why="The disk has no room for it.")),
    ("a pause is not over", replace(NEW, waiting=True, trouble="Nobody answers."), Wait(why="Nobody answers.")),
    ("all has come", replace(NEW, is_complete=True), Verify()),
    ("it is verified", replace(NEW, is_complete=True, is_verified=True), SelfTest()),
    ("it is tested", READY, Start()),
    ("it was started before a restart in good order", replace(READY, remembered=RUNS.remembered), Start()),
    ("another runtime since", replace(READY, runtime_version="1.32.0"), Verify()),
    ("another runtime since, verified", replace(READY, runtime_version="1.32.0", is_verified=True), SelfTest()),
    ("its bytes were collected", replace(READY, is_complete=False), Download()),
    ("a version is on probation", replace(READY, is_busy=True), Wait(why="It waits until a deployment is over.")),
    ("too large", replace(READY, fits=False), Wait(why="Its 90 MB do not fit into memory beside what runs.")),
    (
        "no recipe names the model",
        replace(READY, is_named=False),
        Wait(why="No recipe of this device names the model."),
    ),
    (
        "no active version",
        replace(READY, active=None),
        Wait(why="The model has no active version to compare it with."),
    ),
    ("it is the active version", replace(READY, active=CANDIDATE), Wait(why="It is the active version.")),
    ("it was refused", replace(NEW, remembered=REFUSED), Wait(why="It crashed.")),
    ("it runs", RUNS, Wait()),
    ("it runs while another is on probation", replace(RUNS, is_busy=True), Wait()),
    ("it runs at another rate", replace(RUNS, asked=Asked(digest=CANDIDATE, rate=0.5)), ChangeRate(rate=0.5)),
    ("nobody wants it any more", replace(RUNS, asked=None), Stop()),
    ("another is wanted", replace(RUNS, asked=Asked(digest=OTHER, rate=0.25)), Stop()),
    ("it became the active version", replace(RUNS, active=CANDIDATE), Stop()),
    ("a swap needs its memory", replace(RUNS, is_short=True), Stop()),
    ("stopped, and nobody wants it", replace(RUNS, running=None, asked=None), Forget()),
    ("refused, and nobody wants it", Facts(active=ACTIVE, remembered=REFUSED), Forget()),
    ("refused, and another is wanted", replace(NEW, asked=Asked(digest=OTHER, rate=1.0), remembered=REFUSED), Forget()),
    (
        "it was stopped by itself",
        replace(RUNS, running=None, stopped=("model.too_slow", "A look takes too long.")),
        Refuse(code="model.too_slow", reason="A look takes too long."),
    ),
]


@pytest.mark.parametrize(("facts", "step"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_next_step_of_a_candidate(facts: Facts, step: Step) -> None:
    assert next_step(facts) == step
