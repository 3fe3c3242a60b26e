"""Server processes: start them, wait until they answer, move, pause and stop them. Every wait has a deadline."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bootstrap.errors import NotYet
from bootstrap.local.process_guard import own_process_guard
from bootstrap.local.programs import Program
from bootstrap.model.node import Address

Pause = Callable[[float], object]
"""Waits for the given seconds. It may raise to end the wait."""

NODE_TIMEOUT_MS = 5000
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
"""Longer than the 10 s for which a server since 7.0 waits for its replicas before it exits."""
_PING_TIMEOUT_S = 1.0
_POLL_S = 0.01
_LOG_BYTES_SHOWN = 8192
_COMPLAINT = re.compile(r"error|fail|fatal|could not|can't|cannot|bad |unable|denied|in use|abort|^>>>", re.IGNORECASE)


class Server:
    """One server process with its own directory, address and log. It does not outlive this process."""

    def __init__(
        self, program: Program, directory: Path, address: Address, *, name: str = "", config: Sequence[str] = ()
    ) -> None:
        """Start nothing yet. `config`: more lines of redis.conf; they come last and override those of this module."""
        self.program = program
        self.directory = directory.absolute()
        self.address = address
        self.name = name or directory.name
        self.config = tuple(config)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"

    @property
    def log_file(self) -> Path:
        """The output of the server, over all its starts."""
        return self.directory / "server.log"

    @property
    def pid(self) -> int:
        """The process id. Raises NotYet when the server was never started."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the process exists; it may be paused or not answer."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start the process and do not wait. Raises NotYet when it is already running or cannot be started."""
        if self.alive:
            raise NotYet(f"{self} is already running")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            config_file = self.directory / "server.conf"
            config_file.write_text("\n".join((*self._own_config(), *self.config)) + "\n")
            # The lines of `config` may hold a password.
            config_file.chmod(0o600)
            with self.log_file.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    [self.program.path, config_file],
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=own_process_guard().group,
                )
        except OSError as error:
            raise NotYet(f"{self} could not be started: {error}") from error

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start and wait until it answers. Raises NotYet with the error lines of the server's log."""
        start_all([self], timeout_s=timeout_s)

    def answers(self) -> bool:
        """Whether it replies to PING now. An error such as NOAUTH counts as a reply, LOADING does not."""
        try:
            plain = socket.create_connection((self.address.host, self.address.port), timeout=_PING_TIMEOUT_S)
            with plain, self._secured(plain) as connection:
                connection.sendall(b"PING\r\n")
                reply = connection.recv(512)
        except OSError:
            return False
        return reply.startswith((b"+PONG", b"-")) and not reply.startswith(b"-LOADING")

    def check_started(self) -> None:
        """Raise NotYet when the process has exited, with the reason from its log."""
        process = self._running()
        status = process.poll()
        if status is None:
            return
        how = f"exited with status {status}" if status >= 0 else f"was killed by signal {-status}"
        lines = self.log_tail().splitlines()
        shown = [line for line in lines if _COMPLAINT.search(line) and "WARNING" not in line] or lines
        raise NotYet(f"{self} {how} before it answered: {' | '.join(shown[-3:]) or 'its log is empty'}")

    def log_tail(self) -> str:
        """The last lines of the server's output since its last start."""
        try:
            with self.log_file.open("rb") as log:
                end = log.seek(0, 2)
                log.seek(max(self._log_start, end - _LOG_BYTES_SHOWN))
                return log.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def terminate(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop it with SIGTERM, and with SIGKILL after `timeout_s`. Does nothing when it is not running."""
        stop_all([self], timeout_s=timeout_s)

    def request_end(self) -> None:
        """Send SIGTERM, then SIGCONT: a paused process handles SIGTERM only after it continues."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end. Does nothing when it is not running."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT_S)

    def wait_until_ended(self, timeout_s: float) -> bool:
        """Whether the process ended within `timeout_s`."""
        if self._process is not None:
            try:
                self._process.wait(max(0.0, timeout_s))
            except subprocess.TimeoutExpired:
                return False
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Does nothing when it is not running."""
        # Popen signals only a process that it has not yet reaped, never another one that got the same id later.
        if self._process is not None:
            self._process.send_signal(number)

    def pause(self) -> None:
        """Pause it (SIGSTOP): its sockets stay open, and it answers nothing."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue a paused server (SIGCONT)."""
        self.send(signal.SIGCONT)

    def move(self, address: Address, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Restart on another address with the same data, like a pod that was rescheduled."""
        self.terminate()
        self.address = address
        self.start(timeout_s=timeout_s)

    def _own_config(self) -> tuple[str, ...]:
        """The configuration of the manifests, in directives that every server since 5.0 has."""
        return (
            f"bind {self.address.host}",
            f"port {self.address.port}",
            f"cluster-announce-ip {self.address.host}",
            f"dir {_quoted(str(self.directory))}",
            "cluster-enabled yes",
            "cluster-config-file nodes.conf",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            "appendonly yes",
            'save ""',
            "protected-mode no",
            "daemonize no",
            # By default a master waits 5 s for more replicas before the first full sync: most of the time of forming.
            "repl-diskless-sync-delay 0",
        )

    def _secured(self, plain: socket.socket) -> socket.socket:
        """The same connection, with TLS if `config` enables it for the port."""
        directives = dict(line.split(None, 1) for line in self.config if len(line.split(None, 1)) == 2)
        if directives.get("tls-port") != str(self.address.port):
            return plain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The only question is whether our own process answers; checking certificates is up to the program under test.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if "tls-cert-file" in directives and "tls-key-file" in directives:
            context.load_cert_chain(directives["tls-cert-file"], directives["tls-key-file"])
        return context.wrap_socket(plain)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise NotYet(f"{self} has not been started")
        return self._process


def start_all(servers: Sequence[Server], *, timeout_s: float = START_TIMEOUT_S, pause: Pause = time.sleep) -> None:
    """Start all servers in parallel and wait until all answer, at most `timeout_s`. Raises NotYet when one does not."""
    deadline = time.monotonic() + timeout_s
    for server in servers:
        server.spawn()
    waiting = list(servers)
    while waiting:
        for server in waiting:
            server.check_started()
        waiting = [server for server in waiting if not server.answers()]
        if waiting and time.monotonic() > deadline:
            raise NotYet(f"no answer within {timeout_s:g} s: {', '.join(str(server) for server in waiting)}")
        if waiting:
            pause(_POLL_S)


def stop_all(servers: Sequence[Server], *, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Stop all servers in parallel with SIGTERM; kill those that are still running after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    for server in servers:
        server.request_end()
    for server in servers:
        if not server.wait_until_ended(deadline - time.monotonic()):
            server.kill()


def kill_all(servers: Sequence[Server]) -> None:
    """Kill all servers: the quick way when their data is not needed."""
    for server in servers:
        server.send(signal.SIGKILL)
    for server in servers:
        server.kill()


def _quoted(text: str) -> str:
    """The text as one quoted argument of redis.conf."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
