#!/bin/sh
# Asks this pod's own server whether it is `alive` or `ready`. What is printed on failure stands in the pod's Events.
# redis-cli reads the password from REDISCLI_AUTH; REDIS_CLI_OPTIONS may hold more of its options, such as --tls.

cli=$(command -v redis-cli || command -v valkey-cli)

# A hung server takes the connection and stays silent: without a limit the question would hang with it.
ask() {
  # shellcheck disable=SC2086 # one variable, several options
  timeout 3 "$cli" ${REDIS_CLI_OPTIONS-} "$@" 2>/dev/null
}

fail() {
  echo "$1"
  exit 1
}

case $1 in
alive)
  # Any answer will do, errors too: a node that loads its data or asks for a password must not be killed for it.
  [ -n "$(ask PING)" ] || fail 'no answer to PING'
  ;;
ready)
  # The node sees the whole cluster served and, as a replica, holds its master's data. So a rolling update waits until
  # a replaced node has caught up before it takes the next one away.
  answers=$(printf 'INFO\nCLUSTER INFO\n' | ask)
  says() { printf '%s\n' "$answers" | grep -q "^$1"; }
  says loading:0 || fail 'no answer to INFO, or the data is still loading'
  says cluster_state:ok || fail 'cluster_state is not ok'
  says role:master || says master_link_status:up || fail 'the link to the master is down'
  ;;
*)
  fail "usage: $0 alive|ready"
  ;;
esac
