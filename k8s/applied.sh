#!/bin/sh
# Waits until every server has applied the Secret as it is in Kubernetes now. Changes nothing.
#   sh k8s/applied.sh redis-auth                            the servers that mount it; redis-tls likewise
#   sh k8s/applied.sh redis-auth app=shop /etc/redis-auth   the pods with that label, which mount the Secret there
# KUBECTL: the command, with options such as `kubectl -n shop`. Exit codes: 0 all have it, 1 not within APPLIED_S.
#
# A log line "is applied" does not say which version of the Secret: the kubelets bring a change at different times. So the
# digest of all keys is compared. It is shown nowhere, and no program gets a value as an argument.

set -eu
kubectl=${KUBECTL:-kubectl} limit=${APPLIED_S:-300}
secret=${1:?name the Secret: redis-auth or redis-tls}
selector=${2:-app.kubernetes.io/name=redis-app} directory=${3:-}
servers=$([ $# -gt 1 ] || echo yes)
pods='{{range .items}}{{.metadata.name}} {{end}}'
case $servers:$secret:$directory in
  yes:*redis-auth*:) directory=/run/redis/seen ;; # links to the version of the Secret that the server uses
  yes:*redis-tls*:) directory=/run/redis/tls ;;
  *:) echo "name the directory at which the pods mount $secret: sh $0 $secret $selector DIRECTORY" >&2 && exit 2 ;;
esac
# Several clusters of one namespace may have Secrets of their own.
mounted='{{range .spec.volumes}}{{with .secret}}{{if eq .secretName "'$secret'"}}{{$pod}} {{end}}{{end}}{{end}}'
[ -z "$servers" ] || pods='{{range .items}}{{$pod := .metadata.name}}'$mounted'{{end}}'

keys='{{range $key, $value := .data}}{{$key}}={{$value}}{{"\n"}}{{end}}'
# shellcheck disable=SC2016 # for the shell of the pod
digest='cd "$0/..data" 2>/dev/null || cd "$0" || exit
  for key in *; do printf "%s=" "$key"; base64 <"$key" | tr -d "\n"; echo; done | LC_ALL=C sort | sha256sum | cut -c1-64'

end=$(($(date +%s) + limit)) said=
while :; do
  # Looked at again in every round: the Secret may change, and pods come and go.
  # shellcheck disable=SC2086 # the command has several words
  data=$($kubectl get secret "$secret" -o go-template="$keys")
  wanted=$({ [ -z "$data" ] || echo "$data"; } | LC_ALL=C sort | { sha256sum 2>/dev/null || shasum -a 256; } | cut -c1-64)
  # shellcheck disable=SC2086
  names=$($kubectl get pods -l "$selector" -o "go-template=$pods")
  [ -n "$names" ] || {
    echo "no pod with the label $selector${servers:+ mounts $secret}: give the namespace, KUBECTL='kubectl -n NAMESPACE'" >&2
    exit 2
  }
  missing=
  for pod in $names; do
    # shellcheck disable=SC2086
    has=$($kubectl exec "$pod" ${servers:+-c redis} -- sh -c "$digest" "$directory" 2>/dev/null </dev/null) || has=
    [ "$has" = "$wanted" ] || missing="$missing $pod"
  done
  [ -n "$missing" ] || break
  [ "$missing" = "$said" ] || echo "wait for$missing"
  said=$missing
  if [ "$(date +%s)" -ge "$end" ]; then
    echo "not applied after $limit s:$missing. Do not go on. Likely causes: the pod does not run, or its server does not" \
      "accept the Secret and keeps the one before. Its log says why:" >&2
    for pod in $missing; do echo "  $kubectl logs $pod ${servers:+-c redis }| grep 'not applied'" >&2; done
    exit 1
  fi
  sleep 2
done
echo "$secret is in use by all of: $names"
echo 'Now the next step.'
