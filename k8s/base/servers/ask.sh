# shellcheck shell=sh
# How the other scripts ask a server; they source this file. It needs no more than what Debian and Alpine both have, and
# starts no process but the question itself: on a machine without a free core each of them takes its time.
#   REDIS_CLI_OPTIONS, REDIS_TLS_OPTIONS   options of redis-cli
#   REDIS_USER, REDIS_PASSWORD_FILE        whom to be; redis-cli takes the password from its environment, since
#                                          everybody on the machine can read its arguments
#   REDIS_SCRIPT_LOG                       where words for the container's log go

if command -v redis-cli >/dev/null; then cli=redis-cli; else cli=valkey-cli; fi

read_password() {
  IFS= read -r REDISCLI_AUTH <"$REDIS_PASSWORD_FILE" || [ -n "$REDISCLI_AUTH" ]
  export REDISCLI_AUTH
}
[ -z "${REDIS_PASSWORD_FILE-}" ] || read_password

# A hung server takes the connection and stays silent: without a limit the question would hang with it.
ask() {
  # shellcheck disable=SC2086 # one variable, several options
  timeout 3 "$cli" ${REDIS_CLI_OPTIONS-} ${REDIS_TLS_OPTIONS-} ${REDIS_USER:+--user "$REDIS_USER"} "$@"
}

log() {
  { echo "${0##*/}: $1" >>"${REDIS_SCRIPT_LOG:-/proc/1/fd/1}"; } 2>/dev/null || :
}
