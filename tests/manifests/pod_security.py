"""The *restricted* Pod Security Standard as a function that lists the rules that a pod breaks.

Written after the rules of the standard (baseline and restricted, Kubernetes 1.37), independent of any admission plugin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SECCOMP = {"RuntimeDefault", "Localhost"}
APPARMOR = {"RuntimeDefault", "Localhost"}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(pod: dict[str, Any]) -> tuple[str, ...]:
    """Every rule that the pod spec breaks, each with its place. Empty for a pod that a restricted namespace admits."""
    shared = pod.get("securityContext", {})
    containers = [
        container
        for key in ("initContainers", "containers", "ephemeralContainers")
        for container in pod.get(key, [])
    ]  # fmt: skip
    return (
        *_of_the_pod(pod),
        *(f"pod: {rule}" for rule in _of_either(shared)),
        *(f"{container['name']}: {rule}" for container in containers for rule in _of_a_container(container, shared)),
    )


def _of_the_pod(pod: dict[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"pod: {field}"
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"pod: volume type {kind}"
    for sysctl in pod.get("securityContext", {}).get("sysctls", []):
        # Stricter than the standard, which allows some of them: nothing here needs one.
        yield f"pod: sysctl {sysctl['name']}"


def _of_either(context: dict[str, Any]) -> Iterator[str]:
    """Rules for fields that a pod and a container both have."""
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot is false"
    if context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in SECCOMP:
        yield "seccompProfile"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in APPARMOR:
        yield "appArmorProfile"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"


def _of_a_container(container: dict[str, Any], shared: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    yield from _of_either(own)
    # Set for the container, or set for the pod and not overridden by the container.
    if not own.get("runAsNonRoot", shared.get("runAsNonRoot")):
        yield "runAsNonRoot is not set"
    if "seccompProfile" not in own and "seccompProfile" not in shared:
        yield "seccompProfile is not set"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("privileged"):
        yield "privileged"
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities are not all dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    if any("host" in handler for handler in _network_handlers(container)):
        yield "a probe or hook of another host"


def _network_handlers(container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    hooks = container.get("lifecycle", {})
    actions = [container.get(f"{probe}Probe", {}) for probe in ("startup", "liveness", "readiness")]
    for action in (*actions, hooks.get("postStart", {}), hooks.get("preStop", {})):
        yield from (action[kind] for kind in ("httpGet", "tcpSocket") if kind in action)
