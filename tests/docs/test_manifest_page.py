"""The page of the manifest names every key and every choice, its examples are good, and the schema says what we do."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from tests.support import manifest_mutations
from wire.errors import LinesideError
from wire.manifest import GoldenSet, Manifest, Tolerance, problems_of
from wire.strict_toml import read

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "reference" / "manifest.md").read_text(encoding="utf-8")
SCHEMA = json.loads((REPO / "docs" / "reference" / "manifest.schema.json").read_text(encoding="utf-8"))
MANIFESTS = [*sorted(REPO.glob("tests/packages/*/manifest.toml")), *sorted(REPO.glob("models/*/manifest.toml"))]
SECTIONS = {
    "Manifest": "## Top level",
    "Input": "## [input]",
    "InputRegion": "### [input.region]",
    "ExtraInput": "## [[extra_inputs]]",
    "Tiling": "## [tiling]",
    "DecoderSpec": "## [decoder]",
    "Threshold": "## [thresholds]",
    "Region": "## [regions]",
    "Rule": "## [[rules]]",
    "Limits": "## [limits]",
    "Requires": "## [requires]",
}


def section(title: str) -> str:
    start = PAGE.index(f"\n{title}\n")
    end = re.search(r"\n##+ ", PAGE[start + 4 :])
    return PAGE[start : start + 4 + end.start()] if end else PAGE[start:]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (kind, key)
        for kind, definition in SCHEMA["$defs"].items()
        if "properties" in definition
        for key in definition["properties"]
    ],
)
def test_every_key_stands_in_its_section(kind: str, key: str) -> None:
    assert f"`{key}`" in section(SECTIONS[kind])


def choices() -> list[tuple[str, str]]:
    found = []
    for kind, title in SECTIONS.items():
        for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(SCHEMA["$defs"][kind])):
            found += [(title, str(value)) for value in SCHEMA["$defs"][name].get("enum", [])]
    return found


@pytest.mark.parametrize(("title", "value"), choices())
def test_every_choice_stands_in_its_section(title: str, value: str) -> None:
    assert f"`{value}`" in section(title)


def test_the_choices_are_found() -> None:
    assert ("## [input]", "letterbox_center") in choices()
    assert ("## [[rules]]", "area_mm2") in choices()


def test_the_keys_of_the_golden_set_stand_there() -> None:
    text = section("## golden/expected.json")
    for kind in (GoldenSet, Tolerance):
        assert is_dataclass(kind)
        for one in fields(kind):
            assert f"`{one.name}`" in text


def examples() -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_complete_example_is_a_good_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.toml").write_text(examples()[0], encoding="utf-8")
    manifest = read(tmp_path / "manifest.toml").value_of(Manifest)
    assert problems_of(manifest) == []


@pytest.mark.parametrize("example", examples()[1:])
def test_parts_fit_into_a_good_manifest(example: str) -> None:
    whole = tomllib.loads(examples()[0])
    part = tomllib.loads(example)
    whole["labels"] = ["screw", "cap", "seal", "stain"]
    whole["thresholds"] = {
        name: {"default": 1.0, "min": 0.0, "max": 9.0} for name in ("score", "stain-ng", "stain-unsure", "stains-ng")
    }
    manifest = msgspec.convert(whole | {"rules": []} | part, Manifest)
    assert problems_of(manifest) == []


def plain(document: Any) -> Any:
    """JSON has no times: TOML's become text."""
    return json.loads(json.dumps(document, default=lambda value: value.isoformat()))


def accepted_by_schema(document: Any) -> bool:
    return not list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(document))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.parent.name)
def test_our_own_manifests_fit_the_schema(path: Path) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(plain(tomllib.loads(path.read_text(encoding="utf-8"))))


def test_the_schema_refuses_what_the_reader_refuses(tmp_path: Path) -> None:
    vector = REPO / "tests" / "contract" / "vectors" / "manifest" / "good-rules.json"
    base = json.loads(re.sub(r"\b(\d+)\.0\b", r"\1", vector.read_text(encoding="utf-8")))
    seen = {True: 0, False: 0}
    for seed in range(600):
        document = manifest_mutations.mutant(base, seed)
        text = manifest_mutations.toml(document)
        if "datetime" in repr(document) or "nan" in text or "inf" in text or any(map(is_awkward, numbers_of(document))):
            continue  # what JSON cannot say, and what the two count differently
        path = tmp_path / "manifest.toml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            read(path).value_of(Manifest)
            accepted = True
        except LinesideError as error:
            if error.code == "config.invalid_syntax":
                continue
            accepted = False
        assert accepted_by_schema(plain(document)) is accepted, (seed, document)
        seen[accepted] += 1
    assert min(seen.values()) > 20, seen


def numbers_of(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers_of(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers_of(inner)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def is_awkward(number: float) -> bool:
    """A JSON number 1.0 is a whole number for the schema, and 64 bits bound those of the reader."""
    return abs(number) > 2**53 or (isinstance(number, float) and number == int(number))


def test_a_time_is_what_a_manifest_says_it_is() -> None:
    assert isinstance(tomllib.loads("created_at = 2026-11-20T08:00:00Z")["created_at"], datetime)
    assert SCHEMA["$defs"]["Manifest"]["properties"]["created_at"]["anyOf"][0]["format"] == "date-time"
