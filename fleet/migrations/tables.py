"""Names every module with tables, so that the metadata is complete once this is imported."""

from __future__ import annotations

from sqlmodel import SQLModel

from fleet.audit import tables as audit
from fleet.auth import tables as auth
from fleet.deployments import tables as deployments
from fleet.devices import tables as devices
from fleet.ingest import tables as ingest
from fleet.inspections import tables as inspections
from fleet.registry import tables as registry
from fleet.shadow import tables as shadow

MODULES = (audit, auth, deployments, devices, ingest, inspections, registry, shadow)
metadata = SQLModel.metadata
