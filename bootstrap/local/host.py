"""Running a local cluster in a directory: claim it, find out its shape, start everything, and end everything again."""

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
from bootstrap.local.state_dir import ClusterDirectory, Remembered
from bootstrap.model.node import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for. None: as the directory remembers, else the default."""

    directory: str
    temporary: bool
    server: str | None = None
    shards: int | None = None
    replicas: int | None = None
    one_address: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """A cluster of servers that answer, as a person or another process is told of it."""

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
        """One line of text that `from_json` understands."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` gave."""
        fields = json.loads(text)
        addresses = tuple(Address(**each) for each in fields.pop("addresses"))
        return cls(addresses=addresses, **fields)


class Host:
    """Runs a cluster in this process: what was started ends with `end`, or with the process."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._home: ClusterDirectory | None = None
        self._cluster: LocalCluster | None = None
        self._remembered: Remembered | None = None

    def start(self, pause: Pause) -> Hosted:
        """Start everything. Raises any BootstrapError and what `pause` raises; `end` then takes down what there is."""
        program = find_program(self._request.server)
        directory = Path(self._request.directory)
        self._home = home = ClusterDirectory.claim(directory)
        before = home.remembered()
        self._remembered = wanted = self._shape(before)
        # Before anything else is in the directory: a run that is killed from here on leaves what the next one
        # recognises.
        home.remember(wanted if before is None else before)
        if wanted.temporary:
            own_process_guard().remove_at_end(directory.absolute())
        self._cluster = cluster = self._servers(program, wanted)
        cluster.start(pause=pause)
        addresses = tuple(server.address for server in cluster.servers)
        self._remembered = replace(wanted, addresses=addresses)
        home.remember(replace(self._remembered if before is None else before, addresses=addresses))
        home.announce(cluster.nameserver.address)
        return Hosted(
            directory=str(directory),
            temporary=wanted.temporary,
            program=str(program),
            shards=wanted.shards,
            replicas=wanted.replicas,
            addresses=addresses,
            nameserver=cluster.nameserver.address,
        )

    def formed(self) -> None:
        """The cluster has its shape now: a later start in this directory is for the same one."""
        if self._home is not None and self._remembered is not None:
            self._home.remember(self._remembered)

    def end(self) -> None:
        """End everything; a temporary directory goes too. Harmless when repeated or when nothing was started."""
        temporary = self._remembered is not None and self._remembered.temporary
        cluster, self._cluster = self._cluster, None
        home, self._home = self._home, None
        try:
            if cluster is not None:
                cluster.stop(keep_data=not temporary)
        finally:
            if home is not None:
                home.leave(remove=temporary)
                if temporary:
                    own_process_guard().keep_at_end(home.path.absolute())

    def _servers(self, program: Program, wanted: Remembered) -> LocalCluster:
        return LocalCluster(
            program,
            Path(self._request.directory),
            nodes=wanted.shards * (1 + wanted.replicas),
            one_address=self._request.one_address or all_differ_by_port(wanted.addresses),
            before=wanted.addresses,
        )

    def _shape(self, before: Remembered | None) -> Remembered:
        """The shape to run. Raises Refused when the directory holds more nodes than it has."""
        request = self._request
        if before is None:
            return Remembered(
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
                f"{request.directory} holds {held} nodes ({before.shards} shards, replicas of each: {before.replicas});"
                f" a shape of {nodes} would leave data behind: take another directory or that shape"
            )
        return wanted


def all_differ_by_port(addresses: tuple[Address, ...]) -> bool:
    """Whether these share one IP address, as where only 127.0.0.1 exists."""
    return len(addresses) > 1 and len({address.host for address in addresses}) == 1


def differing(environ: Mapping[str, str], hosted: Hosted) -> dict[str, str]:
    """What a person in this environment has to tell `verify` by hand: all settings that do not hold anyway."""
    usual = settings(nameserver="", shards=SHARDS, replicas=REPLICAS)
    # These two have another default on Kubernetes than here.
    usual |= {"BOOTSTRAP_KUBERNETES": "auto", "BOOTSTRAP_ACCESS_SERVICE": "gold-redis", "BOOTSTRAP_NODE_TIMEOUT_MS": ""}
    return {name: value for name, value in hosted.settings.items() if environ.get(name) or usual[name] != value}


def _first(told: int | None, otherwise: int) -> int:
    return otherwise if told is None else told
