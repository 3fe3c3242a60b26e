# shellcheck shell=sh
# How the other scripts ask a server; they source this file. It needs no more than what Debian and Alpine both have.
#   REDIS_CLI_OPTIONS, REDIS_TLS_OPTIONS   options of redis-cli
#   REDIS_USER, REDIS_PASSWORD_FILE        whom to be; redis-cli takes the password from its environment, since
#                                          everybody on the machine can read its arguments
#   REDIS_SCRIPT_LOG                       where words for the container's log go

cli=$(command -v redis-cli || command -v valkey-cli)
if [ -n "${REDIS_PASSWORD_FILE-}" ]; then
  REDISCLI_AUTH=$(cat "$REDIS_PASSWORD_FILE") && export REDISCLI_AUTH
fi

# A hung server takes the connection and stays silent: without a limit the question would hang with it.
ask() {
  # shellcheck disable=SC2086 # one variable, several options
  timeout 3 "$cli" ${REDIS_CLI_OPTIONS-} ${REDIS_TLS_OPTIONS-} ${REDIS_USER:+--user "$REDIS_USER"} "$@"
}

log() {
  { echo "${0##*/}: $1" >>"${REDIS_SCRIPT_LOG:-/proc/1/fd/1}"; } 2>/dev/null || :
}
