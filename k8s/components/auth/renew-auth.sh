#!/bin/sh
# Takes over a Secret redis-auth that has changed, without a restart: the kubelet renews its files within some two minutes.
# The probe `alive` runs this every few seconds. It asks with the password that the server knows, and keeps that one until
# the server has learnt another.

secret=${REDIS_SECRET_DIR:-/etc/redis-auth} now=${REDIS_AUTH_DIR:-/run/redis}
# shellcheck disable=SC3013 # dash and busybox know -ef, too
[ "$secret/..data" -ef "$now/seen" ] && exit
# shellcheck source=SCRIPTDIR/../../base/servers/ask.sh
. "${0%/*}/ask.sh"

umask 077
new=$now/new
mkdir -p "$new"
trap 'rm -rf "$new"' EXIT

# It is tried again each time, and said once.
give_up() {
  [ "$1" = "$(cat "$now/complaint" 2>/dev/null)" ] || log "the changed Secret redis-auth was not taken over: $1"
  echo "$1" >"$now/complaint"
  exit 1
}

complaint=$(sh "${0%/*}/auth.sh" "$secret" "$new" 2>&1) || give_up "$complaint"
cp "$now/users.acl" "$now/users.acl.before"
cp "$new/users.acl" "$now/users.acl"
answer=$(ask ACL LOAD 2>&1)
if [ "$answer" != OK ]; then
  mv "$now/users.acl.before" "$now/users.acl"
  give_up "$answer"
fi
mv "$new/password" "$now/password"
read_password
answer=$(ask -x CONFIG SET masterauth <"$now/password" 2>&1)
[ "$answer" = OK ] || give_up "$answer"
mv "$new/auth.conf" "$now/auth.conf"
ln -sfn "$(readlink "$new/seen")" "$now/seen"
rm -f "$now/complaint" "$now/users.acl.before"
log 'the changed Secret redis-auth was taken over'
