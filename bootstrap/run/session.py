"""The wiring of a run: settings → connections, integration and reconciler → verbs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from bootstrap.clock import Clock, Deadline
from bootstrap.config import Settings
from bootstrap.kube.integration import integration_for
from bootstrap.log import Log
from bootstrap.nodes.client import Nodes
from bootstrap.nodes.connection import Credentials
from bootstrap.nodes.discover import Names, Resolver, system_nameservers
from bootstrap.nodes.observe import Observer
from bootstrap.run.access import Access
from bootstrap.run.progress import Bar
from bootstrap.run.reconcile import Reconciler
from bootstrap.run.verbs import Verbs

if TYPE_CHECKING:
    from bootstrap.nodes.old_cluster import BothSides


@contextmanager
def session(settings: Settings, *, clock: Clock, log: Log, out: TextIO, console: bool) -> Iterator[Verbs]:
    """The verbs on the cluster of these settings; their connections are closed at the end. Raises Misconfigured."""
    started_at = clock.now()
    nameservers = (settings.nameserver,) if settings.nameserver else system_nameservers()
    resolver = Resolver(nameservers)
    credentials = _credentials(settings)
    nodes = Nodes(credentials)
    old = _old_nodes(settings, nodes)
    try:
        integration = integration_for(settings, clock=clock, log=log)
        observer = Observer(resolver=resolver, nodes=nodes, names=_names(settings), wanted=settings.desired.nodes)
        reconciler = Reconciler(
            world=_with_old_cluster(settings, observer, nodes, old, resolver) if old else observer,
            desired=settings.desired,
            deadline=Deadline.after(settings.deadline_s, clock),
            clock=clock,
            log=log,
            explain=integration.explain,
            check_lock=integration.check_lock,
            with_places=integration.with_places,
            move_limit_s=settings.move_deadline_s,
            show_progress=Bar(out, clock) if console and out.isatty() else lambda _: None,
        )
        yield Verbs(
            settings=settings,
            clock=clock,
            log=log,
            out=out,
            console=console,
            reconciler=reconciler,
            access=Access(settings=settings, resolver=resolver, credentials=credentials, clock=clock, log=log),
            integration=integration,
            started_at=started_at,
            pods_alone=observer,
        )
    finally:
        nodes.close()
        if old and old is not nodes:
            old.close()


def _old_nodes(settings: Settings, nodes: Nodes) -> Nodes | None:
    """The connections to a cluster that is to be taken over; those to the pods where the password is the same."""
    if not settings.adopt_from:
        return None
    return Nodes(_old_credentials(settings)) if settings.adopt_password else nodes


def _with_old_cluster(
    settings: Settings, observer: Observer, nodes: Nodes, old: Nodes, resolver: Resolver
) -> BothSides:
    from bootstrap.nodes.old_cluster import BothSides  # most runs adopt nothing

    domain = settings.cluster_domain
    return BothSides(
        pods=observer,
        nodes=nodes,
        old=old,
        credentials=(_credentials(settings), _old_credentials(settings)),
        seeds=settings.adopt_from,
        resolver=resolver,
        zones=("", f"{settings.namespace}.svc.{domain}.", f"svc.{domain}.", f"{domain}."),
    )


def _names(settings: Settings) -> Names:
    return Names(
        service=settings.service,
        namespace=settings.namespace,
        cluster_domain=settings.cluster_domain,
        port_name=settings.port_name,
        statefulset=settings.statefulset,
        port=settings.port,
    )


def _old_credentials(settings: Settings) -> Credentials:
    if not settings.adopt_password:
        return _credentials(settings)
    return replace(_credentials(settings), username=settings.adopt_username, password=settings.adopt_password)


def _credentials(settings: Settings) -> Credentials:
    return Credentials(
        username=settings.username,
        password=settings.password,
        ca_file=settings.tls_ca_file,
        cert_file=settings.tls_cert_file,
        key_file=settings.tls_key_file,
    )
