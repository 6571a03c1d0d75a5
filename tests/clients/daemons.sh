# For clients that are daemons; sourced by their scripts.
# shellcheck shell=bash disable=SC2034 # what is set here is used by those scripts
set -euo pipefail

clients=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
HANDSHAKES=${HANDSHAKES:-20}

skip() {
    echo "$*"
    exit 77
}

fail() {
    echo "failed: $*"
    exit 1
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# --- processes of this script, stopped by their numbers at its end

pids=()
finish() {
    local status=$? log
    trap - EXIT
    [ ${#pids[@]} = 0 ] || {
        kill "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    }
    if [ "$status" != 0 ] && [ "$status" != 77 ]; then
        for log in "$WORK"/*.log; do
            [ ! -s "$log" ] || { echo "--- ${log##*/}, its end:" && tail -n 30 "$log"; } >&2
        done
    fi
    exit "$status"
}

# start NAME COMMAND...: in the background, its output in $WORK/NAME.log
start() {
    local name=$1
    shift
    "$@" >"$WORK/$name.log" 2>&1 </dev/null &
    pids+=($!)
}

# await COMMAND...: until COMMAND succeeds; not after a process of ours has ended, or 60 s
await() {
    local deadline=$((SECONDS + 60)) pid
    until "$@" >/dev/null 2>&1; do
        for pid in "${pids[@]}"; do
            kill -0 "$pid" 2>/dev/null || fail "a daemon ended while this was awaited: $*"
        done
        [ "$SECONDS" -lt "$deadline" ] || fail "awaited for 60 s: $*"
        sleep 0.02
    done
}

# listening PORT: whether somebody on this machine does, without calling there
listening() {
    awk -v port="$(printf :%04X "$1")" '$4 == "0A" && $2 ~ port "$" { found = 1 } END { exit !found }' \
        /proc/net/tcp /proc/net/tcp6
}

# says NAME TEXT: whether TEXT stands in the output of process NAME
says() {
    grep -qF -- "$2" "$WORK/$1.log"
}

# said NAME TEXT: in how many lines
said() {
    grep -cF -- "$2" "$WORK/$1.log" || true
}

# --- the peer that judges: Python's OpenSSL, without any provider

judge() {
    OPENSSL_CONF=/dev/null python3 "$clients/peer.py" "$@"
}

# peer KIND: sets certificate and key of the software peer; KIND is ec or rsa
peer() {
    case $1 in
    ec) peer_cert=$PEER_EC_CERT peer_key=$PEER_EC_KEY ;;
    rsa) peer_cert=$PEER_RSA_CERT peer_key=$PEER_RSA_KEY ;;
    esac
}

# judge_serves KIND: a server that insists on the device's certificate; sets judge_port
judge_serves() {
    peer "$1"
    judge_port=$(free_port)
    start "judge-$1" judge serve "$judge_port" "$peer_cert" "$peer_key" "$ISSUER"
    await says "judge-$1" ready
}

# calls_judged KIND: the judge of that kind saw all handshakes, each of them a whole one
calls_judged() {
    local seen
    seen=$(said "judge-$1" verified)
    echo "$1 peer: $seen of $HANDSHAKES handshakes with the device's certificate"
    [ "$seen" -ge "$HANDSHAKES" ] || fail "the $1 peer saw $seen of $HANDSHAKES handshakes"
    ! says "judge-$1" failed || fail "the $1 peer saw a handshake fail"
}

# judge_calls PORT [REQUEST]: as a client with a certificate, first of EC, then of RSA
judge_calls() {
    local kind
    for kind in ec rsa; do
        peer "$kind"
        judge call "$1" "$peer_cert" "$peer_key" "$ISSUER" "$HANDSHAKES" "${@:2}" ||
            fail "handshakes with the $kind peer"
    done
}

# fetch URL: as many times as there are to be handshakes, without TLS, from a proxy that makes them
fetch() {
    python3 - "$1" "$HANDSHAKES" <<'PYTHON' || fail "$1 answers otherwise"
import sys, urllib.request
fetch = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
for turn in range(int(sys.argv[2])):
    assert fetch(sys.argv[1], timeout=60).read() == b"ok\n"
PYTHON
}

# --- the device's key

# pin_file: sets $pin_source to what a URI says of the PIN, if there is one
pin_source=
if [ -n "${PIN:-}" ]; then
    (umask 077 && printf %s "$PIN" >"$WORK/pin")
    pin_source="?pin-source=file:$WORK/pin"
fi

# provider_key: $WORK/key.pem, which names the key, and an OPENSSL_CONF that knows the PIN
provider_key() {
    "${MODULE%/*}/devid" uri2pem "$KEY_URI" >"$WORK/key.pem"
    [ -z "${PIN:-}" ] || {
        sed "/^pkcs11-module-path/a pkcs11-module-token-pin = file:$WORK/pin" "$OPENSSL_CONF" >"$WORK/openssl.cnf"
        export OPENSSL_CONF=$WORK/openssl.cnf
    }
}

# chain: $WORK/chain.pem, the device's certificate and its issuers
chain() {
    cat "$CERT" "$ISSUER" >"$WORK/chain.pem"
}

# unprivileged: sets $as, before a daemon that will not serve as root; the token's files stay readable
unprivileged() {
    as=()
    [ "$(id -u)" != 0 ] || as=(setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=+dac_override
        --ambient-caps=+dac_override)
}

# nginx_head: two workers, who see the module's variables; nginx hands none on that is not named
nginx_head() {
    local name
    printf '%s;\n' "daemon off" "worker_processes 2" "pid $WORK/nginx.pid" "error_log stderr info"
    [ "$(id -u)" != 0 ] || echo "user root;"
    for name in OPENSSL_CONF "${!DEVID_PKCS11_@}"; do
        echo "env $name;"
    done
}

nginx_folders() {
    mkdir -p "$WORK/web"
    printf "%s_temp_path $WORK/web;\n" client_body proxy fastcgi uwsgi scgi
}

# client PACKAGES VERSION FAST VERB: what each script answers; VERSION is a command. Ends with the function run.
client() {
    local packages=$1 version=$2 fast=$3
    case ${4:-} in
    packages) printf '%s\n' $packages ;;
    version) eval "$version" 2>&1 | head -n 1 ;;
    fast) [ "$fast" = yes ] ;;
    run)
        trap finish EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        run
        ;;
    *) echo "${0##*/}: packages, version, fast or run" >&2 && exit 2 ;;
    esac
}
