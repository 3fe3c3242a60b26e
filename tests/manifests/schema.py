"""Strict validation against the schemas of Kubernetes."""

from __future__ import annotations

import json
from functools import cache

import kubernetes_validate

from .kustomize import Build

OLDEST = "1.31"
"""The oldest Kubernetes for which the manifests are made; docs/versions.md says so."""
OF_OTHERS = {"monitoring.coreos.com", "cert-manager.io"}
"""API groups of custom resources, whose schema is not part of Kubernetes."""


def validate(built: Build, version: str = "") -> None:
    """Fails on a missing, misspelt or removed field; in the current version, or the one named."""
    version = version or kubernetes_validate.latest_version()
    for manifest in built.manifests:
        if manifest["apiVersion"].split("/")[0] not in OF_OTHERS:
            _validate(json.dumps(manifest, sort_keys=True), version)


@cache
def _validate(manifest: str, version: str) -> None:
    """Overlays have many objects in common: each is validated once. Errors are not cached."""
    kubernetes_validate.validate(json.loads(manifest), version, strict=True)
