#!/bin/sh
# Sends clients to host names as soon as all members of the cluster announce one. The probe `alive` runs this script
# every few seconds. It does something only after a start at which a member had no name: hostnames.sh.

file=${REDIS_HOSTNAMES:-/run/redis/hostnames.conf}
grep -q '^cluster-preferred-endpoint-type ip$' "$file" 2>/dev/null || exit 0
# shellcheck source=SCRIPTDIR/../../base/servers/ask.sh
. "${0%/*}/ask.sh"

# A line of a member with a name: ID ADDRESS:PORT@PORT,NAME ...
nodes=$(ask CLUSTER NODES 2>/dev/null)
case $nodes in *myself*) ;; *) exit 0 ;; esac
if printf '%s\n' "$nodes" | grep -qv '@[0-9]*,[^, ]'; then exit 0; fi
answer=$(ask CONFIG SET cluster-preferred-endpoint-type hostname 2>&1)
if [ "$answer" != OK ]; then
  log "clients are sent to addresses and not to host names: $answer"
  exit 1
fi
# The container may start again in the same pod.
sed 's/^\(cluster-preferred-endpoint-type\) ip$/\1 hostname/' "$file" >"$file.new" && mv "$file.new" "$file"
log 'all members announce host names, so clients are sent to them'
