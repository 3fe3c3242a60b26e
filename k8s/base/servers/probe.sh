#!/bin/sh
# Checks whether the server of this pod is `alive` or `ready`. The message of a failed probe appears in the pod's
# Events.

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
  # Any answer counts, also an error: a node that loads its data or requires a password must not be killed. Nor must a
  # node that rejects a certificate (redis-cli prints `Error: …`, or a message about SSL): a restart would not help.
  case $(ask PING 2>&1) in
  [A-Z][A-Z]* | Error:* | *SSL* | *TLS*) ;;
  *) fail 'no answer to PING' ;;
  esac
  # Scripts of components, which apply a Secret that has changed. They report to the log of the container.
  for renew in "$here"/renew-*.sh; do
    [ ! -e "$renew" ] || sh "$renew" || :
  done
  ;;
ready)
  # The node reports that all slots are served and, as a replica, has the data of its master. So a rolling update waits
  # until a replaced node has caught up before it deletes the next one. Two requests: given both commands on its input,
  # redis-cli would first fetch the description of all commands each time.
  info=$(ask INFO 2>/dev/null)
  reports() {
    case $info in *"$line$1"*) ;; *) return 1 ;; esac
  }
  reports loading:0 || fail 'no answer to INFO, or the data is still loading'
  case $(ask CLUSTER INFO 2>/dev/null) in
  *cluster_state:ok*) ;;
  *) fail 'cluster_state is not ok' ;;
  esac
  reports role:master || reports master_link_status:up || fail 'the link to the master is down'
  ;;
*)
  fail "usage: $0 alive|ready"
  ;;
esac
