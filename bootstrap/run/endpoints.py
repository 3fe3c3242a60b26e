"""Where the servers send clients, and whether clients can go there.

A client enters anywhere and follows CLUSTER SLOTS from then on. With `cluster-preferred-endpoint-type` other than `ip`
the servers name hosts that this program does not use otherwise: they may be unset, or unknown to the DNS. Replicas
count as well: each of them may be a master soon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address

from bootstrap.errors import AGAIN, RUN_AGAIN, Reason
from bootstrap.model.bus import shortened
from bootstrap.model.node import Address, Endpoint
from bootstrap.model.unreachable import DNS_REMEDY
from bootstrap.model.view import ClusterView
from bootstrap.nodes.discover import NoAnswer
from bootstrap.nodes.probe import ProbeFailed

_TYPE = "cluster-preferred-endpoint-type"
_NAME_OF_A_POD = "POD.SERVICE.NAMESPACE.svc.CLUSTER_DOMAIN"


class Misled(Exception):
    """Clients cannot follow the servers. `lasting` where only another setting of the servers changes that."""

    def __init__(self, reason: Reason, *, lasting: bool) -> None:
        super().__init__(reason.message)
        self.reason = reason
        self.lasting = lasting


def addresses_for_clients(
    told: Mapping[Address, frozenset[Endpoint]], view: ClusterView, hosts_of: Callable[[str], Sequence[str]]
) -> Mapping[tuple[str, int], Address]:
    """The address of every endpoint that is not an IP address, by host and port. `told` is what each node reports,
    `hosts_of` gives the addresses of a name, or raises NoAnswer. Raises Misled.
    """
    endpoints = sorted({endpoint for each in told.values() for endpoint in each if not _is_ip(endpoint.host)})
    if not endpoints:
        return {}
    for reason in (*_without_host(told, view), *_shared(endpoints, view)):
        raise Misled(reason, lasting=True)
    return {
        **{("", one.port): view.by_id[one.node_id].address for one in endpoints if not one.host},
        **_resolved([one for one in endpoints if one.host], hosts_of),
    }


def _without_host(told: Mapping[Address, frozenset[Endpoint]], view: ClusterView) -> Iterator[Reason]:
    """Nodes for which servers name no host. A client then stays at the host that it came in by, so that works where all
    nodes are ports of one host.
    """
    unset, lost = set(), set()
    # Names spread within seconds. Few clients ask replicas, so for these it is enough that some server has the name.
    named = {one.node_id for each in told.values() for one in each if one.host not in ("", "?")}
    for entry, endpoints in told.items():
        for one in endpoints:
            node = view.by_id.get(one.node_id)
            if one.host == "?":
                if node is None or node.slots or one.node_id not in named:
                    unset.add(view.name(one.node_id))
            elif not one.host and (node is None or node.address != Address(entry.host, one.port)):
                lost.add(view.name(one.node_id))
    if unset:
        yield _setting(
            f"clients are sent to hosts by name, and {shortened(sorted(unset))} have none ({_TYPE} hostname without "
            "cluster-announce-hostname)",
            sorted(unset)[0],
        )
    if lost:
        yield _setting(
            f"clients are sent to no host for {shortened(sorted(lost))} ({_TYPE} unknown-endpoint): they stay at the "
            "address that they came in by, where another node answers",
            sorted(lost)[0],
        )


def _shared(endpoints: Sequence[Endpoint], view: ClusterView) -> Iterator[Reason]:
    """Nodes to which clients are sent at one and the same host and port."""
    nodes: dict[tuple[str, int], set[str]] = {}
    for one in endpoints:
        if one.host:
            nodes.setdefault((one.host, one.port), set()).add(view.name(one.node_id))
    for (host, port), pods in nodes.items():
        if len(pods) > 1:
            yield _setting(
                f"clients are sent to {host}:{port} for {shortened(sorted(pods))} alike: "
                "cluster-announce-hostname is not a name of each pod's own",
                sorted(pods)[0],
            )


def _setting(message: str, pod: str) -> Reason:
    return Reason(
        code="endpoint-setting",
        message=message,
        remedy=f"set cluster-announce-hostname of each pod to its own name, {_NAME_OF_A_POD}; or send clients to "
        f"addresses, on every pod: kubectl exec {pod} -- redis-cli CONFIG SET {_TYPE} ip, and the same in redis.conf; "
        f"then {RUN_AGAIN}",
        node=pod,
    )


def other_name(error: ProbeFailed, sent_to: Mapping[tuple[str, int], Address]) -> Reason:
    """Clients that compare names, as most do by default, do not accept the certificate of the servers."""
    wanted = sorted({f"*.{host.partition('.')[2]}" for host, _ in sent_to if "." in host})
    return Reason(
        code="endpoint-certificate",
        message=f"clients are sent to host names, and the certificate there is not accepted: {error.other_name}",
        remedy=f"issue a certificate with the DNS name {' and '.join(wanted)} and put it into the Secret redis-tls, as "
        "docs/operations.md (Certificates) shows; the servers apply it without a restart. Clients that do not compare "
        f"names work meanwhile; then {RUN_AGAIN}",
        node=error.pod or None,
    )


def _resolved(
    endpoints: Sequence[Endpoint], hosts_of: Callable[[str], Sequence[str]]
) -> Mapping[tuple[str, int], Address]:
    found: dict[tuple[str, int], Address] = {}
    unknown: list[str] = []
    for one in endpoints:
        try:
            hosts = hosts_of(one.host)
        except NoAnswer as error:
            message = f"clients are sent to {one.host}, and {error}"
            raise Misled(
                Reason(code="endpoint-unresolved", message=message, remedy=DNS_REMEDY), lasting=False
            ) from error
        if hosts:
            found[one.host, one.port] = Address(hosts[0], one.port)
        else:
            unknown.append(one.host)
    if unknown:
        names = shortened(sorted(set(unknown)))
        message = f"clients are sent to {names} ({_TYPE} hostname), and the DNS has no address of that name"
        remedy = (
            "with the component outside: kubectl get services -l app.kubernetes.io/component=outside shows whether "
            "each pod has a Service, and docs/outside.md what the DNS needs. Otherwise correct "
            f"cluster-announce-hostname of the pods: the DNS knows each as {_NAME_OF_A_POD}; or send clients to "
            f"addresses: CONFIG SET {_TYPE} ip on every pod; then {AGAIN}"
        )
        raise Misled(Reason(code="endpoint-unresolved", message=message, remedy=remedy), lasting=False)
    return found


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
