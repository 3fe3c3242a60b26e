#!/bin/sh
# Checks whether the server of this pod has `started`, is `alive` or is `ready`. The message of a failed probe appears
# in the pod's Events.

here=${0%/*}
# shellcheck source=SCRIPTDIR/ask.sh
. "$here/ask.sh"
line='
'

fail() {
  echo "$1"
  exit 1
}

# Introduces the server to its peers: begins no round after $1 seconds. It has a time limit and never fails the probe.
introduce() {
  INTRODUCE_LIMIT_S=$1 timeout 6 sh "$here/introduce.sh" >/dev/null 2>&1 </dev/null || :
}

case $1 in
alive | started)
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
  # One round: whichever of two servers starts last finds the other.
  [ "$1" = alive ] || introduce 0
  ;;
ready)
  # The node reports that all slots are served and, as a replica, has the data of its master. So a rolling update waits
  # until a replaced node has caught up before it deletes the next one. Two requests: given both commands on its input,
  # redis-cli would first fetch the description of all commands each time.
  reports() {
    case $info in *"$line$1"*) ;; *) return 1 ;; esac
  }
  linked() {
    reports role:master || reports master_link_status:up
  }
  observe() {
    info=$(ask INFO 2>/dev/null)
    reports loading:0 || fail 'no answer to INFO, or the data is still loading'
    state=$(ask CLUSTER INFO 2>/dev/null)
  }
  observe
  # The same answers show whether peers may be missing: slots of masters that do not answer, fewer than 100 messages
  # since the start, or no link to the master. A node that started a moment ago reports the state ok until the node
  # timeout has passed, even if it has reached nobody. A healthy node is not asked for more.
  case $state in
  *cluster_state:ok*cluster_slots_pfail:0*cluster_slots_fail:0*messages_received:[0-9][0-9][0-9]*) linked ;;
  *) false ;;
  esac || { introduce 3 && observe; }
  case $state in
  *cluster_state:ok*) ;;
  *) fail 'cluster_state is not ok' ;;
  esac
  linked || fail 'the link to the master is down'
  ;;
*)
  fail "usage: $0 started|alive|ready"
  ;;
esac
