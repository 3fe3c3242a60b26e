#!/bin/sh
# Writes, from the Secret redis-auth, what a server reads: an ACL file with hashes, and how a replica logs in at its master.
# Into memory, since redis.conf cannot say "read it from that file", and no disk and no ConfigMap is to hold a password.
#   auth.sh SECRET OUT      two directories; OUT/seen is the very version of SECRET of which the rest of OUT was made
# It speaks of keys, never of their values, and runs no program with one of them as an argument.

set -eu
umask 077
secret=$1 out=$2

# What the Job does, and no more: it looks, forms, repairs, resizes, and with a key of its own it proves that a client can
# write. It may touch any key, since it moves slots (MIGRATE, which asks the other server for RESTORE-ASKING). It may take a
# node out (CLUSTER RESET, which a master with keys refuses), and not wipe: for k8s/reinit, give that Job the clients' user.
job_rights='resetchannels ~* +memory|usage +cluster|reset +save +bgsave +bgrewriteaof
  +cluster|setslot +cluster|countkeysinslot +cluster|getkeysinslot +select +migrate +restore-asking
  +cluster|nodes +cluster|info +info +config|get
  +config|set +cluster|set-config-epoch +cluster|meet +cluster|addslots +cluster|replicate +cluster|failover +cluster|forget
  +cluster|slots +command +set +get +del'
# What servers do among themselves: replicate, answer probes, hand over before they end, take over a changed Secret.
server_rights='resetchannels
  +psync +replconf +ping +info +cluster|info +cluster|nodes +cluster|failover +acl|load +config|set'

# Newer commands have rights of their own, which an older server would not know: then it would not start.
case $({ valkey-server --version || redis-server --version; } 2>/dev/null) in
  *v=[1-6].*) ;;
  Valkey*v=[78].* | Redis*v=7.* | Redis*v=8.[0-3].*) job_rights="$job_rights +function|list +function|load" ;;
  Redis*v=*) job_rights="$job_rights +function|list +function|load +cluster|migration" ;;
  Valkey*v=*)
    job_rights="$job_rights +function|list +function|load
      +cluster|migrateslots +cluster|getslotmigrations +cluster|cancelslotmigrations"
    server_rights="$server_rights ~* +@write +select +cluster|syncslots"
    ;;
esac

fail() {
  echo "Secret redis-auth: $1" >&2
  exit 1
}

# Into `value`, without the line end that editors and `echo` leave, as the Job reads it too.
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

# One line of the ACL file: NAME, KEY of its password, RIGHTS. A second password under also-KEY is good as well: so one
# is changed without a moment in which somebody holds a wrong one.
user() {
  printf 'user %s on' "$1"
  for key in "$2" "also-$2"; do
    if [ "$key" = "$2" ] || [ -e "$secret/$key" ]; then
      read_key "$key"
      printf ' #%s' "$(printf %s "$value" | sha256sum | cut -d' ' -f1)"
    fi
  done
  # shellcheck disable=SC2086 # the rights are many words
  printf ' %s' $3
  echo
}

read_name username
clients=$value
read_name bootstrap-username
job=$value
case $job in default | server | "$clients") fail 'bootstrap-username must not be default, server, or username' ;; esac
[ "$clients" != server ] || fail 'username must not be server'

# The kubelet puts a new directory in place of the old one. Before the rest is read: what changes in between is a change.
ln -sfn "$secret/$(readlink "$secret/..data")" "$out/seen"
set -f # `~*` is a rule, no file
{
  [ "$clients" = default ] || echo 'user default off'
  user "$clients" password '~* &* +@all'
  user "$job" bootstrap-password "$job_rights"
  user server server-password "$server_rights"
  [ ! -e "$secret/users.acl" ] || cat "$secret/users.acl"
} >"$out/users.acl"

read_key server-password
printf %s "$value" >"$out/password"
# Byte by byte, so that no character needs an escape of its own.
printf 'masterauth "%s"\n' "$(printf %s "$value" | od -An -v -tx1 | tr -d ' \n' | sed 's/../\\x&/g')" >"$out/auth.conf"
