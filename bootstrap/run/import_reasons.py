"""Why an import ends: the source does not answer as it should, or the cluster does not take its keys."""

from __future__ import annotations

from bootstrap.errors import AGAIN, RUN_AGAIN, BootstrapError, Misconfigured, NotYet, Reason, Refused
from bootstrap.model.copying import shown
from bootstrap.model.unreachable import UnreachableReason
from bootstrap.nodes.copying.owners import TOO_LARGE, RestoreRejected, Stalled
from bootstrap.nodes.copying.reading import SourceRejected
from bootstrap.nodes.copying.source import SeveralServers, SourceUnusable, UnnamedMaster

_LOGIN = (
    "set --from-password-file (BOOTSTRAP_IMPORT_PASSWORD_FILE) to a file with the password of the source, and "
    "--from-username for an ACL user"
)
RIGHTS = (
    "grant the user of the source what reading needs: ACL SETUSER USER ~* +@read +info +time +scan +dump +select "
    "+memory|usage +function|list"
)
_NETWORK = (
    "check the host and the port: redis-cli -h HOST -p PORT PING, from a pod; a NetworkPolicy may be in the way: with "
    "the component network-policy, allow the egress of the Job (docs/moving.md)"
)
_REMEDIES = {
    UnreachableReason.NEEDS_PASSWORD: _LOGIN,
    UnreachableReason.WRONG_PASSWORD: f"{_LOGIN}; without a password at the source, unset it",
    UnreachableReason.DENIED: f"{RIGHTS}; for a server without a password, set protected-mode no",
    UnreachableReason.UNKNOWN_COMMAND: "a rename-command in the redis.conf of the source hides it, or a proxy answers: "
    "name the server itself: --from HOST:PORT",
    UnreachableReason.TLS: "compare --from-tls-ca-file, --from-tls-cert-file and --from-tls-key-file "
    "(BOOTSTRAP_IMPORT_TLS_…) with the certificates of the source, and check that the port is its TLS port",
    UnreachableReason.LOADING: f"wait until the source has loaded its data; then {AGAIN}",
    UnreachableReason.NOT_REDIS: "name the port of a Redis or Valkey server: --from HOST:PORT",
}


def of_source(text: str) -> str:
    """A text about TLS files with the names that the settings have for the source."""
    return text.replace("BOOTSTRAP_TLS_", "BOOTSTRAP_IMPORT_TLS_")


def as_outcome(error: Exception) -> BootstrapError:
    """The error with which the run ends."""
    match error:
        case SourceUnusable():
            return _unusable(error)
        case UnnamedMaster():
            remedy = "name one of them: --from-sentinel-name NAME (BOOTSTRAP_IMPORT_SENTINEL_NAME)"
            return Misconfigured.because([Reason(code="source-master", message=str(error), remedy=remedy)])
        case SeveralServers():
            message = "--from names several servers, and they are not members of a cluster, nor Sentinels"
            remedy = "copy from one standalone server after the other: a run for each, with --from HOST:PORT"
            return Misconfigured.because([Reason(code="source-master", message=message, remedy=remedy)])
        case SourceRejected():
            return _rejected_by_source(str(error))
        case Stalled():
            message = f"the cluster has not accepted keys for a while: {error}"
            remedy = f"apply repairs the cluster, or names the reason why it cannot; then {AGAIN}"
            return NotYet.because([Reason(code="import-stalled", message=message, remedy=remedy)])
        case RestoreRejected():
            return _rejected_by_target(error)
    raise error


def _unusable(error: SourceUnusable) -> BootstrapError:
    why = error.failure.why
    reason = Reason(
        code="source-unusable",
        message=of_source(f"the source {error}"),
        remedy=_REMEDIES.get(why, f"{_NETWORK}; then {AGAIN}"),
    )
    return (Misconfigured if why.permanent else NotYet).because([reason])


def _rejected_by_source(text: str) -> BootstrapError:
    denied = text.startswith("NOPERM") or "unknown command" in text.lower()
    message = f"the source rejects a command that copying needs: {text}"
    reason = Reason(code="source-rejected", message=message, remedy=RIGHTS if denied else AGAIN)
    return (Misconfigured if denied else NotYet).because([reason])


def _rejected_by_target(error: RestoreRejected) -> BootstrapError:
    text, name = str(error), repr(shown(error.key))
    if text.startswith("OOM"):
        remedy = f"raise maxmemory and the pods' memory, or declare more shards; then {RUN_AGAIN}"
        return Refused.because([Reason(code="no-room", message=f"no room for the key {name}: {text}", remedy=remedy)])
    if text.startswith(TOO_LARGE):
        remedy = "servers take at most 512 MiB in one command: make the key smaller at the source, or delete it there; "
        remedy += f"then {RUN_AGAIN}"
        message = f"the key {name} is too large to be copied: {text}"
        return Refused.because([Reason(code="payload-rejected", message=message, remedy=remedy)])
    if error.unreadable:
        message = f"the servers of the cluster cannot read the dump of the key {name}: {text}"
        remedy = "the key needs a newer server, or a module that the cluster lacks: docs/versions.md; or delete it at "
        remedy += f"the source; then {RUN_AGAIN}"
        return Refused.because([Reason(code="payload-rejected", message=message, remedy=remedy)])
    denied = text.startswith("NOPERM") or "unknown command" in text.lower()
    remedy = "import needs RESTORE and EXISTS on all keys: with the component auth, let it log in as the clients' "
    remedy += "user, as k8s/import does (BOOTSTRAP_USERNAME, BOOTSTRAP_PASSWORD_FILE)"
    reason = Reason(
        code="import-rejected",
        message=f"the cluster rejects the key {name}: {text}",
        remedy=remedy if denied else f"kubectl logs of the master shows more; then {AGAIN}",
    )
    return (Misconfigured if denied else NotYet).because([reason])
