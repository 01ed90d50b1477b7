"""Certificates for one test, made by openssl; keys are never kept."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority, and a server's and a device's certificates signed by it."""

    folder: Path

    @property
    def ca_file(self) -> str:
        return str(self.folder / "ca.pem")

    def certificate(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def key(self, name: str) -> str:
        return str(self.folder / f"{name}.key")


def make(folder: Path, *names: str) -> Certificates:
    """Make an authority and certificates for 127.0.0.1 of the given names."""
    folder.mkdir(parents=True)
    made = Certificates(folder)
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    _openssl("req", "-x509", *ec, "-subj", "/CN=test authority", "-keyout", made.key("ca"), "-out", made.ca_file)
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\n")
    for name in names:
        request = str(folder / f"{name}.csr")
        _openssl("req", "-new", *ec[:-2], "-subj", f"/CN={name}", "-keyout", made.key(name), "-out", request)
        signer = ["-CA", made.ca_file, "-CAkey", made.key("ca"), "-CAcreateserial", "-extfile", str(extensions)]
        _openssl("x509", "-req", "-in", request, *signer, "-days", "2", "-out", made.certificate(name))
    return made


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
