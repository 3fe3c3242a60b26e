"""Real server processes: start, wait until they answer, move, pause, end. Every wait has a condition and a deadline."""

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
"""Waits so many seconds; may raise to end the waiting."""

NODE_TIMEOUT_MS = 5000
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
"""Longer than the 10 s that a server since 7.0 gives its replicas to catch up before it ends."""
_PING_TIMEOUT_S = 1.0
_POLL_S = 0.01
_LOG_BYTES_SHOWN = 8192
_COMPLAINT = re.compile(r"error|fail|fatal|could not|can't|cannot|bad |unable|denied|in use|abort|^>>>", re.IGNORECASE)


class Server:
    """One server process with a directory, an address and a log of its own. It does not outlive this process."""

    def __init__(
        self, program: Program, directory: Path, address: Address, *, name: str = "", config: Sequence[str] = ()
    ) -> None:
        """`config`: further lines of redis.conf, as they are; they come last and so win. Nothing is started yet."""
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
        """Everything the server said, over all its starts."""
        return self.directory / "server.log"

    @property
    def pid(self) -> int:
        """The process id. Raises NotYet when the server was never started."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether there is a process, be it paused or not answering."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start the process and come back at once. Raises NotYet when it is already there or cannot be started."""
        if self.alive:
            raise NotYet(f"{self} is already running")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            written = self.directory / "server.conf"
            written.write_text("\n".join((*self._own_config(), *self.config)) + "\n")
            # Extra lines may hold a password.
            written.chmod(0o600)
            with self.log_file.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    [self.program.path, written],
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=own_process_guard().group,
                )
        except OSError as error:
            raise NotYet(f"{self} could not be started: {error}") from error

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start and wait until it answers. Raises NotYet with the server's own complaint."""
        start_all([self], timeout_s=timeout_s)

    def answers(self) -> bool:
        """Whether it replies to PING now; wanting a password is a reply, loading its data is not yet one."""
        try:
            plain = socket.create_connection((self.address.host, self.address.port), timeout=_PING_TIMEOUT_S)
            with plain, self._secured(plain) as connection:
                connection.sendall(b"PING\r\n")
                reply = connection.recv(512)
        except OSError:
            return False
        return reply.startswith((b"+PONG", b"-")) and not reply.startswith(b"-LOADING")

    def check_started(self) -> None:
        """Raises NotYet when the process has ended, with the reason from its log."""
        process = self._running()
        status = process.poll()
        if status is None:
            return
        how = f"exit status {status}" if status >= 0 else f"signal {-status}"
        lines = self.log_tail().splitlines()
        said = [line for line in lines if _COMPLAINT.search(line) and "WARNING" not in line] or lines
        raise NotYet(f"{self} ended with {how} before it answered: {' | '.join(said[-3:]) or 'it said nothing'}")

    def log_tail(self) -> str:
        """The end of what the server said since its last start."""
        try:
            with self.log_file.open("rb") as log:
                end = log.seek(0, 2)
                log.seek(max(self._log_start, end - _LOG_BYTES_SHOWN))
                return log.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def terminate(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it in order (SIGTERM), by force (SIGKILL) after `timeout_s`. Harmless when it is not running."""
        stop_all([self], timeout_s=timeout_s)

    def ask_to_end(self) -> None:
        """SIGTERM, and SIGCONT in case it is paused: a stopped process would not hear the first."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for the end. Harmless when it is not running."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT_S)

    def wait_until_ended(self, timeout_s: float) -> bool:
        """Whether the process was gone within `timeout_s`."""
        if self._process is not None:
            try:
                self._process.wait(max(0.0, timeout_s))
            except subprocess.TimeoutExpired:
                return False
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Harmless when it is not running."""
        # Popen signals only a process that it has not yet waited for: never one that got the same id later.
        if self._process is not None:
            self._process.send_signal(number)

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): its sockets stay open, and nothing answers."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        self.send(signal.SIGCONT)

    def move(self, address: Address, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Restart on another address with the same data, as a pod that Kubernetes puts elsewhere."""
        self.terminate()
        self.address = address
        self.start(timeout_s=timeout_s)

    def _own_config(self) -> tuple[str, ...]:
        """The configuration of the manifests, in words that every server since 5.0 knows."""
        return (
            f"bind {self.address.host}",
            f"port {self.address.port}",
            f"cluster-announce-ip {self.address.host}",
            f"dir {_quoted(str(self.directory))}",
            "cluster-enabled yes",
            "cluster-config-file nodes.conf",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            "appendonly yes",
            "protected-mode no",
            "daemonize no",
            # A master would wait 5 s for more replicas to share its first copy: most of the time that forming takes.
            "repl-diskless-sync-delay 0",
        )

    def _secured(self, plain: socket.socket) -> socket.socket:
        """The same connection, in TLS where the extra lines turned it on for the port."""
        words = dict(line.split(None, 1) for line in self.config if len(line.split(None, 1)) == 2)
        if words.get("tls-port") != str(self.address.port):
            return plain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Asked is only whether our own process answers; whom to trust is what the program under test decides.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if "tls-cert-file" in words and "tls-key-file" in words:
            context.load_cert_chain(words["tls-cert-file"], words["tls-key-file"])
        return context.wrap_socket(plain)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise NotYet(f"{self} was not started")
        return self._process


def start_all(servers: Sequence[Server], *, timeout_s: float = START_TIMEOUT_S, pause: Pause = time.sleep) -> None:
    """Start all at once and wait until all answer, `timeout_s` together. Raises NotYet for the first that cannot."""
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
    """End all at once in order; whoever is still there after `timeout_s` is killed."""
    deadline = time.monotonic() + timeout_s
    for server in servers:
        server.ask_to_end()
    for server in servers:
        if not server.wait_until_ended(deadline - time.monotonic()):
            server.kill()


def kill_all(servers: Sequence[Server]) -> None:
    """End all by force: the quick way when their data is not wanted any more."""
    for server in servers:
        server.send(signal.SIGKILL)
    for server in servers:
        server.kill()


def _quoted(text: str) -> str:
    """A word of redis.conf, whatever characters it has."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
