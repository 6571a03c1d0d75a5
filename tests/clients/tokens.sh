# shellcheck shell=bash
# To be sourced by scripts/test-clients, which has die, work and here. Makes TLS peers, and devices
# with one kind of token each.
# shellcheck disable=SC2154 # those three

# quietly COMMAND...: shows the output only if the command fails
quietly() {
    "$@" >"$work/output" 2>&1 || {
        cat "$work/output" >&2
        die "$1 failed"
    }
}

# make_peer: a CA, and one EC and one RSA key with a certificate for localhost, in $work/peer
make_peer() {
    local dir=$work/peer kind
    mkdir "$dir"
    OPENSSL_CONF=/dev/null quietly openssl req -x509 -config "$here/peer.cnf" -extensions ca -subj "/CN=Peer CA" \
        -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout "$dir/ca.key" -out "$dir/ca.pem"
    for kind in ec rsa; do
        local new=(-newkey rsa:2048)
        [ "$kind" = rsa ] || new=(-newkey ec -pkeyopt ec_paramgen_curve:P-256)
        OPENSSL_CONF=/dev/null quietly openssl req -new -config "$here/peer.cnf" -subj /CN=localhost "${new[@]}" \
            -nodes -keyout "$dir/$kind.key" -out "$dir/$kind.csr"
        OPENSSL_CONF=/dev/null quietly openssl x509 -req -in "$dir/$kind.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" \
            -CAcreateserial -days 30 -extfile "$here/peer.cnf" -extensions peer -out "$dir/$kind.pem"
    done
}

swtpm_pid=
stop_tpm() {
    [ -z "$swtpm_pid" ] || { kill "$swtpm_pid" && wait "$swtpm_pid"; } 2>/dev/null || true
    swtpm_pid=
}

# start_tpm DIR: a software TPM; sets port
start_tpm() {
    local attempt deadline
    mkdir -p "$1"
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        port=$((20000 + 2 * (RANDOM % 6000))) # below the kernel's own range, with room for port + 1
        rm -f "$1/pid"
        swtpm socket --tpm2 --tpmstate "dir=$1" --flags not-need-init,startup-clear \
            --server "type=tcp,bindaddr=127.0.0.1,port=$port" \
            --ctrl "type=tcp,bindaddr=127.0.0.1,port=$((port + 1))" --pid "file=$1/pid" >"$1/log" 2>&1 &
        swtpm_pid=$!
        deadline=$((SECONDS + 60))
        while kill -0 "$swtpm_pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do
            [ ! -s "$1/pid" ] || return 0
            sleep 0.02
        done
        stop_tpm
    done
    cat "$1/log" >&2
    die "swtpm does not start (attempt $attempt)"
}

tool() {
    quietly pkcs11-tool --module "$MODULE" "$@"
}

# make_key LABEL OPTION...: makes a key on the token devid, with a certificate of the device's maker
make_key() {
    local label=$1 kind=(--key-type EC:prime256v1 --usage-sign) pin_file=()
    shift
    [ "$KEY_TYPE" = ec ] || kind=(--key-type rsa:2048 --usage-sign --usage-decrypt)
    [ -z "$PIN" ] || pin_file=(--pin-file "$PIN_FILE")
    tool --token-label "$TOKEN_LABEL" "$@" --keypairgen "${kind[@]}" --label "$label"
    quietly "$DEVID" csr "$label" "${pin_file[@]}" --out "$home/$label.csr"
    quietly scripts/authority --dir "$home/factory" --request "$home/$label.csr" --out "$home/factory/$label.pem"
    quietly openssl x509 -in "$home/factory/$label.pem" -outform DER -out "$home/$label.der"
    tool --token-label "$TOKEN_LABEL" "$@" --write-object "$home/$label.der" --type cert --label "$label"
}

# make_token COLUMN: a device in $work/COLUMN, with a token as lib.sh describes. A device always has
# a factory identity; "devid" columns also have their own key.
make_token() {
    local template=h2 path
    home=$work/$1 TOKEN=${1%-own-*} KEY_TYPE=${1##*-} PIN='' PIN_FILE=''
    [ "$1" != idev-rsa ] || template=h1
    mkdir -p "$home/config.d" "$home/chain" "$home/trust" "$home/run" "$home/state"
    : >"$home/config.toml"
    start_tpm "$home/tpm"
    export TCTI=swtpm:host=127.0.0.1,port=$port
    export DEVID_PKCS11_CONFIG=$home/config.toml DEVID_PKCS11_TCTI=$TCTI DEVID_PKCS11_RUN=$home/run
    export DEVID_PKCS11_STATE=$home/state DEVID_PKCS11_LOG=debug,file:$home/module.log
    quietly scripts/factory --tcti "$TCTI" --out "$home/factory" --template "$template" --serial "SN-$1"
    case $TOKEN in
    idev-*)
        TOKEN_LABEL=idev-id KEY_LABEL=idev-id
        ;;
    devid-no-pin)
        TOKEN_LABEL=devid KEY_LABEL=client
        make_key client
        ;;
    devid-pin)
        TOKEN_LABEL='device keys' KEY_LABEL=client PIN=pin-of-the-user PIN_FILE=$home/pin
        printf %s "$PIN" >"$PIN_FILE" && chmod 600 "$PIN_FILE"
        tool --init-token --slot-index 1 --label "$TOKEN_LABEL" --so-pin pin-of-the-officer
        tool --token-label "$TOKEN_LABEL" --login --login-type so --so-pin pin-of-the-officer --init-pin --new-pin "$PIN"
        make_key client --login --pin "$PIN"
        ;;
    esac
    CERT=$home/factory/$KEY_LABEL.pem ISSUER=$home/issuer.pem CHAIN=$home/chain.pem PUBLIC=$home/public.pem
    cat "$home/factory/ca.pem" "$home/factory/root.pem" >"$ISSUER"
    cat "$CERT" "$home/factory/ca.pem" >"$CHAIN"
    openssl x509 -in "$CERT" -noout -pubkey >"$PUBLIC"
    path="pkcs11:token=${TOKEN_LABEL// /%20};object=$KEY_LABEL"
    KEY_URI="$path;type=private" CERT_URI="$path;type=cert"
    KEY_ID=$(pkcs11-tool --module "$MODULE" --token-label "$TOKEN_LABEL" --list-objects --type cert 2>/dev/null |
        awk -v label="$KEY_LABEL" '$1 == "label:" { here = $2 == label } $1 == "ID:" && here { print $2 }')
    [ -n "$KEY_ID" ] || die "the token $TOKEN_LABEL shows no certificate $KEY_LABEL"
    sed -e "s,^#module = .*,module = $PROVIDER_PATH," -e "s,^pkcs11-module-path = .*,pkcs11-module-path = $MODULE," \
        ${PIN:+-e "/^pkcs11-module-path/a pkcs11-module-token-pin = file:$PIN_FILE"} \
        pkcs11-conf/openssl.cnf >"$home/openssl.cnf"
    # shellcheck disable=SC2034 # for the cells
    given=(MODULE="$MODULE" DEVID="$DEVID" TOKEN="$TOKEN" TOKEN_LABEL="$TOKEN_LABEL" KEY_TYPE="$KEY_TYPE"
        KEY_LABEL="$KEY_LABEL" KEY_ID="$KEY_ID" KEY_URI="$KEY_URI" CERT_URI="$CERT_URI" PIN="$PIN"
        PIN_FILE="$PIN_FILE" CERT="$CERT" CHAIN="$CHAIN" ISSUER="$ISSUER" PUBLIC="$PUBLIC"
        PEER_EC_CERT="$work/peer/ec.pem" PEER_EC_KEY="$work/peer/ec.key" PEER_RSA_CERT="$work/peer/rsa.pem"
        PEER_RSA_KEY="$work/peer/rsa.key" PEER_CA="$work/peer/ca.pem" OPENSSL_CONF="$home/openssl.cnf"
        PROVIDER="$PROVIDER" PROVIDER_PATH="$PROVIDER_PATH" HANDSHAKES="${HANDSHAKES:-20}" RELEASE="$RELEASE"
        TCTI="$TCTI" DEVID_PKCS11_CONFIG="$DEVID_PKCS11_CONFIG" DEVID_PKCS11_TCTI="$TCTI"
        DEVID_PKCS11_RUN="$DEVID_PKCS11_RUN" DEVID_PKCS11_STATE="$DEVID_PKCS11_STATE"
        DEVID_PKCS11_LOG="$DEVID_PKCS11_LOG")
}
