# shellcheck shell=sh
# Functions for the other scripts, which source this file. They use only programs that Debian and Alpine both have. They
# start no process other than redis-cli, because on a busy machine each process takes time.
#   REDIS_CLI_OPTIONS, REDIS_TLS_OPTIONS   options of redis-cli
#   REDIS_USER, REDIS_PASSWORD_FILE        the user, and the file with its password. redis-cli reads it from its
#                                          environment, because its arguments are visible to everybody on the machine
#   REDIS_SCRIPT_LOG                       the file for log messages, by default the log of the container

if command -v redis-cli >/dev/null; then cli=redis-cli; else cli=valkey-cli; fi

read_password() {
  IFS= read -r REDISCLI_AUTH <"$REDIS_PASSWORD_FILE" || [ -n "$REDISCLI_AUTH" ]
  export REDISCLI_AUTH
}
[ -z "${REDIS_PASSWORD_FILE-}" ] || read_password

# A server that hangs accepts the connection and never answers, so each request has a time limit: ASK_LIMIT_S.
ask() {
  # shellcheck disable=SC2086 # one variable, several options
  timeout "${ASK_LIMIT_S:-3}" "$cli" ${REDIS_CLI_OPTIONS-} ${REDIS_TLS_OPTIONS-} ${REDIS_USER:+--user "$REDIS_USER"} "$@"
}

log() {
  { echo "${0##*/}: $1" >>"${REDIS_SCRIPT_LOG:-/proc/1/fd/1}"; } 2>/dev/null || :
}
