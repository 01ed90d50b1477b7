"""`lineside model pack` and `unpack`: a package as one file, and back."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from wire import archive, package

PACK_SCHEMA: Final = "lineside.model-pack/1"
UNPACK_SCHEMA: Final = "lineside.model-unpack/1"


def add_verb(verbs: Any) -> None:
    """Mount both verbs."""
    pack = verbs.add_parser(
        "pack",
        help="put a package into one file",
        description="Put a package into one file (a plain tar archive). The same package gives the same bytes.",
    )
    pack.add_argument("package", type=Path, metavar="PACKAGE", help="folder of a model package")
    pack.add_argument("file", type=Path, metavar="FILE", help="archive to make")
    pack.add_argument("--json", action="store_true", help=f"write the result as JSON ({PACK_SCHEMA})")
    pack.set_defaults(run=run_pack)
    unpack = verbs.add_parser(
        "unpack",
        help="take a package out of its file",
        description="Take a package out of its file, into a folder that does not exist yet. Every file is compared "
        "with the index; links, devices, foreign paths and what the index does not list are refused.",
        epilog="Exit status: 0 unpacked; 5 DIR exists; 6 the archive or the package is refused; 7 there is no such "
        "file.",
    )
    unpack.add_argument("file", type=Path, metavar="FILE", help="archive made by `lineside model pack`")
    unpack.add_argument("folder", type=Path, metavar="DIR", help="folder to make")
    unpack.add_argument("--json", action="store_true", help=f"write the result as JSON ({UNPACK_SCHEMA})")
    unpack.set_defaults(run=run_unpack)


def run_pack(args: argparse.Namespace) -> int:
    """Pack."""
    _report(archive.pack(args.package, args.file), args.file, PACK_SCHEMA, as_json=args.json)
    return 0


def run_unpack(args: argparse.Namespace) -> int:
    """Unpack."""
    _report(archive.unpack(args.file, args.folder), args.folder, UNPACK_SCHEMA, as_json=args.json)
    return 0


def _report(found: package.Package, made: Path, schema: str, *, as_json: bool) -> None:
    manifest, index = found.manifest, found.index
    if as_json:
        document = {
            "schema": schema,
            "path": str(made),
            "model": manifest.name,
            "release": manifest.release,
            "digest": found.digest,
            "files": len(index.files),
            "bytes": index.total_bytes,
        }
        print(json.dumps(document, indent=2))
        return
    print(f"made        {made}")
    print(
        f"model       {manifest.name}, release {manifest.release}, {len(index.files)} files, {index.total_bytes} bytes"
    )
    print(f"digest      {found.digest}")
