# shellcheck shell=bash
# Functions for clients in Go. To be sourced after lib.sh, with library set to the library's name.
# shellcheck disable=SC2154 # library, and what lib.sh sets

packages() {
    printf '%s\n' gcc libc6-dev ca-certificates
    # Debian 12's Go cannot fetch a newer toolchain, so the user's own Go is used there.
    [ "$RELEASE" = 12 ] || echo golang-go
}

# go_or_skip: since 1.21, Go itself fetches the toolchain that a go.mod requires.
go_or_skip() {
    local minor
    command -v go >/dev/null || skip "no Go in PATH; 1.21 or newer is needed, and Debian 12 has 1.19"
    minor=$(go env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 21 ] || skip "Go 1.21 or newer is needed in PATH, found: $(go env GOVERSION)"
    export GOTOOLCHAIN=auto GOFLAGS=-buildvcs=false CGO_ENABLED=1
}

build_client() {
    go_or_skip
    (cd "$CLIENTS/go" && go build -mod=readonly -o "$PREPARED/client" .)
}

# version_of MODULE: its version in go.mod
version_of() {
    awk -v module="$1" '$1 == module { print substr($2, 2) }' "$CLIENTS/go/go.mod"
}

client() {
    "$PREPARED/client" "$library" "$@"
}

prepare() {
    build_client
}

run_client() {
    local type protocol i serves
    echo hello >"$WORK/message"
    client sign "$WORK/message" "$WORK/signature"
    verify "$WORK/message" "$WORK/signature" sha256
    if [ "$KEY_TYPE" = rsa ]; then
        client sign "$WORK/message" "$WORK/signature" pss
        verify "$WORK/message" "$WORK/signature" sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
    fi
    for protocol in 1.2 1.3; do
        for type in ec rsa; do
            peer_server "$type" "-tls${protocol/./_}"
            client connect "$port" "$protocol" "$HANDSHAKES"
            stop "$server"
        done
        start client serve "$protocol"
        await_line '^port '
        serves=$(sed -n 's/^port //p' "$started_log")
        for ((i = 0; i < HANDSHAKES; i++)); do
            OPENSSL_CONF=/dev/null openssl s_client -connect "127.0.0.1:$serves" "-tls${protocol/./_}" -CAfile "$ISSUER" \
                -verify_return_error -quiet </dev/null >"$WORK/answer" 2>"$WORK/said" ||
                { cat "$WORK/said" "$started_log" >&2 && fail "as a server, handshake $((i + 1))"; }
            grep -q welcome "$WORK/answer" || fail "as a server, handshake $((i + 1)): no answer"
        done
        stop "$started"
    done
    case $TOKEN in
    devid-*) client generate ;;
    *) ! client generate 2>"$WORK/said" || fail "a key was made on idev-id" ;;
    esac
}

run() {
    run_client
}
