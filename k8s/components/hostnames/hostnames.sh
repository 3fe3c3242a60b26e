#!/bin/sh
# Writes the lines of redis.conf with which a server announces the host name of its pod.
#   hostnames.sh FILE
#   REDIS_ANNOUNCED_DOMAIN   the domain in which each pod has its name. By default it is that of the cluster DNS: the
#                            kubelet writes the whole name of a pod into its /etc/hosts
#   REDIS_NODES_CONF         the server's view of the cluster, by default /data/nodes.conf

set -eu
file=$1 nodes=${REDIS_NODES_CONF:-/data/nodes.conf}
: >"$file"

# Redis 5.0 and 6.2 do not know these settings, and would not start with them.
case $({ valkey-server --version || redis-server --version; } 2>/dev/null) in
  *v=[1-6].*)
    echo 'announces no host name, because only Redis 7.0 and newer and Valkey can. Clients are sent to addresses'
    exit
    ;;
esac

if [ -n "${REDIS_ANNOUNCED_DOMAIN-}" ]; then name=$(hostname).$REDIS_ANNOUNCED_DOMAIN; else name=$(hostname -f); fi
case $name in
  *.*) ;;
  *) echo "the pod has no host name with a domain, only $name: its StatefulSet needs serviceName" >&2 && exit 1 ;;
esac

# A server would send clients to the host `?` for a member without a name. While the pods of a running cluster get their
# names, one after another, clients are sent to addresses. renew-hostnames.sh changes that when all have names.
endpoint=hostname
if [ -e "$nodes" ]; then
  # ID ADDRESS:PORT@PORT,NAME,... FLAGS ... without a name: nothing follows, or nothing before the next comma.
  while read -r _ address flags _; do
    case $flags in *myself*) continue ;; esac
    case $address in
      *@*,*) peer=${address#*,} peer=${peer%%,*} ;;
      *@*) peer='' ;;
      *) continue ;;
    esac
    [ -n "$peer" ] || endpoint=ip
  done <"$nodes"
fi
printf '%s\n' "cluster-announce-hostname $name" "cluster-preferred-endpoint-type $endpoint" >"$file"
case $endpoint in
  hostname) echo "announces $name, and sends clients to host names" ;;
  *) echo "announces $name, and sends clients to addresses until all members announce host names" ;;
esac
