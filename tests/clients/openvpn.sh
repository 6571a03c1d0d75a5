# Both ways of OpenVPN to use a key. To be sourced after daemons.sh.
# shellcheck shell=bash disable=SC2154 # daemons.sh sets the rest

# renegotiates OPTION...: makes a handshake each second, with servers with EC and RSA certificates
# at the same time
renegotiates() {
    local kind port management
    for kind in ec rsa; do
        peer "$kind"
        port=$(free_port)
        daemon "server-$kind" env OPENSSL_CONF=/dev/null openvpn --dev null --proto tcp-server --local 127.0.0.1 \
            --port "$port" --tls-server --dh none --ca "$ISSUER" --cert "$peer_cert" --key "$peer_key" \
            --reneg-sec 0 --verb 4 --data-ciphers AES-256-GCM
        await listens "$port"
        management=()
        if [ -n "$PIN" ] && [ "$1" = --pkcs11-providers ]; then
            management=("$(free_port)")
        fi
        daemon "client-$kind" openvpn --dev null --proto tcp-client --remote 127.0.0.1 "$port" --nobind \
            --tls-client --ca "$PEER_CA" --verify-x509-name localhost name \
            --reneg-sec 1 --verb 4 --data-ciphers AES-256-GCM "$@" \
            ${management:+--management 127.0.0.1 "${management[@]}" --management-query-passwords}
        [ -z "${management[*]}" ] || {
            await listens "${management[0]}"
            daemon "pin-$kind" python3 "$CLIENTS/openvpn.py" "${management[0]}" "$TOKEN_LABEL" "$PIN"
        }
    done
    for kind in ec rsa; do
        await renegotiated "$kind"
        ! says "client-$kind" "TLS Error" || fail "TLS Error with the $kind peer"
        echo "$kind peer: $(said "server-$kind" "VERIFY OK: depth=0") handshakes with the device's certificate"
    done
}

renegotiated() {
    says "client-$1" "TLS Error" || [ "$(said "server-$1" "VERIFY OK: depth=0")" -ge "$HANDSHAKES" ]
}
