# shellcheck shell=bash
# Functions for clients in Python. To be sourced after lib.sh.
# shellcheck disable=SC2154 # what lib.sh sets

python=/usr/bin/python3 # Debian's, which uses Debian's OpenSSL

# make_environment PACKAGE==VERSION...: installs from PyPI into $PREPARED
make_environment() {
    "$python" -m venv "$PREPARED/venv"
    "$PREPARED/venv/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# handshakes LIBRARY: runs python/handshakes.py against EC and RSA servers. requests takes the
# protocol of the server, the others require it.
handshakes() {
    local type protocol
    KEY_PEM=$(key_pem)
    export KEY_PEM
    for type in ec rsa; do
        for protocol in 1.2 1.3; do
            peer_server "$type" "-tls${protocol/./_}"
            "$python" "$CLIENTS/python/handshakes.py" "$1" "https://localhost:$port/" "$HANDSHAKES" "$protocol"
            stop "$server"
        done
    done
}
