#!/bin/sh
# Starts the server with a maxmemory that leaves room within the memory limit of its container:
#   limit = 2 × maxmemory + replica buffer + 64 MiB
# The second half is for copy-on-write: while the server writes its append-only file anew or copies its data to a replica,
# each page that a client changes exists twice. Writes that a replica has not received yet do not count for maxmemory, so
# their buffer has a limit of its own: an eighth, at most 256 MiB (the default of Redis). The rest is for the server
# itself, its clients and the probes.
#   REDIS_MEMORY_LIMIT   the limit in bytes
# Arguments follow those of this script, so an argument that an overlay adds overrides them.

set -eu
mib=$((1024 * 1024))
limit=$REDIS_MEMORY_LIMIT
if [ "$limit" -lt $((256 * mib)) ]; then
  echo "memory.sh: the memory limit of the container redis is $((limit / mib)) MiB. Set it to 256 MiB or more" >&2
  exit 1
fi
buffer=$((limit / 8))
[ "$buffer" -le $((256 * mib)) ] || buffer=$((256 * mib))
maxmemory=$(((limit - buffer - 64 * mib) / 2))

conf=$1
shift
# A replica whose buffer is above a quarter of its limit for a minute is disconnected, as by default.
exec docker-entrypoint.sh "$conf" --maxmemory "$maxmemory" --maxmemory-policy noeviction \
  --client-output-buffer-limit replica "$buffer" $((buffer / 4)) 60 "$@"
