# A RADIUS server for EAP-TLS, and eapol_test, which is wpa_supplicant's code with RADIUS in the place of a
# switch; sourced after daemons.sh.
# shellcheck shell=bash disable=SC2154 # daemons.sh sets the rest

# radius NAME CERTIFICATE KEY CA: sets radius_port
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
        tls-config own {
            certificate_file = $2
            private_key_file = $3
            ca_file = $4
            cipher_list = "DEFAULT"
            ecdh_curve = ""
            tls_min_version = "1.2"
            tls_max_version = "1.3"
            cache {
                enable = no
            }
        }
        tls {
            tls = own
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

# network CERTIFICATE KEY CA [LINE...]: what wpa_supplicant is to know. It makes TLS 1.2 unless it is told otherwise.
network() {
    cat <<CONF
network={
    key_mgmt=IEEE8021X
    eap=TLS
    eapol_flags=0
    identity="device"
    ca_cert="$3"
    client_cert="$1"
    private_key="$2"
    phase1="tls_disable_session_ticket=1"
$(printf '    %s\n' "${@:4}")
}
CONF
}

# eapol NAME COUNT CONFIG [PREFIX...]: COUNT authentications in one process, each a whole one
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
