"""Which pods the headless Service lists, from the cluster's DNS: SRV and A/AAAA records, queried anew each time.

Names are absolute, and answers are not cached here, since the cluster's DNS may itself cache a "no such name" for 30 s.
No answer is trusted: stale, missing and duplicate records are normal, so `observe` checks each by asking the node.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from bootstrap.errors import Misconfigured, Reason
from bootstrap.model.node import Address, Peer

QUERY_LIMIT_S = 2.0
"""How long one name server may take for one answer."""
UDP_BYTES = 1232
"""The size of UDP answers that is asked for (EDNS): it fits into one packet of every network (dnsflagday.net/2020).
Without it, the records of six pods are too many, and every answer takes a second query, by TCP."""
_WORKERS_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the DNS answered in one round."""

    peers: tuple[Peer, ...] = ()
    unexpected_names: tuple[str, ...] = ()
    """Names under the Service that are not those of a pod of the StatefulSet."""
    nameless: bool = False
    """The Service lists pods by their addresses alone, as the DNS does for pods whose subdomain, the `serviceName` of
    their StatefulSet, is not the Service."""
    error: str = ""
    """Why the list may be incomplete: a name server is silent or fails. Empty when it answered, even with nothing."""
    truncated: bool = False
    """`error` is about an answer that was truncated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names under which the DNS knows the peers."""

    service: str
    namespace: str
    cluster_domain: str
    port_name: str
    statefulset: str
    port: int

    @property
    def zone(self) -> str:
        """The Service's own name, absolute."""
        return f"{self.service}.{self.namespace}.svc.{self.cluster_domain}."

    def pod(self, ordinal: int) -> str:
        """The absolute name of one pod."""
        return f"{self.statefulset}-{ordinal}.{self.zone}"


class Resolver:
    """Queries the given name servers, one after the other, without a cache. Safe to use from several threads."""

    def __init__(self, nameservers: Sequence[Address], *, query_limit_s: float = QUERY_LIMIT_S) -> None:
        self._nameservers = nameservers
        self._query_limit_s = query_limit_s

    def ask(self, name: str, kind: str) -> dns.message.Message:
        """The first usable answer; "no such name" is one. Raises NoAnswer when no name server gives one."""
        errors: list[str] = []
        truncated = False
        for server in self._nameservers:
            try:
                answer = self._ask(server, name, kind)
            except _NoTcp as error:
                truncated = True
                errors.append(
                    f"the answer of the name server {server} does not fit into UDP, and its TCP port {server.port} "
                    f"gives none: {error}"
                )
            except dns.exception.Timeout:
                errors.append(f"the name server {server} does not answer")
            except (dns.exception.DNSException, OSError, EOFError, ValueError) as error:
                errors.append(f"the name server {server} cannot be queried: {str(error) or type(error).__name__}")
            else:
                if answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return answer
                errors.append(f"the name server {server} answers {dns.rcode.to_text(answer.rcode())}")
        raise NoAnswer("; ".join(errors), truncated=truncated)

    def _ask(self, server: Address, name: str, kind: str) -> dns.message.Message:
        """The answer of one name server: by UDP, or by TCP where it is longer. Raises _NoTcp, and errors of dnspython
        and of the system.
        """
        query = dns.message.make_query(name, kind, use_edns=0, payload=UDP_BYTES)
        where, port, limit_s = server.host, server.port, self._query_limit_s
        try:
            return dns.query.udp(
                query, where, timeout=limit_s, port=port, ignore_unexpected=True, raise_on_truncation=True
            )
        except dns.message.Truncated:
            try:
                return dns.query.tcp(query, where, timeout=limit_s, port=port)
            except dns.exception.Timeout:
                raise _NoTcp("no answer in time") from None
            except (OSError, EOFError) as error:
                raise _NoTcp(getattr(error, "strerror", None) or "the connection is closed") from error

    def hosts(self, name: str) -> tuple[str, ...]:
        """The IPv4 and IPv6 addresses of a name, sorted; none if it does not exist. Raises NoAnswer."""
        found: set[str] = set()
        for kind in ("A", "AAAA"):
            found |= {record.to_text() for record in _records(self.ask(name, kind).answer, kind)}
        return tuple(sorted(found, key=_family_first))


class NoAnswer(Exception):
    """No name server gave a usable answer; the text names each server and what happened. `truncated` where an answer
    was too long for UDP, and TCP is not open.
    """

    def __init__(self, text: str, *, truncated: bool = False) -> None:
        super().__init__(text)
        self.truncated = truncated


class _NoTcp(Exception):
    """An answer is too long for UDP, and TCP gives none; the text is the reason."""


def system_nameservers() -> tuple[Address, ...]:
    """The name servers of this machine's resolv.conf. Raises Misconfigured when there is none."""
    import dns.resolver  # here, since it takes a while to load, and is not needed where BOOTSTRAP_NAMESERVER is set

    try:
        resolver = dns.resolver.Resolver()
        found = [str(ip_address(str(host))) for host in resolver.nameservers]
    except (dns.exception.DNSException, OSError, ValueError, TypeError) as error:
        raise _no_nameserver(f"resolv.conf: {error}") from error
    servers = tuple(Address(host, resolver.port) for host in found)
    if not servers:
        raise _no_nameserver("resolv.conf lists none")
    return servers


def discover(resolver: Resolver, names: Names, wanted: int) -> Listing:
    """The pods that the Service lists, sorted by ordinal. Without SRV records, the first `wanted` pods by name."""
    srv_name = f"_{names.port_name}._tcp.{names.zone}"
    try:
        answer = resolver.ask(srv_name, "SRV")
        targets = {(record.target.to_text().lower(), record.port) for record in _records(answer.answer, "SRV")}
        if by_name := not targets:
            targets = {(names.pod(ordinal), names.port) for ordinal in range(wanted)}
            glue: dict[str, set[str]] = {}
        else:
            glue = _glue(answer)
        hosts, error = _hosts(resolver, sorted({target for target, _ in targets}), glue)
        if by_name and not error and not any(hosts.values()):
            return Listing(nameless=bool(resolver.hosts(names.zone)))
    except NoAnswer as no_answer:
        return Listing(error=str(no_answer), truncated=no_answer.truncated)
    pod_name = re.compile(rf"({re.escape(names.statefulset)}-(0|[1-9][0-9]{{0,5}}))\..*", re.ASCII)
    found: dict[tuple[int, str], set[Address]] = {}
    unexpected_names: set[str] = set()
    nameless = False
    for target, port in targets:
        name = target.split(".", 1)[0]
        if match := pod_name.fullmatch(target):
            addresses = found.setdefault((int(match[2]), match[1]), set())
            addresses |= {Address(host, port) for host in hosts[target]}
        elif name in {re.sub("[.:]", "-", host) for host in hosts[target]}:
            nameless = True
        else:
            unexpected_names.add(name)
    peers = (Peer(ordinal, pod, tuple(sorted(where))) for (ordinal, pod), where in found.items() if where)
    return Listing(
        peers=tuple(sorted(peers)),
        unexpected_names=tuple(sorted(unexpected_names)),
        nameless=nameless,
        error=error,
    )


def _glue(answer: dns.message.Message) -> dict[str, set[str]]:
    """The addresses in the SRV answer's additional section: as fresh as the answer, and no further query per pod."""
    glue: dict[str, set[str]] = {}
    for rrset in answer.additional:
        if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            glue.setdefault(rrset.name.to_text().lower(), set()).update(record.to_text() for record in rrset)
    return glue


def _hosts(
    resolver: Resolver, targets: Sequence[str], glue: Mapping[str, set[str]]
) -> tuple[Mapping[str, Iterable[str]], str]:
    """The addresses of each target, and the errors, if any. A name without an answer is a peer without a record, not
    the end of the round.
    """
    hosts: dict[str, Iterable[str]] = dict(glue)
    lacking = [target for target in targets if target not in glue]
    if not lacking:
        return hosts, ""
    failed = threading.Event()

    def ask(target: str) -> tuple[str, ...]:
        """After the first failure no name is queried any more in this round: each query would take as long again."""
        if failed.is_set():
            return ()
        try:
            return resolver.hosts(target)
        except NoAnswer:
            failed.set()
            raise

    with ThreadPoolExecutor(max_workers=min(_WORKERS_MAX, len(lacking))) as pool:
        futures = {target: pool.submit(ask, target) for target in lacking}
    errors = {str(error) for future in futures.values() if (error := future.exception())}
    hosts |= {target: () if future.exception() else future.result() for target, future in futures.items()}
    return hosts, "; ".join(sorted(errors))


def _records(section: Iterable[dns.rrset.RRset], kind: str) -> Iterator[Any]:
    """The records of one type, whatever else the section holds."""
    wanted = dns.rdatatype.from_text(kind)
    return (record for rrset in section if rrset.rdtype == wanted for record in rrset)


def _family_first(host: str) -> tuple[bool, str]:
    return (":" in host, host)


def _no_nameserver(why: str) -> Misconfigured:
    remedy = (
        "set BOOTSTRAP_NAMESERVER to ip[:port]: kubectl get service -n kube-system kube-dns shows the address of the "
        "cluster's DNS, and cat /etc/resolv.conf that of this machine"
    )
    reason = Reason(code="nameserver", message=f"no name server to query: {why}", remedy=remedy)
    return Misconfigured(reason.message, reasons=(reason,))
