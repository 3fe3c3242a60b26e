"""A private network for one test: loopback only, on which packets between servers can be dropped.

The thread that enters it, and all threads and processes that it starts afterwards, live in a network namespace in which
nothing else runs. Each server has its own address and also sends from it, so iptables rules can distinguish servers.
Packets are dropped at the receiver. The sender is not notified, as on a real network.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from functools import cache
from types import TracebackType
from typing import Self

from redis import Redis

from bootstrap.local.addresses import BUS_OFFSET
from bootstrap.local.servers import Server

_CLONE_NEWNET = 0x40000000


@cache
def missing_requirement() -> str:
    """What this machine lacks for a private network, or ""."""
    if sys.platform != "linux":
        return "network namespaces exist only on Linux"
    if missing := [tool for tool in ("ip", "iptables", "unshare") if shutil.which(tool) is None]:
        return f"not on PATH: {', '.join(missing)}"
    trial = "unshare --net iptables -A INPUT -m statistic --mode random --probability 0.5 -j DROP"
    tried = subprocess.run(trial.split(), capture_output=True, text=True, timeout=10, check=False)
    return f"no private network: {tried.stderr.strip()}" if tried.returncode else ""


class Network:
    """Within the `with` block this thread is in a new network. `heal` ends all faults."""

    def __enter__(self) -> Self:
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _checked(_libc().unshare(_CLONE_NEWNET))
        _run("ip", "link", "set", "lo", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _checked(_libc().setns(self._outside, _CLONE_NEWNET))
        finally:
            os.close(self._outside)

    def cut(self, one: Server, other: Server) -> None:
        """Drops all packets between the two servers. All other servers still reach both."""
        self.lose(one, other, share=1.0)

    def lose(self, one: Server, other: Server, *, share: float) -> None:
        """Drops that share of the packets between the two servers, in both directions."""
        chance = ("-m", "statistic", "--mode", "random", "--probability", str(share)) if share < 1 else ()
        for source, target in ((one, other), (other, one)):
            _drop("-s", source.address.host, "-d", target.address.host, *chance)

    def swallow(self, *hosts: str) -> None:
        """Drops all packets to these hosts, as for the address of a deleted pod. Otherwise they would be refused."""
        for host in hosts:
            _drop("-d", host)

    def cut_bus(self, server: Server) -> None:
        """Drops all packets to and from the server's cluster bus. Its data port still answers."""
        host = server.address.host
        for end, side in (("--dport", "-d"), ("--dport", "-s"), ("--sport", "-d"), ("--sport", "-s")):
            _drop("-p", "tcp", side, host, end, str(server.address.port + BUS_OFFSET))

    def close_bus(self, server: Server) -> None:
        """Drops all packets to the port of the server's cluster bus. Its own connections to others still work."""
        _drop("-p", "tcp", "-d", server.address.host, "--dport", str(server.address.port + BUS_OFFSET))

    def cut_data(self, one: Server, other: Server) -> None:
        """Drops all packets from each of the servers to the data port of the other. Their cluster buses are linked."""
        for source, target in ((one, other), (other, one)):
            port = str(target.address.port)
            _drop("-p", "tcp", "-s", source.address.host, "-d", target.address.host, "--dport", port)

    def heal(self) -> None:
        """Removes all rules, so that every packet arrives again."""
        _run("iptables", "-w", "-F", "INPUT")


def send_from_own_address(server: Server) -> None:
    """Makes the server send from its address, now and after its next start. Before 7.0 this is the default."""
    if int(server.program.version.split(".")[0]) < 7:
        return
    name, host = "bind-source-addr", server.address.host
    server.config = (*(line for line in server.config if not line.startswith(name)), f"{name} {host}")
    if server.alive:
        with Redis(host, server.address.port, protocol=2) as client:
            client.config_set(name, host)


def _drop(*rule: str) -> None:
    _run("iptables", "-w", "-A", "INPUT", *rule, "-j", "DROP")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=10)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
