"""The way clients take into the cluster, and the checks that it is open.

That is the access Service, or the pods themselves where the settings name none. A run that wrote something probes: as a
client it writes, reads and deletes a key in every shard. A run on a healthy cluster writes nothing: it checks that an
endpoint answers, and tries the probe without executing it. Without that, running again after a failed probe would
report success.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from bootstrap.clock import Backoff, Clock, Deadline
from bootstrap.config import Settings
from bootstrap.errors import AGAIN, BootstrapError, Misconfigured, NotYet, Reason
from bootstrap.log import Log
from bootstrap.model.node import Address
from bootstrap.model.unreachable import DNS_REMEDY
from bootstrap.model.view import ClusterView
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.discover import NoAnswer, Resolver
from bootstrap.nodes.probe import ProbeFailed, probe
from bootstrap.run.endpoints import Misled, addresses_for_clients, other_name
from bootstrap.run.missing import HOPELESS_S
from bootstrap.run.ports import World
from bootstrap.run.reasons import denied_remedy

UNKNOWN_NAME_S = 35.0
"""Seconds. CoreDNS and resolvers remember for up to 30 s that a name did not exist."""
PEERS = "the peers"
"""What the log names where clients do not enter through a Service."""


@dataclass(slots=True, kw_only=True)
class Access:
    """Checks from the client's side, repeated until the deadline: a Service lists new pods after some seconds."""

    settings: Settings
    resolver: Resolver
    credentials: Credentials
    clock: Clock
    log: Log

    def prove(
        self,
        view: ClusterView,
        world: World,
        *,
        deadline: Deadline,
        check_lock: Callable[[], None],
        dry: bool = False,
    ) -> None:
        """Probes every shard as a client; a `dry` probe executes nothing. Raises NotYet (`probe`,
        `endpoint-unresolved`) at the deadline or earlier, Misconfigured (`probe-denied`, `endpoint-setting`,
        `endpoint-certificate`) after some seconds, and NotYet from `check_lock`.
        """
        wait = _Wait(self.clock, self.log, "probe_waits", deadline)
        while True:
            endpoints, through = self._endpoints(view, deadline)
            check_lock()
            try:
                sent_to = self._addresses_for_clients(view, world)
            except Misled as error:
                wait.misled(error)
                continue
            try:
                shards = probe(view, endpoints, self.credentials, clock=self.clock, sent_to=sent_to, dry=dry)
            except ProbeFailed as error:
                if error.denied:
                    remedy = denied_remedy(error.pod or view.nodes[0].pod, str(error))
                    wait.once(Reason(code="probe-denied", message=str(error), remedy=remedy), HOPELESS_S, Misconfigured)
                elif error.other_name:
                    wait.once(other_name(error, sent_to), HOPELESS_S, Misconfigured)
                else:
                    wait.once(Reason(code="probe", message=str(error), remedy=self._remedy(through)))
            else:
                if not dry:
                    self.log.info("probe_done", shards=shards, through=through)
                return

    def check_endpoints(self, view: ClusterView, world: World, *, deadline: Deadline) -> None:
        """Checks that an endpoint of the access Service answers, and that clients can go where servers send them.
        Raises NotYet (`no-way-in`, `endpoint-unresolved`) at the deadline or earlier, and Misconfigured
        (`endpoint-setting`) after some seconds.
        """
        wait = _Wait(self.clock, self.log, "access_waits", deadline)
        while True:
            endpoints, through = self._endpoints(view, deadline)
            failures = [] if through == PEERS else [each for each in world.check_endpoints(endpoints) if each]
            if len(failures) == len(endpoints):
                message = f"{through}: {failures[0]}"
                wait.once(Reason(code="no-way-in", message=message, remedy=self._remedy(through)))
                continue
            try:
                self._addresses_for_clients(view, world)
            except Misled as error:
                wait.misled(error)
            else:
                return

    def _addresses_for_clients(self, view: ClusterView, world: World) -> Mapping[tuple[str, int], Address]:
        """The addresses of endpoints that are host names. Raises Misled."""
        return addresses_for_clients(world.client_endpoints(view), view, self._hosts_of)

    def _hosts_of(self, name: str) -> Sequence[str]:
        """The addresses of a name, as a pod of this namespace finds them: with the cluster's search domains, as it is,
        and as this machine knows it. Raises NoAnswer.
        """
        cluster, name = self.settings.cluster_domain, name.removesuffix(".")
        search = [f"{self.settings.namespace}.svc.{cluster}.", f"svc.{cluster}.", f"{cluster}.", ""]
        for domain in [""] if name.endswith(f".{cluster}") else search:
            if hosts := self.resolver.hosts(f"{name}.{domain}"):
                return hosts
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return ()
        return [str(place[4][0]) for place in found]

    def _endpoints(self, view: ClusterView, deadline: Deadline) -> tuple[list[Address], str]:
        """The addresses at which a client enters, and the name of the Service or `PEERS`. Waits for longer than a name
        server remembers that there was no such Service; raises NotYet (`no-way-in`) then, or at the deadline.
        """
        settings = self.settings
        if not settings.access_service:
            return [node.address for node in view.nodes], PEERS
        name = f"{settings.access_service}.{settings.namespace}.svc.{settings.cluster_domain}."
        backoff, deadline = Backoff(self.clock, self.log), deadline.sooner(UNKNOWN_NAME_S)
        while True:
            try:
                if hosts := self.resolver.hosts(name):
                    return [Address(host, settings.port) for host in hosts], settings.access_service
                why, remedy = f"the DNS has no address of {name}", _missing(settings.access_service, settings.namespace)
            except NoAnswer as error:
                why, remedy = str(error), DNS_REMEDY
            reason = Reason(code="no-way-in", message=f"{settings.access_service}: {why}", remedy=remedy)
            backoff.wait(
                "access_waits", partial(str, reason.message), partial(NotYet.because, (reason,)), deadline=deadline
            )

    def _remedy(self, through: str) -> str:
        if through == PEERS:
            return f"kubectl get networkpolicy shows whether a policy keeps this pod from the Redis pods; then {AGAIN}"
        return (
            f"kubectl get endpointslices --selector kubernetes.io/service-name={through} shows whether the Service has "
            f"ready pods; kubectl get networkpolicy, whether a policy keeps clients out; then {AGAIN}"
        )


@dataclass(slots=True)
class _Wait:
    """Waits for what clients need, for as long as it can come by itself."""

    clock: Clock
    log: Log
    event: str
    deadline: Deadline
    _backoff: Backoff = field(init=False)
    _limits: dict[str, Deadline] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._backoff = Backoff(self.clock, self.log)

    def once(self, reason: Reason, limit_s: float | None = None, error: type[BootstrapError] = NotYet) -> None:
        """Waits once; raises the error with that reason after `limit_s` seconds of it, or at the deadline."""
        limit = self.deadline
        if limit_s is not None:
            limit = self._limits.setdefault(reason.code, self.deadline.sooner(limit_s))
        self._backoff.wait(self.event, partial(str, reason.message), partial(error.because, (reason,)), deadline=limit)

    def misled(self, error: Misled) -> None:
        """Waits once, because clients cannot go where servers send them."""
        limit_s, kind = (HOPELESS_S, Misconfigured) if error.lasting else (UNKNOWN_NAME_S, NotYet)
        self.once(error.reason, limit_s, kind)


def _missing(service: str, namespace: str) -> str:
    return (
        f"kubectl get service {service} --namespace {namespace} shows whether it exists; kubectl apply -k OVERLAY "
        f"creates it, and BOOTSTRAP_ACCESS_SERVICE=none is for clients that connect to the pods; then {AGAIN}"
    )
