#!/bin/sh
# Before this pod's server ends: has a replica take over, and waits until that is done. Writes then pause for a moment,
# not for the node timeout and an election. A replica, or a master without a linked replica, ends at once.
# Where all end at once (scaled to 0, a drained machine) there is soon nobody left to hand over to, and that is the end.

# shellcheck source=SCRIPTDIR/ask.sh
. "${0%/*}/ask.sh"
# Seconds. With two more questions in flight it stays well below terminationGracePeriodSeconds.
end=$(($(date +%s) + ${PRESTOP_LIMIT_S:-12}))
heir='' again=0

# Of the replicas whose own link is up the one that has read the most, as `ip port`. Their addresses are those of the
# cluster: the one that a connection comes from may be a proxy's.
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
  *role:slave*) [ -z "$heir" ] || log "$heir has taken over"; exit 0 ;;
  *role:master*connected_slaves:0*) exit 0 ;;
  *role:master*) ;;
  *) exit 0 ;;
  esac
  # Told once: a second word would start it over. The servers themselves give up after 5 s.
  if [ "$now" -ge "$again" ]; then
    heir=$(best_replica)
    again=$((now + 1))
    if [ -n "$heir" ]; then
      answer=$(ask -h "${heir% *}" -p "${heir#* }" CLUSTER FAILOVER 2>&1 </dev/null)
      [ "$answer" != OK ] || again=$((now + 6))
      log "asked $heir to take over: $answer"
    fi
  fi
  sleep 0.2
done
log 'nobody has taken over in time'
