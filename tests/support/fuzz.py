"""Fuzz cases, numbered: damaged model files, manifests, indexes and golden sets, and how each one ends.

What the agent reads itself is read in this very process; what touches the runtime is checked by `check_pool`. One
number gives one case, so that a finding can be looked at again (`scripts/fuzz_models.py --from N --count 1`).
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import check_pool, manifest_mutations, model_mutations, tiny_models
from wire import package
from wire.errors import REGISTER, LinesideError

PACKAGES = Path(__file__).resolve().parents[1] / "packages"
VECTORS = Path(__file__).resolve().parents[1] / "contract" / "vectors"
KINDS = ("model", "model", "model", "model", "manifest", "manifest", "manifest", "index", "golden", "labels")
ACCEPTED = "accepted"
_BATCH = 64


@dataclass(frozen=True)
class Case:
    """A case's number, what was done, and the file or folder to check; or how it ended already."""

    number: int
    kind: str
    damage: str
    path: Path | None = None
    outcome: str = ""
    reason: str = ""


@dataclass
class Outcomes:
    """How cases ended: by kind and code, and those that must not be."""

    by_code: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    replaced: int = 0

    @property
    def total(self) -> int:
        return self.by_code.total()

    def count(self, kind: str) -> int:
        return sum(number for (one, _), number in self.by_code.items() if one == kind)

    def codes(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for (_, code), number in self.by_code.items():
            total[code] += number
        return dict(sorted(total.items()))

    def add(self, case: Case, code: str, reason: str) -> None:
        self.by_code[(case.kind, code)] += 1
        if code != ACCEPTED and (code not in REGISTER or code == "internal.unexpected" or not reason):
            self.bad.append(f"case {case.number} ({case.kind}, {case.damage}): {code}: {reason[:500]}")


class Bench:
    """Where cases are made.

    Args:
        folder: for the files, emptied as it goes.
        shared_models: folder of the shared models; None where there is none: then only our own graph is damaged.
    """

    def __init__(self, folder: Path, shared_models: Path | None) -> None:
        self._folder = folder
        tiny = tiny_models.make(folder / "tiny")
        self._golden = (tiny.folder / "golden").resolve()
        self._index = json.loads(package.index_bytes(tiny.index))
        manifest = (tiny.folder / "manifest.toml").read_text(encoding="utf-8")
        # name, bytes, manifest; without a manifest the bare file is checked
        self._models = [("tiny", tiny.model_path.read_bytes(), manifest), ("tiny", tiny.model_path.read_bytes(), None)]
        self._manifests = [manifest, manifest]
        if shared_models is not None:
            mnist = (PACKAGES / "mnist" / "manifest.toml").read_text(encoding="utf-8")
            self._models += [
                ("mnist", (shared_models / "mnist.onnx").read_bytes(), mnist),
                ("mnist", (shared_models / "mnist.onnx").read_bytes(), None),
                ("matmul", (shared_models / "matmul_tiny.onnx").read_bytes(), None),
            ]
        rules = tomllib.loads(manifest) | {
            key: value
            for key, value in json.loads((VECTORS / "manifest" / "good-rules.json").read_bytes()).items()
            if key in ("regions", "rules", "thresholds")
        }
        rules["thresholds"] |= tomllib.loads(manifest)["thresholds"]
        rules["rules"] = [rule | {"labels": ["red", "blue"]} for rule in rules["rules"]]
        for rule in rules["rules"]:
            rule.pop("region", None)
            rule.pop("outside", None)
        self._manifests.append(manifest_mutations.toml(rules))
        self._manifests.append(manifest.replace('labels = ["blue", "green", "red"]', 'labels_file = "labels.txt"'))

    def make(self, number: int) -> Case:
        """Make a case."""
        generator = random.Random(number)
        kind = KINDS[number % len(KINDS)]
        where = self._folder / f"case-{number}"
        if kind == "model":
            base, data, manifest = generator.choice(self._models)
            damage, data = model_mutations.mutant(data, number)
            if manifest is None:
                where = where.with_suffix(".onnx")
                where.write_bytes(data)
            else:
                where.mkdir()
                (where / "model.onnx").write_bytes(data)
                (where / "manifest.toml").write_text(manifest, encoding="utf-8")
            return Case(number, kind, f"{base}: {damage}", where)
        if kind == "index":
            return self._index_case(number, generator)
        shutil.copytree(self._folder / "tiny", where)
        if kind == "golden":
            (where / "golden" / "expected.json").write_bytes(self._document(_golden_of(where), number, generator))
            return Case(number, kind, "values or text", where)
        if kind == "labels":
            labels = generator.choice(
                (b"red\nblue\ngreen\n", b"", b"red\n", b"red\xff\n", b"x" * 5_000_000, b"red\n" * 9000)
            )
            (where / "labels.txt").write_bytes(labels if generator.random() < 0.5 else generator.randbytes(99) + labels)
        text = self._manifests[-1] if kind == "labels" else generator.choice(self._manifests[:-1])
        (where / "manifest.toml").write_bytes(
            manifest_mutations.toml(manifest_mutations.mutant(tomllib.loads(text), number)).encode(
                "utf-8", errors="surrogatepass"
            )
            if kind == "manifest" and generator.random() < 0.7
            else text.encode()
            if kind == "labels"
            else manifest_mutations.damaged_text(text, number)
        )
        try:
            package.read_folder(where)  # as the agent does, in its own process
        except LinesideError as error:
            return Case(number, kind, "values or text", where, error.code, str(error))
        except Exception as error:  # noqa: BLE001 - what must not happen is what is looked for
            return Case(number, kind, "values or text", where, "uncaught", repr(error))
        return Case(number, kind, "values or text", where)

    def run(self, numbers: range) -> Outcomes:
        """Make cases and see how they end."""
        outcomes = Outcomes()
        pool = check_pool.Pool()
        made: dict[Path, Case] = {}

        def to_check() -> Iterator[Path]:
            for number in numbers:
                case = self.make(number)
                if case.outcome or case.path is None:
                    outcomes.add(case, case.outcome, case.reason)
                    self._remove(case.path)
                else:
                    made[case.path] = case
                    yield case.path

        for paths in _batches(to_check()):
            for path, result in pool.check(paths):
                outcomes.add(made.pop(path), ACCEPTED if result.ok else result.code, result.reason)
                self._remove(path)
        outcomes.replaced = pool.replaced
        return outcomes

    def _index_case(self, number: int, generator: random.Random) -> Case:
        data = self._document(self._index, number, generator)
        try:
            package.read_index(data)
        except LinesideError as error:
            return Case(number, "index", "values or text", None, error.code, str(error))
        except Exception as error:  # noqa: BLE001 - what must not happen is what is looked for
            return Case(number, "index", "values or text", None, "uncaught", repr(error))
        return Case(number, "index", "values or text", None, ACCEPTED)

    def _document(self, base: dict[str, Any], number: int, generator: random.Random) -> bytes:
        if generator.random() < 0.7:
            return manifest_mutations.as_json(manifest_mutations.mutant(base, number))
        return manifest_mutations.damaged_text(json.dumps(base), number)

    def _remove(self, path: Path | None) -> None:
        if path is not None and path.is_dir():
            shutil.rmtree(path)
        elif path is not None:
            path.unlink(missing_ok=True)


def _golden_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "golden" / "expected.json").read_bytes())
    return document


def _batches(paths: Iterator[Path]) -> Iterator[list[Path]]:
    while batch := list(itertools.islice(paths, _BATCH)):
        yield batch
