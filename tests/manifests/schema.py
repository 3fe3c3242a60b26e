"""Strict validation against the schema of the current Kubernetes."""

from __future__ import annotations

import kubernetes_validate

from .kustomize import Build

OF_OTHERS = {"monitoring.coreos.com", "cert-manager.io"}
"""API groups of custom resources, whose schema is not part of Kubernetes."""


def validate(built: Build) -> None:
    """Fails on a missing, misspelt or removed field."""
    for manifest in built.manifests:
        if manifest["apiVersion"].split("/")[0] not in OF_OTHERS:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
