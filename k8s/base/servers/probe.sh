#!/bin/sh
# Asks this pod's own server whether it is `alive` or `ready`. What is printed on failure stands in the pod's Events.

here=${0%/*}
# shellcheck source=SCRIPTDIR/ask.sh
. "$here/ask.sh"
line='
'

fail() {
  echo "$1"
  exit 1
}

case $1 in
alive)
  # Any answer will do, errors too: a node that loads its data or asks for a password must not be killed for it. Nor
  # one that hangs up over a certificate (redis-cli: `Error: …`, or words about SSL): it would come back with the same.
  case $(ask PING 2>&1) in
  [A-Z][A-Z]* | Error:* | *SSL* | *TLS*) ;;
  *) fail 'no answer to PING' ;;
  esac
  # What components bring to take over a Secret that has changed. It says in the container's log what it did.
  for renew in "$here"/renew-*.sh; do
    [ ! -e "$renew" ] || sh "$renew" || :
  done
  ;;
ready)
  # The node sees the whole cluster served and, as a replica, holds its master's data. So a rolling update waits until
  # a replaced node has caught up before it takes the next one away.
  # Two questions: fed with both at once, redis-cli would first ask for the description of all commands, each time.
  info=$(ask INFO 2>/dev/null)
  says() {
    case $info in *"$line$1"*) ;; *) return 1 ;; esac
  }
  says loading:0 || fail 'no answer to INFO, or the data is still loading'
  case $(ask CLUSTER INFO 2>/dev/null) in
  *cluster_state:ok*) ;;
  *) fail 'cluster_state is not ok' ;;
  esac
  says role:master || says master_link_status:up || fail 'the link to the master is down'
  ;;
*)
  fail "usage: $0 alive|ready"
  ;;
esac
