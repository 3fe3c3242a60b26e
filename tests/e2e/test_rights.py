"""The rights of the Job are exactly those that it uses: none is refused, and each is missed where it lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy

from tests.manifests.kustomize import COMPONENTS, Manifest, combine

from .harness import Namespace

COMPONENT = COMPONENTS / "role-labels"


def test_each_right_is_missed_where_it_lacks(namespace: Namespace) -> None:
    """Each verb of each rule is taken away in turn: the run says that Kubernetes does not let it do just that.

    With all of them no run says so, which tells something because of the runs before.
    """
    namespace.apply("minikube", components=[COMPONENT])
    first = namespace.ended()
    namespace.wait_for_servers()
    role = combine(COMPONENT).one("Role", "redis-bootstrap")
    silent = []
    for number, (less, verb, resource) in enumerate(without_each(role)):
        namespace.kubectl("replace", "-f", "-", stdin=json.dumps(less))
        run = misses(namespace, f"less-{number}")
        if not any(f"{verb} {resource}" in line for line in run):
            silent.append(f"{verb} {resource}")
    assert silent == []
    namespace.kubectl("replace", "-f", "-", stdin=json.dumps(role))
    assert first.forbidden + misses(namespace, "whole") == ()


def without_each(role: Manifest) -> Iterator[tuple[Manifest, str, str]]:
    """The role without one verb of one rule, and which: `get`, `leases`."""
    for number, rule in enumerate(role["rules"]):
        for verb in rule["verbs"]:
            less = deepcopy(role)
            less["rules"][number]["verbs"].remove(verb)
            less["rules"] = [each for each in less["rules"] if each["verbs"]]
            (resource,) = rule["resources"]
            yield less, verb, resource


def misses(namespace: Namespace, job: str) -> tuple[str, ...]:
    """What a run is not let do that has everything to do: a Lease to make, Events to make and count, labels to set."""
    namespace.kubectl("delete", "lease", "redis-bootstrap", "--ignore-not-found")
    # That it starts has been said before, so that is counted; that nothing is to be done is said anew.
    namespace.kubectl("delete", "events", "--field-selector", "reason=BootstrapUnchanged")
    namespace.kubectl("label", "pods", "-l", "app.kubernetes.io/name=redis-app", "redis-role-", "redis-shard-")
    namespace.start(job)
    return namespace.ended(job).forbidden
