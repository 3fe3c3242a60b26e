"""The servers and the DNS server of one local cluster, in place of a StatefulSet and its headless Service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bootstrap.errors import NotYet
from bootstrap.local.addresses import Reservation, reserve
from bootstrap.local.nameserver import Nameserver
from bootstrap.local.programs import Program
from bootstrap.local.servers import NODE_TIMEOUT_MS, Pause, Server, kill_all, start_all, stop_all
from bootstrap.local.zone import Pod, Zone
from bootstrap.model.node import Address

STATEFULSET = "redis-app"


class LocalCluster:
    """Running servers and a DNS server that lists them. `apply` forms a Redis Cluster of them."""

    def __init__(
        self,
        program: Program,
        directory: Path,
        *,
        nodes: int,
        one_address: bool = False,
        before: Sequence[Address] = (),
        config: Sequence[str] = (),
    ) -> None:
        """Start nothing yet. `before`: the addresses of the last run, if any; `config`: more lines of redis.conf."""
        self.program = program
        self.directory = directory
        self.nodes = nodes
        self.servers: tuple[Server, ...] = ()
        self._one_address = one_address
        self._before = tuple(before)
        self._config = tuple(config)
        self._reservation: Reservation | None = None
        self._nameserver: Nameserver | None = None

    @property
    def nameserver(self) -> Nameserver:
        """The DNS server of a started cluster. Raises NotYet before the start."""
        if self._nameserver is None:
            raise NotYet("the local cluster has not been started")
        return self._nameserver

    def start(self, *, pause: Pause = time.sleep) -> None:
        """Start everything and wait until every server answers. After an error, call `stop` to end what was started.

        Raises Misconfigured (no free address) or NotYet (a server exited or did not answer). Errors of `pause` pass
        through.
        """
        self._reservation = reserve(self.nodes, one_address=self._one_address, before=self._before)
        self.servers = tuple(
            Server(self.program, self.directory / f"{STATEFULSET}-{ordinal}", address, config=self._config)
            for ordinal, address in enumerate(self._reservation.addresses)
        )
        start_all(self.servers, pause=pause)
        self._nameserver = Nameserver(zone_of(self.servers)).start()

    def stop(self, *, keep_data: bool) -> None:
        """Stop everything: with SIGTERM to keep the data, else with SIGKILL. A second call does nothing."""
        if self._nameserver is not None:
            self._nameserver.stop()
        if keep_data:
            stop_all(self.servers)
        else:
            kill_all(self.servers)
        if self._reservation is not None:
            self._reservation.release()

    def publish(self) -> None:
        """Serve the current addresses of the servers; after a move, DNS lists the former ones until this call."""
        self.nameserver.publish(zone_of(self.servers))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop(keep_data=False)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(keep_data=False)


def zone_of(servers: Sequence[Server]) -> Zone:
    """The DNS zone that lists these servers at their current addresses."""
    return Zone(
        pods=tuple(Pod(name=each.name, addresses=(each.address.host,), port=each.address.port) for each in servers)
    )


def settings(*, nameserver: str, shards: int, replicas: int) -> dict[str, str]:
    """The `BOOTSTRAP_*` variables with which `apply` and `verify` find a local cluster of this shape.

    They override every variable of a user's environment that is about another cluster: names, password and TLS.
    """
    zone = Zone()
    return {
        "BOOTSTRAP_NAMESERVER": nameserver,
        "BOOTSTRAP_SHARDS": str(shards),
        "BOOTSTRAP_REPLICAS_PER_SHARD": str(replicas),
        "BOOTSTRAP_NODE_TIMEOUT_MS": str(NODE_TIMEOUT_MS),
        "BOOTSTRAP_KUBERNETES": "off",
        "BOOTSTRAP_ACCESS_SERVICE": "none",
        "BOOTSTRAP_SERVICE": zone.service,
        "BOOTSTRAP_NAMESPACE": zone.namespace,
        "BOOTSTRAP_CLUSTER_DOMAIN": zone.domain,
        "BOOTSTRAP_PORT_NAME": zone.port_name,
        "BOOTSTRAP_STATEFULSET": STATEFULSET,
        "BOOTSTRAP_USERNAME": "",
        "BOOTSTRAP_PASSWORD_FILE": "",
        "BOOTSTRAP_TLS_CA_FILE": "",
        "BOOTSTRAP_TLS_CERT_FILE": "",
        "BOOTSTRAP_TLS_KEY_FILE": "",
    }
