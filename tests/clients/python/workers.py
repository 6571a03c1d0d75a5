"""Makes handshakes with a server: workers.py PORT ROOT, where ROOT is a file with the CA's certificate.

Each line of standard input is a number of handshakes, by TLS 1.2 and 1.3 in turn. The answer is a line: how many
were made, how many failed, the last error or "-", and the process ids of the workers that answered."""

import socket
import ssl
import sys


def handshake(port, root, number):
    context = ssl.create_default_context(cafile=root)
    context.check_hostname = False
    version = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3][number % 2]
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        with context.wrap_socket(plain) as stream:
            stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while more := stream.recv(4096):
                answer += more
    return answer.decode().split("|")[1]


def main():
    port, root, number = int(sys.argv[1]), sys.argv[2], 0
    for line in sys.stdin:
        made, failed, why, workers = 0, 0, "-", set()
        for _ in range(int(line)):
            number += 1
            try:
                workers.add(handshake(port, root, number))
                made += 1
            except (OSError, IndexError) as error:
                failed += 1
                why = repr(error).replace(" ", "_")
        print(made, failed, why, *sorted(workers), flush=True)


main()
