"""The TLS peer that judges: plain OpenSSL under Python's ssl, software keys, every certificate verified.

peer.py serve PORT CERTIFICATE KEY CA      insists on client certificates that CA vouches for; each full
                                           handshake is a line "verified TLSv1.3 SUBJECT"
peer.py call PORT CERTIFICATE KEY CA COUNT [REQUEST]
                                           makes COUNT full handshakes, in turn with TLS 1.2 and 1.3, sends
                                           REQUEST (default: of HTTP; hex: of these bytes) and wants an answer
"""

import socket
import ssl
import sys
import threading

HTTP = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"
ANSWER = b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
SECONDS = 60


def context(side, certificate, key, ca):
    made = ssl.SSLContext(side)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(ca)
    made.load_cert_chain(certificate, key)
    made.options |= ssl.OP_NO_TICKET
    return made


def subject(peer):
    return ",".join(f"{name}={value}" for part in peer["subject"] for name, value in part)


def answer(plain, made):
    plain.settimeout(SECONDS)
    try:
        with made.wrap_socket(plain, server_side=True) as tls:
            kind = "resumed" if tls.session_reused else "verified"
            print(kind, tls.version(), subject(tls.getpeercert()), flush=True)
            if tls.recv(65536):
                tls.sendall(ANSWER)
    except OSError as error:
        print("failed", error, flush=True)


def serve(port, certificate, key, ca):
    made = context(ssl.PROTOCOL_TLS_SERVER, certificate, key, ca)
    made.num_tickets = 0
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("ready", flush=True)
        while True:
            plain, _ = listener.accept()
            threading.Thread(target=answer, args=(plain, made), daemon=True).start()


def call(port, certificate, key, ca, count, request=HTTP):
    versions = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
    done = 0
    for turn in range(count):
        made = context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, ca)
        made.minimum_version = made.maximum_version = versions[turn % 2]
        try:
            with socket.create_connection(("127.0.0.1", port), SECONDS) as plain:
                with made.wrap_socket(plain) as tls:
                    tls.sendall(request)
                    got = tls.recv(65536)
                    if not got or (request is HTTP and b" 200 " not in got.split(b"\r\n")[0]):
                        raise OSError(f"the server answered {got[:80]!r}")
                    done += 1
        except OSError as error:
            print(f"handshake {turn + 1} of {count}, {versions[turn % 2].name}: {error}", flush=True)
    print(f"{done} of {count} handshakes")
    return 0 if done == count else 1


def main(verb, port, certificate, key, ca, *rest):
    if verb == "serve":
        return serve(int(port), certificate, key, ca)
    request = rest[1] if len(rest) > 1 else None
    if request is None:
        return call(int(port), certificate, key, ca, int(rest[0]))
    data = bytes.fromhex(request[4:]) if request.startswith("hex:") else request.encode()
    return call(int(port), certificate, key, ca, int(rest[0]), data)


sys.exit(main(*sys.argv[1:]))
