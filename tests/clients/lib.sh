# shellcheck shell=bash
# Functions for the client scripts of this folder. Each script is one row of the table of
# scripts/test-clients. It is executable, sources this file, defines functions and ends with
# `main "$@"`:
#
#   packages   prints the Debian packages it needs, by line; $RELEASE is 12 or 13
#   version    prints one line: the version of the client
#   run        is one cell: 0 works, 77 skipped (the last line of stdout is the reason), else failed
#   fast       optional: 0 if the cell takes less than some 3 s and belongs into CI (default: no)
#   prepare    optional: fetches or builds what `run` needs, into the folder $PREPARED; 77 skips the row
#
# `run` finds in its environment:
#
#   MODULE       path of libdevid_pkcs11.so
#   DEVID        path of the tool devid
#   TOKEN        idev-ec, idev-rsa, devid-no-pin or devid-pin
#   TOKEN_LABEL  label of the token
#   KEY_TYPE     ec or rsa
#   KEY_LABEL, KEY_ID          CKA_LABEL, and CKA_ID in hexadecimal digits
#   KEY_URI, CERT_URI          RFC 7512, without PIN
#   PIN, PIN_FILE              the user's PIN and a file that holds it; empty if the token has none
#   CERT         the device certificate, a PEM file; CHAIN: with its issuer's behind it
#   ISSUER       certificates of the issuing CA and of its root, a PEM file
#   PUBLIC       the public key, a PEM file
#   PEER_EC_CERT, PEER_EC_KEY, PEER_RSA_CERT, PEER_RSA_KEY   a TLS peer for localhost and 127.0.0.1
#   PEER_CA      its CA, a PEM file
#   OPENSSL_CONF pkcs11-provider with the module, as pkcs11-conf ships it, and the PIN's file if there is one
#   PROVIDER     version of pkcs11-provider; PROVIDER_PATH: its pkcs11.so
#   HANDSHAKES   how many handshakes one process makes
#   WORK         an empty folder, removed afterwards; also HOME
#   TCTI and DEVID_PKCS11_*    the TPM, and the module's settings
#   RELEASE, PREPARED          as above
#
# The judge is a peer that checks: OpenSSL verifies a signature, or a TLS server requires the
# client's certificate. `start` ends the processes of a script together with the script.

set -euo pipefail
CLIENTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CLIENTS

skip() {
    echo "$*"
    exit 77
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# on_failure: for a script that can show more about a failed cell
on_failure() {
    :
}

pids=()
stop_all() {
    local status=$?
    [ "$status" = 0 ] || [ "$status" = 77 ] || on_failure
    [ ${#pids[@]} = 0 ] || {
        kill "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    }
    exit "$status"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start COMMAND...: runs in the background, and ends with the script. Its output goes to
# $WORK/start.N.log. Sets started, its pid, and started_log.
starts=0
start() {
    starts=$((starts + 1))
    started_log=$WORK/start.$starts.log
    "$@" >"$started_log" 2>&1 </dev/null &
    started=$!
    pids+=("$started")
}

# stop PID: ends a started process, and waits until it is gone
stop() {
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    local pid left=()
    for pid in "${pids[@]}"; do
        [ "$pid" = "$1" ] || left+=("$pid")
    done
    pids=("${left[@]}")
}

# listens PORT: succeeds if a process listens. It makes no connection, because some servers serve
# one caller only.
listens() {
    awk -v port="$(printf ':%04X' "$1")" '$4 == "0A" && $2 ~ port "$" { found = 1 } END { exit !found }' \
        /proc/net/tcp /proc/net/tcp6
}

# free_port: prints a free port below the kernel's range for connections
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        listens "$port" || break
    done
    echo "$port"
}

# await COMMAND...: repeats the command until it succeeds. Fails after 60 s, or when the process
# $started has ended.
await() {
    local deadline=$((SECONDS + 60))
    until "$@"; do
        kill -0 "$started" 2>/dev/null || { cat "$started_log" >&2 && fail "ended before: $*"; }
        [ "$SECONDS" -lt "$deadline" ] || { cat "$started_log" >&2 && fail "60 s are over: $*"; }
        sleep 0.05
    done
}

# await_port PORT: waits until the process of `start` listens there
await_port() {
    await listens "$1"
}

# await_line PATTERN [FILE]: waits until a line is in FILE, by default the output of the process of
# `start`
await_line() {
    await grep -qE -- "$1" "${2:-$started_log}"
}

# peer_server TYPE [PROTOCOL]: starts `openssl s_server` with an ec or rsa key. It answers HTTP GET
# with its status, and requires a certificate of the device's issuer. PROTOCOL: -tls1_2 or -tls1_3.
# No session is resumed. Sets port, server and server_log.
peer_server() {
    local certificate=PEER_${1^^}_CERT key=PEER_${1^^}_KEY
    port=$(free_port)
    start env OPENSSL_CONF=/dev/null openssl s_server -accept "127.0.0.1:$port" -www "${@:2}" \
        -cert "${!certificate}" -key "${!key}" -CAfile "$ISSUER" -Verify 3 -verify_return_error \
        -no_cache -no_ticket -num_tickets 0
    # shellcheck disable=SC2034 # the caller's
    server=$started server_log=$started_log
    await_port "$port"
}

# key_pem: writes a key file that holds only the URI, $WORK/key.pem, and prints its path
key_pem() {
    "$DEVID" uri2pem "$KEY_URI" >"$WORK/key.pem"
    echo "$WORK/key.pem"
}

# raw_page NAME: the block NAME of docs/
raw_page() {
    awk -v name="$1" '/^```/ { on = $0 ~ "^```[a-z]+ " name "$"; next } on' "$CLIENTS"/../../docs/*.md | grep . ||
        fail "no page of docs/ has a block $1"
}

# page NAME: the block with the key, folder and $port of this cell instead of its own
page() {
    local block
    block=$(raw_page "$1")
    sed -e "s|pkcs11:token=idev-id;object=idev-id;type=private|$KEY_URI|g" \
        -e "s|pkcs11:token=idev-id;object=idev-id;type=cert|$CERT_URI|g" \
        -e "s|pkcs11:token=idev-id|${KEY_URI%%;*}|g" \
        -e "s|--token-label idev-id|--token-label '$TOKEN_LABEL'|g" -e "s|--label idev-id|--id $KEY_ID|g" \
        -e "s|token_label=\"idev-id\"|token_label=\"$TOKEN_LABEL\"|g" -e "s|\([ _]\)label=\"idev-id\"|\1label=\"$KEY_LABEL\"|g" \
        -e "s|/usr/lib/x86_64-linux-gnu/pkcs11/libdevid_pkcs11.so|$MODULE|g" -e "s|CKA_ID|$KEY_ID|g" \
        -e "s|/path/|$WORK/|g" -e "s|8443|${port-8443}|g" <<<"$block"
}

# page_files: the files chain.pem, key.pem, both.pem and ca.pem of the page
page_files() {
    cp "$CHAIN" "$WORK/chain.pem"
    cp "$PEER_CA" "$WORK/ca.pem"
    key_pem >/dev/null
    cat "$CHAIN" "$WORK/key.pem" >"$WORK/both.pem"
}

# run_page NAME: runs the block in $WORK
run_page() {
    local commands
    commands=$(page "$1")
    (cd "$WORK" && PATH=${DEVID%/*}:$PATH M=$MODULE no_proxy='*' bash -euo pipefail -c "$commands")
}

# verify MESSAGE SIGNATURE DIGEST [OPTION...]: OpenSSL's own code verifies, with the device's public
# key
verify() {
    OPENSSL_CONF=/dev/null openssl dgst "-$3" -verify "$PUBLIC" "${@:4}" -signature "$2" "$1"
}

main() {
    case ${1-} in
    packages | version | run) "$1" ;;
    fast) declare -F fast >/dev/null && fast ;;
    prepare) ! declare -F prepare >/dev/null || prepare ;;
    *) echo "usage: $0 packages | version | run | fast | prepare" >&2 && exit 2 ;;
    esac
}
