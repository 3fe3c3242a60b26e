#!/bin/sh
# Asks this pod's own server whether it is `alive` or `ready`. What is printed on failure stands in the pod's Events.

here=${0%/*}
# shellcheck source=SCRIPTDIR/ask.sh
. "$here/ask.sh"

fail() {
  echo "$1"
  exit 1
}

case $1 in
alive)
  # Any answer will do, errors too: a node that loads its data or asks for a password must not be killed for it. Nor
  # one that turns a connection down over a certificate: it would come back with the same.
  ask PING 2>&1 | grep -Eq '^[A-Z]{2}|SSL|TLS|reset by peer' || fail 'no answer to PING'
  # What components bring to take over a Secret that has changed. It says what it did in the container's log.
  for renew in "$here"/renew-*.sh; do
    [ ! -e "$renew" ] || sh "$renew" || :
  done
  ;;
ready)
  # The node sees the whole cluster served and, as a replica, holds its master's data. So a rolling update waits until
  # a replaced node has caught up before it takes the next one away.
  answers=$(printf 'INFO\nCLUSTER INFO\n' | ask 2>/dev/null)
  says() { printf '%s\n' "$answers" | grep -q "^$1"; }
  says loading:0 || fail 'no answer to INFO, or the data is still loading'
  says cluster_state:ok || fail 'cluster_state is not ok'
  says role:master || says master_link_status:up || fail 'the link to the master is down'
  ;;
*)
  fail "usage: $0 alive|ready"
  ;;
esac
