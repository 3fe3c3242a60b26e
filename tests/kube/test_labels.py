"""Labels on pods: which ones, and that only wrong labels are patched."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bootstrap.errors import ApiError, Forbidden, NotYet
from bootstrap.kube.client import KubeClient
from bootstrap.kube.labels import label, labels_of
from bootstrap.kube.pods import Pods
from bootstrap.model.view import ClusterView
from tests.builders import formed, shape
from tests.kube.api import KubeApi, pod

Client = Callable[..., KubeClient]


@pytest.fixture
def view(api: KubeApi) -> ClusterView:
    """Three shards with a replica each, and their pods."""
    for number in range(6):
        api.put("pods", f"redis-app-{number}", pod(f"redis-app-{number}", labels={"app": "redis"}))
    return formed(shape()).look()


def labelled(view: ClusterView, client: Client, check_lock: Callable[[], None] = lambda: None) -> int:
    kube = client()
    return label(view, kube, Pods(kube, "redis-app"), check_lock=check_lock)


def found(api: KubeApi) -> list[str]:
    every = (each["metadata"]["labels"] for each in api.of("pods"))
    return [f"{labels.get('redis-role')} {labels.get('redis-shard')}" for labels in every]


def test_every_pod_is_labelled_with_its_role_and_shard(api: KubeApi, client: Client, view: ClusterView) -> None:
    """Other labels stay. The second time nothing is patched."""
    assert labelled(view, client) == 6
    assert found(api) == ["master 0", "master 1", "master 2", "replica 0", "replica 1", "replica 2"]
    assert {each["metadata"]["labels"]["app"] for each in api.of("pods")} == {"redis"}
    assert labelled(view, client) == 0
    assert api.times("patch", "pods") == 6


def test_after_a_failover_two_pods_change(api: KubeApi, client: Client, view: ClusterView) -> None:
    """The shard keeps its number, so the other shards' pods keep their labels."""
    labelled(view, client)
    cluster = formed(shape())
    master, replica = cluster[0], cluster[3]
    replica.slots, replica.master = master.slots, None
    master.slots, master.master = type(master.slots)(), replica.node_id
    assert labelled(cluster.look(), client) == 2
    assert found(api) == ["replica 0", "master 1", "master 2", "master 0", "replica 1", "replica 2"]


def test_a_node_without_a_shard_has_no_number(api: KubeApi, client: Client, view: ClusterView) -> None:
    """A master without slots loses the label of its shard."""
    labelled(view, client)
    cluster = formed(shape())
    cluster[5].master = None
    assert labels_of(cluster.look())["redis-app-5"] == ("master", None)
    assert labelled(cluster.look(), client) == 1
    assert found(api)[5] == "master None"


def test_a_missing_right_ends_the_run(api: KubeApi, client: Client, view: ClusterView) -> None:
    """Services may depend on the labels, so this is not only a warning: exit code 4 and the right by name."""
    api.forbidden.add(("patch", "pods"))
    with pytest.raises(Forbidden, match="patch pods"):
        labelled(view, client)


def test_a_patch_that_fails_ends_the_run(api: KubeApi, client: Client, view: ClusterView) -> None:
    """Exit code 1: the next run sets what is missing."""
    api.failing["patch", "pods"] = 500
    with pytest.raises(ApiError, match="HTTP 500") as caught:
        labelled(view, client)
    assert caught.value.exit_code == 1


def test_a_lost_lock_stops_before_the_next_patch(api: KubeApi, client: Client, view: ClusterView) -> None:
    """Another run may have changed the roles in the meantime."""

    def check_lock() -> None:
        if api.times("patch", "pods") == 2:
            raise NotYet("the lock is lost")

    with pytest.raises(NotYet):
        labelled(view, client, check_lock)
    assert api.times("patch", "pods") == 2
