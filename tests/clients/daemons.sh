# shellcheck shell=bash disable=SC2034 # what is set here is for the scripts of daemons
# Functions for clients that are daemons. To be sourced instead of lib.sh.

# shellcheck source=tests/clients/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps daemons

# version_of PACKAGE: the version of the program, without Debian's part
version_of() {
    dpkg-query -W -f '${source:Upstream-Version}\n' "$1"
}

# A failed cell shows the output of its daemons.
on_failure() {
    local log
    [ -z "${OWN_NETWORK-}" ] || return 0 # who made it shows them
    for log in "$WORK"/*.log; do
        [ -h "$log" ] || [ ! -s "$log" ] || { echo "--- ${log##*/}, its end:" && tail -n 30 "$log"; } >&2
    done
}

# daemon NAME COMMAND...: starts the command; its output is $WORK/NAME.log
daemon() {
    : >"$WORK/$1.log"
    ln -sfn "$1.log" "$WORK/start.$((starts + 1)).log"
    start "${@:2}"
}

# says NAME TEXT: succeeds if the output of process NAME has the TEXT
says() {
    grep -qF -- "$2" "$WORK/$1.log"
}

# said NAME TEXT: the number of lines with the TEXT
said() {
    grep -cF -- "$2" "$WORK/$1.log" || true
}

# --- the peer that judges: Python's OpenSSL, without any provider

judge=(env OPENSSL_CONF=/dev/null python3 "$CLIENTS/peer.py")

# peer KIND: sets certificate and key of the software peer; KIND is ec or rsa
peer() {
    case $1 in
    ec) peer_cert=$PEER_EC_CERT peer_key=$PEER_EC_KEY ;;
    rsa) peer_cert=$PEER_RSA_CERT peer_key=$PEER_RSA_KEY ;;
    esac
}

# judge_serves KIND: starts a server that requires the device's certificate; sets judge_port
judge_serves() {
    peer "$1"
    judge_port=$(free_port)
    daemon "judge-$1" "${judge[@]}" serve "$judge_port" "$peer_cert" "$peer_key" "$ISSUER"
    await says "judge-$1" ready
}

# calls_judged KIND: the judge of that kind saw all handshakes, each of them complete
calls_judged() {
    local seen
    seen=$(said "judge-$1" verified)
    echo "$1 peer: $seen handshakes with the device's certificate"
    [ "$seen" -ge "$HANDSHAKES" ] || fail "the $1 peer saw $seen of $HANDSHAKES handshakes"
    ! says "judge-$1" failed || fail "the $1 peer saw a handshake fail"
}

# judge_calls PORT [REQUEST]: connects as a client with a certificate, first of EC, then of RSA
judge_calls() {
    local kind
    for kind in ec rsa; do
        peer "$kind"
        "${judge[@]}" call "$1" "$peer_cert" "$peer_key" "$ISSUER" "$HANDSHAKES" "${@:2}" ||
            fail "handshakes with the $kind peer"
    done
}

# fetch URL: one request without TLS per handshake, to a proxy that makes the handshakes
fetch() {
    python3 - "$1" "$HANDSHAKES" <<'PYTHON' || fail "$1 answers otherwise"
import sys, urllib.request
fetch = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
for turn in range(int(sys.argv[2])):
    assert fetch(sys.argv[1], timeout=60).read() == b"ok\n"
PYTHON
}

# see_by_p11_kit: sets $by_p11_kit, before a program that is linked with p11-kit. The program sees
# the module and no other. p11-kit looks into one folder only, so the program gets a mount namespace
# in which that folder holds only devid-pkcs11.module.
see_by_p11_kit() {
    local rights=()
    [ "$(id -u)" = 0 ] || rights=(--user --map-root-user)
    mkdir "$WORK/p11-kit"
    echo "module: $MODULE" >"$WORK/p11-kit/devid-pkcs11.module"
    # shellcheck disable=SC2016 # the inner shell expands them
    by_p11_kit=(unshare "${rights[@]}" --mount
        sh -c 'mount --bind "$0" /usr/share/p11-kit/modules && exec "$@"' "$WORK/p11-kit")
}

# see_installed: sets $installed, before a program that takes modules from below /usr/lib only. In
# its mount namespace the module is at $installed_module, the path of an installed module.
see_installed() {
    local rights=() folder
    [ "$(id -u)" = 0 ] || rights=(--user --map-root-user)
    folder=$(find /usr/lib -mindepth 2 -maxdepth 2 -type d -name pkcs11 -print -quit)
    [ -n "$folder" ] || skip "there is no /usr/lib/*/pkcs11"
    installed_module=$folder/${MODULE##*/}
    # shellcheck disable=SC2016 # the inner shell expands them
    installed=(unshare "${rights[@]}" --mount
        sh -c 'mount --bind "$0" "$1" && shift && exec "$@"' "${MODULE%/*}" "$folder")
}

# own_network: continues run in a network namespace without this machine's network. The TPM's port
# still leads to the TPM. Call this first. Needs socat and iproute2.
own_network() {
    local tpm=${TCTI##*port=} status=0
    if [ -n "${OWN_NETWORK-}" ]; then
        ip link set lo up
        daemon tpm-inside socat "TCP-LISTEN:$tpm,bind=127.0.0.1,fork,reuseaddr" "UNIX-CONNECT:$WORK/tpm"
        await listens "$tpm"
        return
    fi
    [ "$(id -u)" = 0 ] || skip "needs root, for a network namespace"
    unshare --net true 2>/dev/null || skip "no network namespace can be made here (a container without CAP_SYS_ADMIN?)"
    daemon tpm-outside socat "UNIX-LISTEN:$WORK/tpm,fork" "TCP:127.0.0.1:$tpm"
    await test -S "$WORK/tpm"
    OWN_NETWORK=yes unshare --net "$0" run || status=$?
    exit "$status"
}

# unprivileged: sets $as, before a daemon that does not serve as root. The token's files stay
# readable.
unprivileged() {
    as=()
    [ "$(id -u)" != 0 ] || as=(setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=+dac_override
        --ambient-caps=+dac_override)
}

# nginx_head: two workers with the module's variables, because nginx passes only named variables
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

