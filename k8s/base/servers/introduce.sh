#!/bin/sh
# Introduces this pod's server to the members of its cluster that are not at the address that it has stored. Servers
# learn a new address only from a packet of that peer. If all pods get new addresses at the same time, no packet arrives
# anywhere, and without an introduction (CLUSTER MEET) no server would ever find another.
#
# It never joins two clusters: it introduces a server only if each of the two already has the other's node id in its
# table (CLUSTER NODES). If two addresses answer with the same id, a volume was copied. It logs that, and introduces
# neither. If the id is that of this node, it introduces nobody.
#   REDIS_SERVICE       the headless Service, whose DNS lists all pods
#   POD_IP              the address of this pod, which its server announces
#   INTRODUCE_LIMIT_S   begin no further round after that many seconds, by default 3; with 0 there is one round
#   PEER_LIMIT_S        the time limit of a request to a peer, by default 1, because most of the stored addresses lead
#                       nowhere after a restart

# shellcheck source=SCRIPTDIR/ask.sh
. "${0%/*}/ask.sh"
[ -n "${REDIS_SERVICE-}" ] && [ -n "${POD_IP-}" ] || exit 0
end=$(($(date +%s) + ${INTRODUCE_LIMIT_S:-3}))
line='
'
set -f

# Lists are words between spaces, so that `case` can search them without another process.
in_list() {
  case $1 in *" $2 "*) ;; *) return 1 ;; esac
}

# The addresses of all pods. Debian and Alpine have getent. nslookup prints its DNS server first.
resolve() {
  if command -v getent >/dev/null; then
    timeout 2 getent ahosts "$REDIS_SERVICE" | while read -r address _; do echo "$address"; done
  else
    timeout 2 nslookup "$REDIS_SERVICE" | sed -n '/^Name:/,$s/^Address[^:]*:[[:space:]]*\([^[:space:]]*\).*/\1/p'
  fi 2>/dev/null
}

# Logs once that the server at that address is not introduced.
log_copy() {
  in_list "$copies" "$1" || log "did not introduce $1: another server has the same node id, so one volume is a copy"
  copies="$copies$1 "
}
copies=' '

# Reads the table of this node. Sets me, mine, port, bus and master from its own entry (`master` is `-` on a master),
# `members` to ID=ADDRESS of the others (an unknown address is empty), and `linked` to the addresses to which this node
# has a working link. Entries in handshake are left out, because their ids are random.
read_table() {
  me='' mine='' members=' ' linked=' '
  table=$(ask CLUSTER NODES 2>/dev/null)
  IFS=$line
  for entry in $table; do
    unset IFS
    # shellcheck disable=SC2086 # the fields of one line
    set -- $entry
    address=${2%%@*}
    case ,$3, in
    *,myself,*) me=$1 mine=${address%:*} port=${address##*:} bus=${2#*@} bus=${bus%%,*} master=$4 ;;
    *,handshake,*) ;;
    *)
      members="$members$1=${address%:*} "
      # No failure flag, no ping without an answer, and a link.
      case ,$3,$5,$8 in
      *,fail* | *,noaddr*) ;;
      *,0,connected) linked="$linked${address%:*} " ;;
      esac
      ;;
    esac
  done
  unset IFS
}

# Sets `stored` to the address of that id in the table. Fails for an id that is not in it.
stored_address() {
  case $members in *" $1="*) stored=${members#*" $1="} stored=${stored%% *} ;; *) return 1 ;; esac
}

# Asks the server at that address for its table. Prints ID=ADDRESS for itself, `knows ADDRESS` if this node is in its
# table, and then also `heard ADDRESS` for each missing member that it has a link to. The cluster DNS may be out of date
# for half a minute after a restart. Peers that have found each other already know better.
look_at() {
  ASK_LIMIT_S=${PEER_LIMIT_S:-1}
  table=$(ask -h "$1" -p "$port" CLUSTER NODES 2>/dev/null </dev/null)
  case $table in *" myself,"*) ;; *) return ;; esac
  id=${table%% myself,*} id=${id##*"$line"} id=${id%% *}
  echo "$id=$1"
  stored_address "$id" || return
  case $line$table in *"$line$me "*) echo "knows $1" ;; *) return ;; esac
  IFS=$line
  for entry in $table; do
    unset IFS
    # shellcheck disable=SC2086 # the fields of one line
    set -- $entry
    in_list "$missing" "$1" || continue
    case ,$3,$8 in
    *,fail* | *,noaddr* | *,handshake*) ;;
    *,connected) address=${2%%@*} && echo "heard ${address%:*}" ;;
    esac
  done
}

# Looks at these addresses, 50 in parallel, at each one once per round. Adds what they answer to `answers` (ID=ADDRESS),
# `mutual` and `heard` (addresses).
look_at_all() {
  batch='' started=0
  for address; do
    in_list "$seen" "$address" || { seen="$seen$address " batch="$batch $address"; }
  done
  IFS=$line
  for answer in $(
    unset IFS
    for address in $batch; do
      look_at "$address" &
      started=$((started + 1))
      [ $((started % 50)) != 0 ] || wait
    done
    wait
  ); do
    case $answer in
    knows*) mutual="$mutual${answer#* } " ;;
    heard*) heard="$heard${answer#* } " ;;
    *) answers="$answers$answer " ;;
    esac
  done
  unset IFS
}

# If a replica learns the new address of its master from another peer, Redis keeps copying from the old address. The
# same CLUSTER REPLICATE again makes it use the new one. It does not interrupt a copy that is under way.
follow_master() {
  stored_address "$master" && in_list "$linked" "$stored" || return
  replication=$(ask INFO replication 2>/dev/null)
  case $replication in
  *master_host:"$stored"[!0-9a-f.:]* | *master_link_status:up* | *master_sync_in_progress:1*) ;;
  *role:slave*) log "follows its master at $stored: $(ask CLUSTER REPLICATE "$master" 2>&1 </dev/null)" ;;
  esac
}

# One round. Succeeds if another one may find more.
introduce() {
  read_table
  # A node that knows nobody waits for the Job. A server that announces another address is not found by the addresses of
  # the pods.
  [ "$members" != ' ' ] && [ "$mine" = "$POD_IP" ] || return
  follow_master
  case $mine in *:*) other_family='*.*' ;; *) other_family='*:*' ;; esac
  pods=' '
  for address in $(resolve); do
    # shellcheck disable=SC2254 # a pattern
    case $address in $other_family | "$mine") ;; *) in_list "$pods" "$address" || pods="$pods$address " ;; esac
  done

  # A member is missing if it has no working link, or if no pod has its address: for some seconds a link counts as
  # working that has never carried a packet.
  missing=' ' healthy=' '
  for member in $members; do
    address=${member#*=}
    if in_list "$linked" "$address" && { [ "$pods" = ' ' ] || in_list "$pods" "$address"; }; then
      healthy="$healthy$address "
    else
      missing="$missing${member%%=*} "
    fi
  done
  # All pods but the healthy ones. If a member is missing, also three healthy ones, which may have found it.
  # shellcheck disable=SC2086 # a list
  set -- $healthy
  [ "$missing" != ' ' ] && sources="${1-} ${2-} ${3-}" || sources=''
  for address in $pods; do
    in_list "$healthy" "$address" || sources="$sources $address"
  done
  seen=" $mine " answers=" $me=$mine " mutual=' ' heard=' '
  # shellcheck disable=SC2086 # a list
  look_at_all $sources
  # The addresses that they have reported, and the stored addresses of the ids that have answered.
  sources=$heard
  for answer in $answers; do
    ! stored_address "${answer%%=*}" || sources="$sources $stored"
  done
  # shellcheck disable=SC2086 # a list
  look_at_all $sources

  case $answers in *" $me="*" $me="*) log_copy "$mine"; return 1 ;; esac
  for answer in $answers; do
    id=${answer%%=*} address=${answer#*=}
    stored_address "$id" && [ "$address" != "$stored" ] || continue
    case $answers in *" $id="*" $id="*) log_copy "$address"; continue ;; esac
    # A pod is still at the stored address. It does not answer, but it may be the member.
    case $answers in *"=$stored "*) ;; *) ! in_list "$pods" "$stored" || continue ;; esac
    in_list "$mutual" "$address" || continue
    ! in_list "$introduced" "$answer" || continue
    missing="$missing$id "
    result=$(ask CLUSTER MEET "$address" "$port" "$bus" 2>&1 </dev/null)
    log "introduced $id at $address, before at ${stored:-an unknown address}: ${result:-no answer}"
    [ "$result" != OK ] || introduced="$introduced$answer "
  done
  [ "$missing" != ' ' ]
}

# A server repeats an introduction by itself until its node timeout has passed, so one per run of this script is enough.
introduced=' '

while introduce && [ "$(date +%s)" -lt "$end" ]; do sleep 0.5; done
