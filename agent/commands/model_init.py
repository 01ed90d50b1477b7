"""`lineside model init`: a draft of a package for a bare ONNX file, with every guess marked."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wire import manifest, package
from wire.errors import LinesideError

if TYPE_CHECKING:
    from agent.vision.check import CheckResult
    from agent.vision.draft import Draft

SCHEMA: Final = "lineside.model-init/1"
_LABELS_FILE: Final = "labels.txt"
_CARD: Final = """\
# {name}

Drafted by `lineside model init` from {file} ({producer}). Say here what the model is for, what it was trained on and
under which licence, how well it does on which pictures, and what it must not be used for.
"""


def add_verb(verbs: Any) -> None:
    """Mount the verb."""
    parser = verbs.add_parser(
        "init",
        help="draft a package for an ONNX file, with every guess marked",
        description="Draft a package folder for an ONNX file: what the graph and its metadata say is written down, "
        "what can be guessed is written with `# GUESS: why`, and what cannot is a comment with the allowed values.",
        epilog="Exit status: 0 drafted, whether or not it passes the check that follows; 6 the file is refused; 5 DIR "
        "exists.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.onnx")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to make (default: the file's name, here)")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="text file with one label a line")
    parser.add_argument("--json", action="store_true", help=f"write what was drafted as JSON ({SCHEMA})")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draft a package and check it."""
    from agent.vision import check, draft, draft_toml, onnx_file

    facts = onnx_file.read(args.file)
    onnx_file.refuse(facts)
    labels = None if args.labels is None else _labels(args.labels)
    drafted = draft.draft(facts, args.file.stem, labels)
    folder = Path(args.file.stem) if args.out is None else args.out
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LinesideError("resource.conflict", f"{folder} exists already.", "Choose another folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(args.file, folder / manifest.MODEL_NAME)
    (folder / manifest.FILE_NAME).write_text(draft_toml.text(drafted), encoding="utf-8")
    card = _CARD.format(
        name=drafted.value("", "name"), file=args.file.name, producer=facts.producer or "producer unknown"
    )
    (folder / "card.md").write_text(card, encoding="utf-8")
    if labels is not None:
        (folder / _LABELS_FILE).write_text("\n".join(labels) + "\n", encoding="utf-8")
    gaps = drafted.of(draft.Origin.FILL_IN)
    result = None if gaps else check.check_file(folder)
    if args.json:
        print(json.dumps(_document(folder, drafted, result), indent=2))
    else:
        _print(folder, drafted, result)
    return 0


def _labels(path: Path) -> list[str]:
    try:
        if path.stat().st_size > package.MAX_TEXT_BYTES:
            raise LinesideError("usage.invalid", f"{path} is too long for a file of labels.")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LinesideError("resource.not_found", f"{path} cannot be read as text: {error}.") from error
    labels = [line.strip()[: package.MAX_LABEL_CHARACTERS] for line in lines if line.strip()]
    if not labels:
        raise LinesideError("usage.invalid", f"{path} has no labels.", "Write one label a line.")
    return labels


def _document(folder: Path, drafted: Draft, result: CheckResult | None) -> dict[str, Any]:
    from agent.vision import draft_toml

    return {
        "schema": SCHEMA,
        "folder": str(folder),
        "values": [
            {"key": draft_toml.key_of(line), "value": line.value, "origin": line.origin, "why": line.why}
            for line in drafted.lines
        ],
        "check": None if result is None else {"ok": result.ok, "code": result.code, "reason": result.reason},
    }


def _print(folder: Path, drafted: Draft, result: CheckResult | None) -> None:
    from agent.vision import draft_toml
    from agent.vision.draft import Origin

    print(f"drafted     {folder}")
    for line in drafted.of(Origin.GUESS):
        print(f"guess       {draft_toml.key_of(line)} = {_short(line.value)}: {line.why}")
    for line in drafted.of(Origin.FILL_IN):
        print(f"fill in     {draft_toml.key_of(line)}: {line.why}")
    if result is None:
        sys.stderr.write(
            f"Fill in what is missing in {folder / manifest.FILE_NAME}, then: lineside model check {folder}\n"
        )
    elif result.ok:
        print("check       good")
    else:
        print(f"check       refused ({result.code}): {result.reason}")
    sys.stderr.write("A wrong guess may pass the check: compare findings on known pictures with `lineside infer`.\n")


def _short(value: object) -> str:
    text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
