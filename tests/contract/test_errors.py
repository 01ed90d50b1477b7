"""The register of error codes: complete, and the only place a code comes from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from wire.errors import REGISTER, LinesideError

REPO = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for room in ("wire", "agent", "fleet") for path in (REPO / room).rglob("*.py"))
CODE = re.compile(r"[a-z_]+\.[a-z_]+")
NO_CODES = {"id", "json", "name", "onnx", "pid"}  # columns and file names, such as device.id and model.onnx


def codes_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Find codes: the first argument of LinesideError(...) and of *.error(...), and `code=...` anywhere."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        places = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        if name in ("LinesideError", "error") and node.args:
            places.append(node.args[0])
        for place in places:
            for inner in ast.walk(place):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and CODE.fullmatch(inner.value):
                    yield inner.lineno, inner.value


def test_the_search_finds_codes_where_they_are_written() -> None:
    source = (
        'raise LinesideError("a.b", "text")\nx.error("c.d" if y else "e.f", 1)\nReport(code="g.h")\nlog.error("none")'
    )
    assert [code for _, code in codes_in(ast.parse(source))] == ["a.b", "c.d", "e.f", "g.h"]


def words_like_codes_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Find strings that begin like a code, wherever they stand; names of events and of columns are not meant."""
    families = {code.split(".")[0] for code in REGISTER}
    events = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "event"
        for inner in ast.walk(value)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):  # events for people, and what the audit calls an act
            is_event = getattr(node.func, "attr", "") in ("_tell", "tell")
            named = [*node.args[: int(is_event)], *(one.value for one in node.keywords if one.arg == "action")]
            events |= {id(one) for one in named}
    for node in ast.walk(tree):
        if id(node) in events:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
            family, _, rest = node.value.partition(".")
            if family in families and rest not in NO_CODES and not rest.endswith("ed"):
                yield node.lineno, node.value


def codes_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    yield from codes_in(tree)
    yield from words_like_codes_in(tree)


def test_a_misspelt_code_is_found_wherever_it_stands() -> None:
    source = 'bad = _fault("model.crashd", 1)\nKey("device.id")\nlog.info("x", extra={"event": "model.went_on"})'
    assert [code for _, code in codes_of(ast.parse(source))] == ["model.crashd"]


def test_every_code_in_the_source_is_in_the_register() -> None:
    unknown = [
        f"{path.relative_to(REPO)}:{line}: {code}"
        for path in SOURCES
        for line, code in codes_of(ast.parse(path.read_text(encoding="utf-8")))
        if code not in REGISTER
    ]
    assert unknown == []


@pytest.mark.parametrize(("code", "entry"), REGISTER.items())
def test_an_entry_fits_its_form(code: str, entry: object) -> None:
    row = REGISTER[code]
    assert CODE.fullmatch(code)
    assert row.title
    assert row.title[0].isupper()
    assert not row.title.endswith(".")
    assert 2 <= row.exit_status <= 9
    assert 400 <= row.http_status <= 599


def test_no_two_codes_have_the_same_title() -> None:
    titles = [entry.title for entry in REGISTER.values()]
    assert len(set(titles)) == len(titles)


def test_an_error_says_what_happened_and_what_to_do() -> None:
    error = LinesideError("resource.not_found", "There is no device press-9.", "List them: lineside-fleet devices.")
    assert str(error) == "There is no device press-9. List them: lineside-fleet devices."
    assert error.entry.exit_status == 7
