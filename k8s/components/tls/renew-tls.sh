#!/bin/sh
# Has the server read its certificate again after the Secret redis-tls has changed, without a restart: the kubelet renews
# the files within some two minutes. The probe `alive` runs this every few seconds.

secret=${REDIS_TLS_DIR:-/etc/redis-tls} seen=${REDIS_TLS_SEEN:-/run/redis/tls}
# shellcheck disable=SC3013 # dash and busybox know -ef, too
[ "$secret/..data" -ef "$seen" ] && exit
# shellcheck source=SCRIPTDIR/../../base/servers/ask.sh
. "${0%/*}/ask.sh"
version=$(readlink "$secret/..data")

# Setting one file reads them all, also where the name stays the same.
answer=$(ask CONFIG SET tls-cert-file "$secret/tls.crt" 2>&1)
if [ "$answer" != OK ]; then
  log "the Secret redis-tls was not taken over: $answer"
  exit 1
fi
# The first time is right after the start, in case that it changed in between; nobody needs to hear of that.
[ ! -L "$seen" ] || log 'the changed Secret redis-tls was taken over'
ln -sfn "$secret/$version" "$seen"
