"""aws.py PAGE PORT COUNT: the AWS common runtime (s2n) with its PKCS#11 support, COUNT connections of one process."""
import sys

from awscrt import http, io

page, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
exec(open(page).read())  # docs/CLIENTS.md makes context
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
