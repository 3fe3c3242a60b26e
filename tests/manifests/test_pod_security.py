"""The checker of the restricted Pod Security Standard finds every violation."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from .pod_security import violations

GOOD: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {"name": "one", "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
    ],
}
ONE = ("containers", 0)


@pytest.mark.parametrize(
    ("path", "value", "finding"),
    [
        (("hostNetwork",), True, "pod: hostNetwork"),
        (("hostPID",), True, "pod: hostPID"),
        (("hostIPC",), True, "pod: hostIPC"),
        (("volumes",), [{"name": "disk", "hostPath": {"path": "/"}}], "pod: volume type hostPath"),
        (("volumes",), [{"name": "share", "nfs": {"server": "a", "path": "/"}}], "pod: volume type nfs"),
        (("securityContext", "sysctls"), [{"name": "kernel.msgmax", "value": "1"}], "pod: sysctl kernel.msgmax"),
        (("securityContext", "runAsUser"), 0, "pod: runAsUser is 0"),
        (("securityContext", "runAsNonRoot"), None, "one: runAsNonRoot is not set"),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}, "pod: seccompProfile"),
        (("securityContext", "seccompProfile"), None, "one: seccompProfile is not set"),
        (("securityContext", "windowsOptions"), {"hostProcess": True}, "pod: hostProcess"),
        ((*ONE, "securityContext", "runAsNonRoot"), False, "one: runAsNonRoot is false"),
        ((*ONE, "securityContext", "runAsUser"), 0, "one: runAsUser is 0"),
        ((*ONE, "securityContext", "seccompProfile"), {"type": "Unconfined"}, "one: seccompProfile"),
        ((*ONE, "securityContext", "appArmorProfile"), {"type": "Unconfined"}, "one: appArmorProfile"),
        ((*ONE, "securityContext", "seLinuxOptions"), {"type": "spc_t"}, "one: seLinuxOptions"),
        ((*ONE, "securityContext", "seLinuxOptions"), {"user": "system_u"}, "one: seLinuxOptions"),
        ((*ONE, "securityContext", "allowPrivilegeEscalation"), None, "one: allowPrivilegeEscalation is not false"),
        ((*ONE, "securityContext", "privileged"), True, "one: privileged"),
        ((*ONE, "securityContext", "procMount"), "Unmasked", "one: procMount"),
        ((*ONE, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}, "one: capabilities are not all dropped"),
        (
            (*ONE, "securityContext", "capabilities"),
            {"drop": ["ALL"], "add": ["SYS_TIME"]},
            "one: capabilities are added",
        ),
        ((*ONE, "ports"), [{"containerPort": 1, "hostPort": 1}], "one: hostPort"),
        ((*ONE, "livenessProbe"), {"tcpSocket": {"host": "1.1.1.1"}}, "one: a probe or hook of another host"),
        ((*ONE, "lifecycle"), {"preStop": {"httpGet": {"host": "a"}}}, "one: a probe or hook of another host"),
        (("initContainers",), [{"name": "two"}], "two: capabilities are not all dropped"),
    ],
)
def test_one_broken_rule_is_found(path: tuple[str | int, ...], value: Any, finding: str) -> None:
    """A pod with one wrong field breaks the rule about that field. None removes the field."""
    pod = deepcopy(GOOD)
    *parents, last = path
    place: Any = pod
    for step in parents:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    assert finding in violations(pod)


def test_a_good_pod_breaks_nothing() -> None:
    """No false alarm, also where the container sets the fields that the pod does not set."""
    assert violations(GOOD) == ()
    by_container = deepcopy(GOOD)
    by_container["containers"][0]["securityContext"].update(by_container.pop("securityContext"))
    assert violations(by_container) == ()
