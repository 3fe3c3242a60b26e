"""The DNS records of one headless Service and the responses to queries for them. No sockets, no clock.

The responses follow CoreDNS's `kubernetes` plugin. SRV records have priority 0 and share a weight of 100. An SRV
response carries the addresses of its targets. The name with port and protocol in front (`_redis-port._tcp.…`) has
addresses too. A headless Service without pods does not exist at all (NXDOMAIN).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdatatype import RdataType


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod behind the Service. Two pods of one name give that name two addresses, as while a pod moves."""

    name: str
    addresses: tuple[str, ...]
    """IPv4 or IPv6 addresses. Without any, SRV records name the pod, but its own name has no address."""
    port: int = 6379


@dataclass(frozen=True, kw_only=True)
class Zone:
    """A headless Service and its pods. Frozen: to change the records, publish another zone."""

    pods: tuple[Pod, ...] = ()
    service: str = "redis-service"
    namespace: str = "default"
    domain: str = "cluster.local"
    port_name: str = "redis-port"
    ttl_s: int = 5
    srv: bool = True
    """False: no SRV records, as for a Service whose port has no name."""
    additional: bool = True
    """False: SRV responses do not carry the addresses of their targets."""

    @property
    def service_name(self) -> str:
        """The Service's own absolute name."""
        return f"{self.service}.{self.namespace}.svc.{self.domain}."

    @property
    def srv_name(self) -> str:
        """The absolute name whose SRV records list the pods."""
        return f"_{self.port_name}._tcp.{self.service_name}"

    def name_of(self, pod: str) -> str:
        """The absolute name of one pod."""
        return f"{pod}.{self.service_name}"

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """The whole response to `query`, of any size; the transport truncates it."""
        response = dns.message.make_response(query, recursion_available=True)
        response.flags |= dns.flags.AA
        if query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
        elif len(query.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
        else:
            self._fill(response, query.question[0])
        return response

    def _fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> None:
        known = self._records.get(question.name) if question.rdclass == dns.rdataclass.IN else None
        if known is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
            response.authority.append(self._soa(question.name))
            return
        response.answer.extend(rrset for kind, rrset in known.items() if question.rdtype in (kind, RdataType.ANY))
        if not response.answer:
            response.authority.append(self._soa(question.name))
        elif self.additional:
            response.additional.extend(self._targets(response.answer))

    def _targets(self, answer: list[dns.rrset.RRset]) -> Iterator[dns.rrset.RRset]:
        for rrset in answer:
            if rrset.rdtype == RdataType.SRV:
                for target in dict.fromkeys(record.target for record in rrset):
                    yield from self._records.get(target, {}).values()

    def _soa(self, name: dns.name.Name) -> dns.rrset.RRset:
        """The SOA record of a negative response: of this domain for its own names, of the root for all others, as when
        CoreDNS forwards a query.
        """
        own = dns.name.from_text(f"{self.domain}.")
        text = f"ns.dns.{self.domain}. hostmaster.{self.domain}. 1 7200 1800 86400 {self.ttl_s}"
        return dns.rrset.from_text(
            own if name.is_subdomain(own) else dns.name.root, self.ttl_s, dns.rdataclass.IN, RdataType.SOA, text
        )

    @cached_property
    def _records(self) -> Mapping[dns.name.Name, Mapping[RdataType, dns.rrset.RRset]]:
        """Every existing name with its records by type. A name that only has names below it exists without records."""
        records: dict[dns.name.Name, dict[RdataType, dns.rrset.RRset]] = {}
        # The namespace exists even while the Service has no pods.
        self._exists(records, dns.name.from_text(f"{self.namespace}.svc.{self.domain}."))
        weight = max(1, 100 // max(1, len(self.pods)))
        for pod in self.pods:
            own = self.name_of(pod.name)
            self._exists(records, dns.name.from_text(own))
            self._exists(records, dns.name.from_text(self.service_name))
            for address in pod.addresses:
                kind = RdataType.A if ip_address(address).version == 4 else RdataType.AAAA
                for owner in (own, self.service_name, *([self.srv_name] if self.srv else [])):
                    self._add(records, owner, kind, address)
            if self.srv:
                for owner in (self.srv_name, self.service_name):
                    self._add(records, owner, RdataType.SRV, f"0 {weight} {pod.port} {own}")
        return records

    def _add(
        self, records: dict[dns.name.Name, dict[RdataType, dns.rrset.RRset]], owner: str, kind: RdataType, text: str
    ) -> None:
        name = dns.name.from_text(owner)
        self._exists(records, name)
        rrset = dns.rrset.from_text(name, self.ttl_s, dns.rdataclass.IN, kind, text)
        known = records[name].setdefault(kind, rrset)
        if known is not rrset:
            known.add(rrset[0])

    def _exists(self, records: dict[dns.name.Name, dict[RdataType, dns.rrset.RRset]], name: dns.name.Name) -> None:
        """Enter `name` and every name above it up to the domain: a name with names below it exists (RFC 8020)."""
        top = dns.name.from_text(f"{self.domain}.")
        while name not in records:
            records[name] = {}
            if name == top:
                return
            name = name.parent()
