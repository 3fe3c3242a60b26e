#!/bin/sh
# Applies a Secret redis-auth that has changed, without a restart. The kubelet updates its files within about two
# minutes, and the probe `alive` runs this script every few seconds. The script logs in with the password that the
# server uses now, and keeps that password until the server has accepted the new one.

secret=${REDIS_SECRET_DIR:-/etc/redis-auth} now=${REDIS_AUTH_DIR:-/run/redis}
# shellcheck disable=SC3013 # dash and busybox support -ef as well
[ "$secret/..data" -ef "$now/seen" ] && exit
# shellcheck source=SCRIPTDIR/../../base/servers/ask.sh
. "${0%/*}/ask.sh"

umask 077
new=$now/new
mkdir -p "$new"
trap 'rm -rf "$new"' EXIT

# The script tries again on each run, and logs a repeated error once.
give_up() {
  [ "$1" = "$(cat "$now/complaint" 2>/dev/null)" ] || log "the changed Secret redis-auth is not applied: $1"
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
mv "$new/metrics/passwords.json" "$now/metrics/passwords.json"
mv "$new/password" "$now/password"
read_password
answer=$(ask -x CONFIG SET masterauth <"$now/password" 2>&1)
[ "$answer" = OK ] || give_up "$answer"
mv "$new/auth.conf" "$now/auth.conf"
ln -sfn "$(readlink "$new/seen")" "$now/seen"
rm -f "$now/complaint" "$now/users.acl.before"
log 'the changed Secret redis-auth is applied'
