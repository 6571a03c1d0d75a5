# shellcheck shell=bash
# Functions for clients that use OpenSSH's programs. To be sourced after lib.sh.
# shellcheck disable=SC2154 # what lib.sh sets

version() {
    ssh -V 2>&1 | sed 's/^OpenSSH_\([^ ,]*\).*/\1/'
}

# OpenSSH is built on OpenSSL. A provider that loads the module early initialises it before OpenSSH
# (401).
unset OPENSSL_CONF

# Without a person OpenSSH asks a program for the PIN.
if [ -n "${PIN-}" ]; then
    printf '#!/bin/sh\ncat "%s"\n' "$PIN_FILE" >"$WORK/askpass"
    chmod +x "$WORK/askpass"
    export SSH_ASKPASS=$WORK/askpass SSH_ASKPASS_REQUIRE=force
fi

# ssh_key: the line of the device's key. The token also shows keys of issuers' certificates, which
# must not log in. The label selects the right line.
ssh_key() {
    ssh-keygen -D "$MODULE" >"$WORK/ssh-keys"
    grep -F " $KEY_LABEL" "$WORK/ssh-keys" | grep " $KEY_LABEL\$" | sort -u >"$WORK/ssh-key" || true
    [ "$(wc -l <"$WORK/ssh-key")" = 1 ] || { cat "$WORK/ssh-keys" >&2 && fail "ssh-keygen prints no single key $KEY_LABEL"; }
    cat "$WORK/ssh-key"
}

# start_agent: starts an agent that trusts the module's folder
start_agent() {
    export SSH_AUTH_SOCK=$WORK/agent
    start ssh-agent -D -a "$SSH_AUTH_SOCK" -P "$MODULE"
    # shellcheck disable=SC2317 # await calls it
    agent_answers() {
        ssh-add -l >/dev/null 2>&1 || [ $? = 1 ] # 1: it answers, and has no keys
    }
    await agent_answers
    ssh-add -s "$MODULE"
}
