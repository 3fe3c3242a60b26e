#!/bin/sh
# Writes the files of a server from the Secret redis-auth: an ACL file with password hashes, and the login of a replica
# at its master. They are in memory, because redis.conf cannot read a password from a file, and no disk and no ConfigMap
# may hold one.
#   auth.sh SECRET OUT      two directories; OUT/seen links to the version of SECRET from which the rest of OUT was made.
#                           The exporter of the component metrics sees OUT/metrics, and nothing else.
# Messages name keys, never their values. No program gets a value as an argument.

set -eu
umask 077
secret=$1 out=$2

# The rights of the Job, and no more: it observes, forms, repairs and resizes, and its client probe writes a key of its
# own. It has access to all keys, because it moves slots (MIGRATE, which sends RESTORE-ASKING to the other server). It
# may take a node out (CLUSTER RESET, which a master with keys refuses), but not delete data. The Job of k8s/reinit
# needs the clients' user.
job_rights='resetchannels ~* +memory|usage +cluster|reset +save +bgsave +bgrewriteaof
  +cluster|setslot +cluster|countkeysinslot +cluster|getkeysinslot +select +migrate +restore-asking
  +cluster|nodes +cluster|info +info +config|get
  +config|set +cluster|set-config-epoch +cluster|bumpepoch +cluster|meet +cluster|addslots +cluster|replicate +cluster|failover +cluster|forget
  +cluster|slots +command +set +get +del +multi +discard'
# The rights of the servers: replication, probes, introduction to peers, manual failover before a pod stops, and applying
# a changed Secret.
server_rights='resetchannels
  +psync +replconf +ping +info +cluster|info +cluster|nodes +cluster|meet +cluster|replicate +cluster|failover
  +acl|load +config|set'
# The rights of the exporter: state and counters. No keys, neither data nor names: so no SLOWLOG GET, which shows
# arguments, and no CONFIG GET, which shows passwords.
metrics_rights='resetchannels +ping +info +cluster|info +client|setname +slowlog|len +latency|latest +latency|histogram'

# Newer commands need rights that an older server does not know. It would not start with them.
case $({ valkey-server --version || redis-server --version; } 2>/dev/null) in
  *v=[1-6].*) ;;
  Valkey*v=[78].* | Redis*v=7.* | Redis*v=8.[0-3].*) job_rights="$job_rights +function|list +function|load" ;;
  Redis*v=*) job_rights="$job_rights +function|list +function|load +cluster|migration" ;;
  Valkey*v=*)
    job_rights="$job_rights +function|list +function|load
      +cluster|migrateslots +cluster|getslotmigrations +cluster|cancelslotmigrations"
    server_rights="$server_rights ~* +@write +select +cluster|syncslots"
    metrics_rights="$metrics_rights +commandlog|len"
    ;;
esac

fail() {
  echo "Secret redis-auth: $1" >&2
  exit 1
}

# Reads a key into `value`, without the line end that editors and `echo` add. The Job reads its password in the same
# way.
read_key() {
  [ -e "$secret/$1" ] || fail "the key $1 is missing"
  value=$(cat "$secret/$1")
  while [ "$value" != "${value%"$return"}" ]; do value=${value%"$return"}; done
  [ -n "$value" ] || fail "the key $1 is empty"
  case $value in *"$line"*) fail "the key $1 has more than one line" ;; esac
}
return=$(printf '\r') line='
'

read_name() {
  read_key "$1"
  case $value in *[!A-Za-z0-9_.-]*) fail "the key $1 has characters other than A-Z a-z 0-9 _ . -" ;; esac
}

# Prints one line of the ACL file: NAME, KEY of its password, RIGHTS. A second password under also-KEY is valid as well.
# So a password can be changed without a moment in which a client has a wrong one: docs/operations.md.
user() {
  printf 'user %s on' "$1"
  for key in "$2" "also-$2"; do
    if [ "$key" = "$2" ] || [ -e "$secret/$key" ]; then
      read_key "$key"
      printf ' #%s' "$(printf %s "$value" | sha256sum | cut -d' ' -f1)"
    fi
  done
  # shellcheck disable=SC2086 # the rights are several words
  printf ' %s' $3
  echo
}

read_name username
clients=$value
read_name bootstrap-username
job=$value
case $job in default | server | "$clients") fail 'bootstrap-username must not be default, server, or username' ;; esac
[ "$clients" != server ] || fail 'username must not be server'
metrics=
if [ -e "$secret/metrics-password" ]; then
  metrics=metrics
  case $metrics in "$clients" | "$job") fail 'username and bootstrap-username must not be metrics' ;; esac
fi

# The kubelet replaces the whole directory when the Secret changes. The link is made before the keys are read, so a
# change in between is not missed.
ln -sfn "$secret/$(readlink "$secret/..data")" "$out/seen"
set -f # `~*` is a rule, not a file pattern
{
  [ "$clients" = default ] || echo 'user default off'
  user "$clients" password '~* &* +@all'
  user "$job" bootstrap-password "$job_rights"
  user server server-password "$server_rights"
  [ -z "$metrics" ] || user "$metrics" metrics-password "$metrics_rights"
  [ ! -e "$secret/users.acl" ] || cat "$secret/users.acl"
} >"$out/users.acl"

read_key server-password
printf %s "$value" >"$out/password"
# Every byte is written as \xNN, so no character needs an escape of its own.
printf 'masterauth "%s"\n' "$(printf %s "$value" | od -An -v -tx1 | tr -d ' \n' | sed 's/../\\x&/g')" >"$out/auth.conf"

# The exporter reads its password from a JSON object, by the address that it connects to. Without a password it runs and
# reports that it cannot log in: a missing key must not stop a server.
mkdir -p "$out/metrics"
login=
if [ -n "$metrics" ]; then
  read_key metrics-password
  case $value in *[!\ -~]*) fail 'the key metrics-password has characters other than printable ASCII' ;; esac
  login=$(printf %s "$value" | sed 's/[\\"]/\\&/g')
  login="\"redis://$metrics@localhost:6379\": \"$login\", \"rediss://$metrics@localhost:6379\": \"$login\""
fi
printf '{%s}\n' "$login" >"$out/metrics/passwords.json"
