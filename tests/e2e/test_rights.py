"""The rights of the Job are exactly those that it uses: no request is denied, and no right is unused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy

from tests.manifests.kustomize import COMPONENTS, Manifest, combine

from .harness import Namespace

COMPONENT = COMPONENTS / "role-labels"


def test_each_right_is_needed(namespace: Namespace) -> None:
    """Removes each verb of each rule in turn: the run reports that Kubernetes denies that request.

    With all rights no run reports a denied request. The runs before show that it would.
    """
    namespace.apply("minikube", components=[COMPONENT])
    first = namespace.ended()
    namespace.wait_for_servers()
    role = combine(COMPONENT).one("Role", "redis-bootstrap")
    not_reported = []
    for number, (less, verb, resource) in enumerate(without_each(role)):
        namespace.kubectl("replace", "-f", "-", stdin=json.dumps(less))
        run = denied(namespace, f"less-{number}")
        if not any(f"{verb} {resource}" in line for line in run):
            not_reported.append(f"{verb} {resource}")
    assert not_reported == []
    namespace.kubectl("replace", "-f", "-", stdin=json.dumps(role))
    assert first.forbidden + denied(namespace, "whole") == ()


def without_each(role: Manifest) -> Iterator[tuple[Manifest, str, str]]:
    """The role without one verb of one rule, that verb and its resource: `get`, `leases`."""
    for number, rule in enumerate(role["rules"]):
        for verb in rule["verbs"]:
            less = deepcopy(role)
            less["rules"][number]["verbs"].remove(verb)
            less["rules"] = [each for each in less["rules"] if each["verbs"]]
            (resource,) = rule["resources"]
            yield less, verb, resource


def denied(namespace: Namespace, job: str) -> tuple[str, ...]:
    """Denied requests of a run that creates a Lease, creates and counts Events, and sets labels."""
    namespace.kubectl("delete", "lease", "redis-bootstrap", "--ignore-not-found")
    # The Event for the start exists, so it is counted. The Event for an unchanged cluster is created again.
    namespace.kubectl("delete", "events", "--field-selector", "reason=BootstrapUnchanged")
    namespace.kubectl("label", "pods", "-l", "app.kubernetes.io/name=redis-app", "redis-role-", "redis-shard-")
    namespace.start(job)
    return namespace.ended(job).forbidden
