#!/bin/sh
# Runs before the server of this pod stops. On a master it starts a manual failover to a replica and waits until the
# replica has taken over. Writes then pause for a moment, instead of for the node timeout and an election. On a replica,
# or on a master without linked replicas, it exits immediately. When all pods stop at the same time (scaled to 0, a
# drained machine), soon no linked replica is left, and it exits.

# shellcheck source=SCRIPTDIR/ask.sh
. "${0%/*}/ask.sh"
# In seconds. Even with two more requests of 3 s each, this stays well below terminationGracePeriodSeconds.
end=$(($(date +%s) + ${PRESTOP_LIMIT_S:-12}))
candidate='' again=0 alone=0

# Prints `ip port` of the replica with the highest replication offset among those whose link to this master is up. The
# addresses come from CLUSTER NODES, because the source address of a replication connection may be that of a proxy.
best_replica() {
  nodes=$(ask CLUSTER NODES 2>/dev/null)
  me=$(printf '%s\n' "$nodes" | sed -n 's/^\([0-9a-f]*\) .* myself,master .*/\1/p')
  printf '%s\n' "$nodes" | sed -n "s/^[0-9a-f]* \(.*\):\([0-9]*\)@[^ ]* slave $me .*/\1 \2/p" |
    while read -r host port; do
      copy=$(ask -h "$host" -p "$port" INFO replication 2>/dev/null </dev/null | tr -d '\r')
      case $copy in
      *master_link_status:up*)
        echo "$(printf '%s\n' "$copy" | sed -n 's/^slave_repl_offset://p') $host $port"
        ;;
      esac
    done | sort -rn | sed -n '1s/^[0-9]* //p'
}

while now=$(date +%s) && [ "$now" -lt "$end" ]; do
  self=$(ask INFO replication 2>/dev/null)
  case $self in
  *role:slave*) [ -z "$candidate" ] || log "$candidate has taken over"; exit 0 ;;
  *role:master*connected_slaves:0*)
    # A replica that takes over closes its link a moment before this master learns of it. If the master ended now, it
    # would close the connections of its clients instead of sending them to the replica.
    [ -n "$candidate" ] && [ "$alone" -lt 10 ] || exit 0
    alone=$((alone + 1))
    sleep 0.2
    continue
    ;;
  *role:master*) ;;
  *) exit 0 ;;
  esac
  # A second CLUSTER FAILOVER would restart a failover in progress. The servers abort a failover after 5 s.
  if [ "$now" -ge "$again" ]; then
    candidate=$(best_replica)
    again=$((now + 1))
    if [ -n "$candidate" ]; then
      answer=$(ask -h "${candidate% *}" -p "${candidate#* }" CLUSTER FAILOVER 2>&1 </dev/null)
      [ "$answer" != OK ] || again=$((now + 6))
      log "asked $candidate to take over: $answer"
    fi
  fi
  sleep 0.2
done
log 'no replica has taken over in time'
