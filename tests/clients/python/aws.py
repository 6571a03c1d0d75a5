"""aws.py PORT COUNT: the AWS common runtime (s2n) with its PKCS#11 support, COUNT connections of one process."""
import os
import sys

from awscrt import http, io

port, count = int(sys.argv[1]), int(sys.argv[2])
library = io.Pkcs11Lib(file=os.environ["MODULE"], behavior=io.Pkcs11Lib.InitializeFinalizeBehavior.STRICT)
options = io.TlsContextOptions.create_client_with_mtls_pkcs11(
    pkcs11_lib=library,
    user_pin=os.environ["PIN"] or None,
    token_label=os.environ["TOKEN_LABEL"],
    private_key_label=os.environ["KEY_LABEL"],
    cert_file_path=os.environ["CHAIN"],
)
options.override_default_trust_store_from_path(None, os.environ["PEER_CA"])
context = io.ClientTlsContext(options)
bootstrap = io.ClientBootstrap.get_or_create_static_default()
for number in range(count):
    tls = context.new_connection_options()
    tls.set_server_name("localhost")
    connection = http.HttpClientConnection.new("127.0.0.1", port, bootstrap, tls_connection_options=tls).result(60)
    request = http.HttpRequest("GET", "/", http.HttpHeaders([("Host", "localhost")]))
    body = bytearray()
    stream = connection.request(request, on_body=lambda chunk, **_: body.extend(chunk))
    stream.activate()
    stream.completion_future.result(60)
    if b"Client certificate" not in body:
        sys.exit(f"handshake {number + 1}: the server saw no certificate: {bytes(body)!r}")
    connection.close().exception(60)  # the server closes first
print(f"{count} handshakes")
