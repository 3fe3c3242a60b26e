"""Running a local cluster in this process: claim its directory, choose its shape, start everything, stop everything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from bootstrap.errors import Refused
from bootstrap.local.arguments import REPLICAS, SHARDS
from bootstrap.local.cluster import LocalCluster, settings
from bootstrap.local.process_guard import own_process_guard
from bootstrap.local.programs import Program, find_program
from bootstrap.local.servers import Pause
from bootstrap.local.state_dir import ClusterDirectory, ClusterRecord
from bootstrap.model.node import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The cluster that the command line requests. None: the value recorded in the directory, else the default."""

    directory: str
    temporary: bool
    server: str | None = None
    shards: int | None = None
    replicas: int | None = None
    one_address: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedCluster:
    """A cluster whose servers answer: the facts that the command prints. The daemon sends them to the command."""

    directory: str
    temporary: bool
    program: str
    shards: int
    replicas: int
    addresses: tuple[Address, ...]
    nameserver: str

    @property
    def settings(self) -> dict[str, str]:
        """The `BOOTSTRAP_*` variables for this cluster."""
        return settings(nameserver=self.nameserver, shards=self.shards, replicas=self.replicas)

    def to_json(self) -> str:
        """One line of JSON for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The cluster from a line that `to_json` made."""
        fields = json.loads(text)
        addresses = tuple(Address(**each) for each in fields.pop("addresses"))
        return cls(addresses=addresses, **fields)


class Host:
    """Runs a cluster in this process. Its servers end with `end`, or with the process."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._state_dir: ClusterDirectory | None = None
        self._cluster: LocalCluster | None = None
        self._record: ClusterRecord | None = None

    def start(self, pause: Pause) -> StartedCluster:
        """Start everything. After an error, call `end` to stop what was started.

        Raises any BootstrapError; errors of `pause` pass through.
        """
        program = find_program(self._request.server)
        directory = Path(self._request.directory)
        self._state_dir = state_dir = ClusterDirectory.claim(directory)
        before = state_dir.record()
        self._record = wanted = self._shape(before)
        # Saved before the servers make their files: if this run is killed from here on, the next one knows whether it
        # may delete them.
        state_dir.save(wanted if before is None else before)
        if wanted.temporary:
            own_process_guard().remove_at_end(directory.absolute())
        self._cluster = cluster = self._servers(program, wanted)
        cluster.start(pause=pause)
        addresses = tuple(server.address for server in cluster.servers)
        self._record = replace(wanted, addresses=addresses)
        state_dir.save(replace(self._record if before is None else before, addresses=addresses))
        state_dir.announce(cluster.nameserver.address)
        return StartedCluster(
            directory=str(directory),
            temporary=wanted.temporary,
            program=str(program),
            shards=wanted.shards,
            replicas=wanted.replicas,
            addresses=addresses,
            nameserver=cluster.nameserver.address,
        )

    def formed(self) -> None:
        """Record the requested shape, now that `apply` has reached it: the next start in this directory uses it."""
        if self._state_dir is not None and self._record is not None:
            self._state_dir.save(self._record)

    def end(self) -> None:
        """Stop everything and remove a temporary directory. A second call, or one before `start`, does nothing."""
        temporary = self._record is not None and self._record.temporary
        cluster, self._cluster = self._cluster, None
        state_dir, self._state_dir = self._state_dir, None
        try:
            if cluster is not None:
                cluster.stop(keep_data=not temporary)
        finally:
            if state_dir is not None:
                state_dir.leave(remove=temporary)
                if temporary:
                    own_process_guard().keep_at_end(state_dir.path.absolute())

    def _servers(self, program: Program, wanted: ClusterRecord) -> LocalCluster:
        return LocalCluster(
            program,
            Path(self._request.directory),
            nodes=wanted.shards * (1 + wanted.replicas),
            one_address=self._request.one_address or all_differ_by_port(wanted.addresses),
            before=wanted.addresses,
        )

    def _shape(self, before: ClusterRecord | None) -> ClusterRecord:
        """The shape to run. Raises Refused when it has fewer nodes than the directory holds."""
        request = self._request
        if before is None:
            return ClusterRecord(
                shards=_first(request.shards, SHARDS),
                replicas=_first(request.replicas, REPLICAS),
                addresses=(),
                temporary=request.temporary,
            )
        wanted = replace(
            before, shards=_first(request.shards, before.shards), replicas=_first(request.replicas, before.replicas)
        )
        nodes, held = wanted.shards * (1 + wanted.replicas), before.shards * (1 + before.replicas)
        if nodes < held:
            raise Refused(
                f"{request.directory} holds {held} nodes (--shards {before.shards} --replicas {before.replicas});"
                f" with {nodes} nodes the data of the others would be missing; keep that shape or use another --dir"
            )
        return wanted


def all_differ_by_port(addresses: tuple[Address, ...]) -> bool:
    """Whether several addresses share one IP address, as with `--one-address`."""
    return len(addresses) > 1 and len({address.host for address in addresses}) == 1


def overrides(environ: Mapping[str, str], cluster: StartedCluster) -> dict[str, str]:
    """The variables that `verify` needs in this environment: those that differ from the defaults of the program, and
    those that the environment sets for another cluster.
    """
    defaults = settings(nameserver="", shards=SHARDS, replicas=REPLICAS)
    # A local cluster does not use the program's defaults of these.
    defaults |= {
        "BOOTSTRAP_KUBERNETES": "auto",
        "BOOTSTRAP_ACCESS_SERVICE": "gold-redis",
        "BOOTSTRAP_NODE_TIMEOUT_MS": "",
    }
    return {name: value for name, value in cluster.settings.items() if environ.get(name) or defaults[name] != value}


def _first(requested: int | None, otherwise: int) -> int:
    return otherwise if requested is None else requested
