# A RADIUS server for EAP-TLS, and eapol_test, which is wpa_supplicant's code with RADIUS instead of
# a switch. To be sourced after daemons.sh.
# shellcheck shell=bash disable=SC2154 # daemons.sh sets the rest

# tls_config CERTIFICATE KEY CA: of a RADIUS server, in whose eap section it stands
tls_config() {
    cat <<CONF
tls-config device {
    certificate_file = $1
    private_key_file = $2
    ca_file = $3
    tls_min_version = "1.2"
    tls_max_version = "1.3"
}
CONF
}

# after_first_line LINE...: prints its input with these lines after the first line
after_first_line() {
    sed "1r "<(printf '    %s\n' "$@")
}

# radius NAME TLS_CONFIG: sets radius_port
radius() {
    local folder=$WORK/$1
    radius_port=$(python3 -c 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    mkdir "$folder"
    cat >"$folder/radiusd.conf" <<CONF
prefix = /usr
libdir = /usr/lib/freeradius
raddbdir = $folder
run_dir = $folder
logdir = $folder
cleanup_delay = 0
security {
    allow_vulnerable_openssl = yes
}
client localhost {
    ipaddr = 127.0.0.1
    secret = testing123
    require_message_authenticator = yes
}
modules {
    eap {
        default_eap_type = tls
$(after_first_line 'cipher_list = "DEFAULT"' 'ecdh_curve = ""' 'cache {' 'enable = no' '}' <<<"$2")
        tls {
            tls = device
        }
    }
}
server default {
    listen {
        type = auth
        ipaddr = 127.0.0.1
        port = $radius_port
    }
    authorize {
        eap
    }
    authenticate {
        eap
    }
}
CONF
    daemon "$1" freeradius -X -d "$folder"
    await says "$1" "Ready to process requests"
}

# network CERTIFICATE KEY CA [LINE...]: prints its input, the page's block wpa_supplicant, with
# these files and without resumption. The default is TLS 1.2.
network() {
    sed -e "s|$WORK/chain.pem|$1|" -e "s|$WORK/key.pem|$2|" -e "s|$WORK/ca.pem|$3|" |
        after_first_line 'phase1="tls_disable_session_ticket=1"' "${@:4}"
}

# eapol NAME COUNT CONFIG [PREFIX...]: COUNT complete authentications in one process
eapol() {
    daemon "$1" "${@:4}" eapol_test -c "$3" -a 127.0.0.1 -p "$radius_port" -s testing123 -r "$(($2 - 1))" -t 60
    wait "${pids[-1]}" || fail "eapol_test $1"
    unset "pids[-1]"
    [ "$(said "$1" "CTRL-EVENT-EAP-SUCCESS")" -ge "$2" ] || fail "eapol_test $1 counts less than $2 successes"
}

# accepted KIND: the RADIUS server with that certificate accepted the device each time
accepted() {
    local times
    times=$(said "radius-$1" "Sent Access-Accept")
    echo "$1 peer: $times authentications"
    [ "$times" -ge "$HANDSHAKES" ] || fail "the RADIUS server with the $1 certificate accepted $times"
}
