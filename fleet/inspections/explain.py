"""What stands behind one verdict: the pictures, the rule, the models, their deployments, and the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlmodel import Session, col, select

from fleet.blobs.store import BlobStore
from fleet.deployments import service as deployments
from fleet.deployments.tables import Deployment
from fleet.registry.tables import ModelVersion
from wire import codec
from wire.inspection import Inspection, ViewRecord
from wire.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureWhy:
    """A picture that the device kept.

    Args:
        path: where to get it, beside the API's own paths.
        here: whether it has arrived; pictures travel behind records.
    """

    digest: str
    path: str
    here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentWhy:
    """How the version came to the device."""

    id: str
    state: str
    created_at: datetime
    created_by: str
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewWhy:
    """One view: what it showed, and what judged it.

    Args:
        release: of the version; None where the registry does not know it.
        deployment: None where the device installed the version without one, or it is of another fleet.
    """

    view: str
    verdict: str
    reason: str
    picture: PictureWhy | None
    model: str | None
    model_digest: str | None
    release: int | None
    deployment: DeploymentWhy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleWhy:
    """The rule that decided.

    Args:
        name: empty where none did; then `reason` says why.
        rule: as the manifest of the version has it; None where the registry does not know the version.
    """

    name: str
    reason: str
    parameters_revision: int
    rule: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeWhy:
    """The recipe the part was judged with.

    Args:
        revision: 0 is that of the device's own settings.
        recipe: its content, where the desired document in force still has this revision of it.
    """

    id: str
    revision: int
    recipe: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """All of it."""

    views: list[ViewWhy]
    rule: RuleWhy
    recipe: RecipeWhy


def why(session: Session, blobs: BlobStore, inspection: Inspection) -> Why:
    """Return what the fleet knows of how a verdict came about."""
    digests = {view.model_digest for view in inspection.views if view.model_digest is not None}
    named = {view.deployment_id for view in inspection.views if view.deployment_id is not None}
    versions = {
        row.digest: row for row in session.exec(select(ModelVersion).where(col(ModelVersion.digest).in_(digests)))
    }
    found = session.exec(
        select(Deployment).where(col(Deployment.id).in_(named)).where(Deployment.device == inspection.device)
    )
    known = {row.id: row for row in found}
    return Why(
        views=[_view(view, blobs, versions, known) for view in inspection.views],
        rule=RuleWhy(
            name=inspection.rule_fired,
            reason=inspection.reason.value,
            parameters_revision=inspection.parameters_revision,
            rule=_rule(inspection, versions),
        ),
        recipe=RecipeWhy(
            id=inspection.recipe, revision=inspection.recipe_revision, recipe=_recipe(session, inspection)
        ),
    )


def _view(
    view: ViewRecord, blobs: BlobStore, versions: dict[str, ModelVersion], known: dict[str, Deployment]
) -> ViewWhy:
    digest = view.picture_digest
    version = versions.get(view.model_digest or "")
    deployment = known.get(view.deployment_id or "")
    return ViewWhy(
        view=view.view,
        verdict=view.verdict.value,
        reason=view.reason.value,
        picture=None
        if digest is None
        else PictureWhy(digest=digest, path=f"/blobs/{digest}", here=blobs.stat(digest) is not None),
        model=view.model,
        model_digest=view.model_digest,
        release=None if version is None else version.release,
        deployment=None
        if deployment is None
        else DeploymentWhy(
            id=deployment.id,
            state=deployment.state,
            created_at=deployment.created_at,
            created_by=deployment.created_by,
            ended_at=deployment.ended_at,
        ),
    )


def _rule(inspection: Inspection, versions: dict[str, ModelVersion]) -> dict[str, Any] | None:
    """Return the rule that fired from the manifest of the first view's version that has one of this name."""
    for view in inspection.views:
        version = versions.get(view.model_digest or "")
        if version is None:
            continue
        manifest = codec.decode(version.manifest_json.encode(), Manifest)
        for rule in manifest.rules:
            if rule.name == inspection.rule_fired:
                found: dict[str, Any] = msgspec.to_builtins(rule)
                return found
    return None


def _recipe(session: Session, inspection: Inspection) -> dict[str, Any] | None:
    if inspection.recipe_revision == 0:
        return None
    for station in deployments.desired_of(session, inspection.device).stations:
        for recipe in station.recipes if station.station == inspection.station else ():
            if (recipe.id, recipe.revision) == (inspection.recipe, inspection.recipe_revision):
                found: dict[str, Any] = msgspec.to_builtins(recipe)
                return found
    return None
