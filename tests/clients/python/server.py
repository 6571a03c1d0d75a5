"""server.py CERTIFICATE KEY CA 1.2|1.3: an HTTPS server that insists on a client's certificate, by OpenSSL.

Prints its port. Answers with the subject of the client's certificate, and then closes.
"""
import http.server
import ssl
import sys

certificate, key, ca, protocol = sys.argv[1:]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"Client certificate: {self.connection.getpeercert()['subject']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = context.maximum_version = ssl.TLSVersion[f"TLSv{protocol.replace('.', '_')}"]
context.load_cert_chain(certificate, key)
context.load_verify_locations(ca)
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("port", server.server_port, flush=True)
server.serve_forever()
