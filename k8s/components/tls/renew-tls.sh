#!/bin/sh
# Makes the server read its certificate again after the Secret redis-tls has changed, without a restart. The kubelet
# updates the files within about two minutes, and the probe `alive` runs this script every few seconds.

secret=${REDIS_TLS_DIR:-/etc/redis-tls} seen=${REDIS_TLS_SEEN:-/run/redis/tls}
# shellcheck disable=SC3013 # dash and busybox support -ef as well
[ "$secret/..data" -ef "$seen" ] && exit
# shellcheck source=SCRIPTDIR/../../base/servers/ask.sh
. "${0%/*}/ask.sh"
version=$(readlink "$secret/..data")

# Setting one of the files makes the server read all of them, even if the name stays the same.
answer=$(ask CONFIG SET tls-cert-file "$secret/tls.crt" 2>&1)
if [ "$answer" != OK ]; then
  log "the Secret redis-tls is not applied: $answer"
  exit 1
fi
# The first run follows the start of the server, in case the files changed in between. It is not logged.
[ ! -L "$seen" ] || log 'the changed Secret redis-tls is applied'
ln -sfn "$secret/$version" "$seen"
