"""The way clients take into the cluster, and the checks that it is open.

That is the access Service, or the pods themselves where the settings name none. A run that wrote something probes: as a
client it writes, reads and deletes a key in every shard. A run on a healthy cluster writes nothing: it checks that an
endpoint answers, and tries the probe without executing it. Without that, running again after a failed probe would
report success.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bootstrap.clock import Backoff, Clock, Deadline
from bootstrap.config import Settings
from bootstrap.errors import AGAIN, NotYet, Reason
from bootstrap.log import Log
from bootstrap.model.node import Address
from bootstrap.model.unreachable import DNS_REMEDY
from bootstrap.model.view import ClusterView
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.discover import NoAnswer, Resolver
from bootstrap.nodes.probe import ProbeFailed, probe
from bootstrap.run.ports import World

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
        self, view: ClusterView, *, deadline: Deadline, check_lock: Callable[[], None], dry: bool = False
    ) -> None:
        """Probes every shard as a client; a `dry` probe executes nothing. Raises NotYet (`probe`) at the deadline, and
        NotYet from `check_lock`.
        """
        backoff = Backoff(self.clock, self.log)
        while True:
            endpoints, through = self._endpoints(view, deadline)
            check_lock()
            try:
                shards = probe(view, endpoints, self.credentials, clock=self.clock, dry=dry)
            except ProbeFailed as error:
                reason = Reason(code="probe", message=str(error), remedy=self._remedy(through))
                backoff.wait("probe_waits", partial(str, error), partial(NotYet.because, (reason,)), deadline=deadline)
            else:
                if not dry:
                    self.log.info("probe_done", shards=shards, through=through)
                return

    def check_endpoints(self, view: ClusterView, world: World, *, deadline: Deadline) -> None:
        """Checks that an endpoint of the access Service answers. Raises NotYet (`no-way-in`) at the deadline."""
        backoff = Backoff(self.clock, self.log)
        while True:
            endpoints, through = self._endpoints(view, deadline)
            if through == PEERS:
                return
            failures = [failure for failure in world.check_endpoints(endpoints) if failure]
            if len(failures) < len(endpoints):
                return
            reason = Reason(code="no-way-in", message=f"{through}: {failures[0]}", remedy=self._remedy(through))
            backoff.wait(
                "access_waits", partial(str, reason.message), partial(NotYet.because, (reason,)), deadline=deadline
            )

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


def _missing(service: str, namespace: str) -> str:
    return (
        f"kubectl get service {service} --namespace {namespace} shows whether it exists; kubectl apply -k OVERLAY "
        f"creates it, and BOOTSTRAP_ACCESS_SERVICE=none is for clients that connect to the pods; then {AGAIN}"
    )
