"""What a person should know before taking over a cluster: both sides, the way, and the way back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bootstrap.model.memory import mebibytes
from bootstrap.model.node import Node
from bootstrap.model.plan import Finding
from bootstrap.model.versions import upgrade_path
from bootstrap.model.view import ClusterView
from bootstrap.plan.describe import several


def what_is_there(view: ClusterView) -> Iterator[Finding]:
    """Each finding in words."""
    old, pods = view.old_nodes, view.pods
    owners = tuple(node for node in view.nodes if node.slots)
    keys = sum(node.keys for node in owners)
    size = sum(node.memory.dataset_bytes for node in owners)
    libraries = max((node.library_count or 0 for node in owners), default=0)
    users = frozenset().union(*(node.users for node in old)) - {"default"}
    tls = "with TLS" if any(node.config.get("tls-cluster") == "yes" for node in old) else "without TLS"
    yield Finding(
        code="old-side",
        message=f"the old cluster: {several(sum(1 for node in old if node.slots), 'shard')} on "
        f"{several(len(old), 'node')} ({_versions(old)}), {tls}: {', '.join(node.pod for node in old)}",
    )
    yield Finding(
        code="old-data",
        message=f"the data: {several(keys, 'key')}, {mebibytes(size)}, {libraries} function "
        f"{'library' if libraries == 1 else 'libraries'}, {several(len(users), 'ACL user')} beside default",
    )
    room = [node.memory.max_bytes for node in pods if node.memory.max_bytes]
    yield Finding(
        code="new-side",
        message=f"the new side: {several(len(pods), 'pod')} ({_versions(pods)}), "
        + (f"maxmemory {mebibytes(min(room))} each" if room else "no limit of memory set"),
    )
    for message in dict.fromkeys(_ways(view)):
        yield Finding(code="path", message=message)
    if view.old is not None:
        for message in view.old.unchecked:
            yield Finding(code="not-checked", message=message)
        if not (view.old.ports or view.old.unchecked) and view.old.traits:
            yield Finding(
                code="reach",
                message="the ports for clients on both sides, and the bus ports of the old nodes, can be reached from "
                "here; whether the servers reach each other shows once they are introduced",
            )


def _ways(view: ClusterView) -> Iterator[str]:
    for one in dict.fromkeys(node.version for node in view.old_nodes):
        for other in dict.fromkeys(node.version for node in view.pods):
            yield f"the way: {upgrade_path(one, other, disks=False)}"
            back = upgrade_path(other, one, disks=False)
            held = "" if back.verdict.open else "open as long as the old nodes keep their links to the pods: "
            yield f"the way back: {held}{back}"


def _versions(nodes: Sequence[Node]) -> str:
    return ", ".join(sorted({node.version for node in nodes}))
