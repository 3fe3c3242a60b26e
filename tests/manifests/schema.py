"""Strict validation against the schemas of Kubernetes."""

from __future__ import annotations

import kubernetes_validate

from .kustomize import Build

OLDEST = "1.31"
"""The oldest Kubernetes for which the manifests are made; docs/versions.md says so."""
OF_OTHERS = {"monitoring.coreos.com", "cert-manager.io"}
"""API groups of custom resources, whose schema is not part of Kubernetes."""


def validate(built: Build, version: str = "") -> None:
    """Fails on a missing, misspelt or removed field; in the current version, or the one named."""
    for manifest in built.manifests:
        if manifest["apiVersion"].split("/")[0] not in OF_OTHERS:
            kubernetes_validate.validate(manifest, version or kubernetes_validate.latest_version(), strict=True)
