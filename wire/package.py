"""A model package: a folder of files, an index that lists them, and the index's digest, which names the version."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from wire import codec, strict_toml
from wire.errors import LinesideError
from wire.ids import Digest, Name
from wire.manifest import FILE_NAME, GOLDEN_NAME, MODEL_NAME, GoldenSet, Manifest, problems_of

PATH_PATTERN: Final = r"^(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,3}$(?!\n)"
MAX_FILES: Final = 500
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
MAX_PACKAGE_BYTES: Final = 1024 * 1024 * 1024
MAX_TEXT_BYTES: Final = 4 * 1024 * 1024  # of the manifest, the labels and the golden set, which are read whole
MAX_LABEL_CHARACTERS: Final = 100  # as `wire.inspection.LabelText`


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFile:
    """One file of a package; its bytes live under their digest and are shared between versions."""

    path: Annotated[str, msgspec.Meta(pattern=PATH_PATTERN, max_length=200)]
    digest: Digest
    bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageIndex:
    """What a package holds; the SHA-256 of its canonical form is the version's digest."""

    schema: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    model: Name
    release: Annotated[int, msgspec.Meta(ge=1)]
    files: Annotated[tuple[PackageFile, ...], msgspec.Meta(min_length=1, max_length=MAX_FILES)]

    def file(self, path: str) -> PackageFile | None:
        return next((file for file in self.files if file.path == path), None)

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package on disk whose manifest has been read and whose index is known; the model itself is not trusted yet."""

    folder: Path
    digest: str
    index: PackageIndex
    manifest: Manifest
    labels: tuple[str, ...]

    @property
    def model_path(self) -> Path:
        return self.folder / MODEL_NAME

    def golden(self) -> GoldenSet:
        """Read the golden set; empty where the package has none.

        Raises:
            LinesideError: `package.invalid`.
        """
        path = self.folder / GOLDEN_NAME
        if not path.is_file():
            return GoldenSet()
        _refuse_long(path, "package.invalid")
        try:
            return codec.decode(path.read_bytes(), GoldenSet)
        except LinesideError as error:
            raise LinesideError(
                "package.invalid", f"{path}: {error.message}", "Correct the golden set, or make it again."
            ) from error


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def index_bytes(index: PackageIndex) -> bytes:
    """Return the canonical form of an index: what is stored as a blob, and what the digest is made of."""
    return codec.canonical(index)


def digest_of(index: PackageIndex) -> str:
    """Return the digest that names a version."""
    return hashlib.sha256(index_bytes(index)).hexdigest()


def read_index(data: bytes) -> PackageIndex:
    """Decode an index and check what types cannot say.

    Raises:
        LinesideError: `package.invalid`.
    """
    try:
        index = codec.decode(data, PackageIndex)
    except LinesideError as error:
        raise LinesideError("package.invalid", f"The package index is not valid: {error.message}") from error
    paths = [file.path for file in index.files]
    if len(set(paths)) != len(paths):
        raise LinesideError("package.invalid", "The package index names a file twice.")
    for required in (MODEL_NAME, FILE_NAME):
        if required not in paths:
            raise LinesideError("package.invalid", f"The package index names no {required}.")
    if index.total_bytes > MAX_PACKAGE_BYTES:
        raise LinesideError("package.invalid", f"The package is over {MAX_PACKAGE_BYTES} bytes.")
    return index


def read_manifest(path: Path) -> Manifest:
    """Read a manifest strictly.

    Raises:
        LinesideError: `model.manifest_invalid`, with file, line and key.
    """
    _refuse_long(path, "model.manifest_invalid")
    try:
        document = strict_toml.read(path)
        manifest = document.value_of(Manifest)
        for key, sentence in problems_of(manifest):
            raise document.error("config.invalid_value", key, sentence)
    except LinesideError as error:
        raise LinesideError("model.manifest_invalid", error.message, error.next_step) from error
    return manifest


def read_folder(folder: Path) -> Package:
    """Read a package from a folder: hash every file, read manifest and labels. The model is not opened.

    Raises:
        LinesideError: `package.incomplete`, `package.invalid` or `model.manifest_invalid`.
    """
    if not folder.is_dir():
        raise LinesideError("package.incomplete", f"{folder} is not a folder.", "Name the folder of a model package.")
    for required in (FILE_NAME, MODEL_NAME):
        if not (folder / required).is_file():
            raise LinesideError(
                "package.incomplete",
                f"{folder} has no {required}.",
                f"A model package needs {MODEL_NAME} and {FILE_NAME}.",
            )
    manifest = read_manifest(folder / FILE_NAME)
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_file() or re.fullmatch(PATH_PATTERN, name) is None:
            raise LinesideError(
                "package.invalid",
                f"{name!r} cannot be part of a package.",
                "Use plain files whose names have letters, digits, '.', '_' and '-', at most four levels deep.",
            )
        files.append(PackageFile(path=name, digest=digest_of_file(path), bytes=path.stat().st_size))
    index = PackageIndex(model=manifest.name, release=manifest.release, files=tuple(files))
    read_index(index_bytes(index))
    return Package(
        folder=folder, digest=digest_of(index), index=index, manifest=manifest, labels=_labels(folder, manifest)
    )


def _refuse_long(path: Path, code: str) -> None:
    with contextlib.suppress(OSError):  # whoever reads it says that better
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise LinesideError(code, f"{path} has over {MAX_TEXT_BYTES} bytes.", "Shorten it.")


def _labels(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    if manifest.labels is not None:
        return manifest.labels
    path = folder / (manifest.labels_file or "")
    if re.fullmatch(PATH_PATTERN, manifest.labels_file or "") is None or not path.is_file():
        raise LinesideError("package.incomplete", f"{folder} has no labels file {manifest.labels_file!r}.")
    _refuse_long(path, "package.invalid")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise LinesideError("package.invalid", f"{path} is not UTF-8 text.", "Save it as UTF-8.") from error
    labels = tuple(line.strip()[:MAX_LABEL_CHARACTERS] for line in lines if line.strip())
    if not labels:
        raise LinesideError("package.invalid", f"{path} has no labels.", "Write one label a line.")
    for rule in manifest.rules:
        for label in rule.labels:
            if label not in labels:
                raise LinesideError("model.manifest_invalid", f"Rule {rule.name!r} names {label!r}, not in {path}.")
    return labels
