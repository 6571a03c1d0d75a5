#!/usr/bin/env python3
"""Opens TLS sessions one after the other, from two threads, until a file appears.

usage: handshakes.py PORT CA STOP

Each session is a whole handshake with a certificate for localhost below CA, and one answer. Standard output gets
`begun` after the first, and at the end: sessions, failed sessions, certificates seen. Failures go to standard error.
"""

import os
import socket
import ssl
import sys
import threading


class Counter:
    def __init__(self, port, authority, stop):
        self.port, self.stop = port, stop
        self.context = ssl.create_default_context(cafile=authority)
        self.lock = threading.Lock()
        self.sessions = self.failed = 0
        self.serials = set()

    def once(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as plain:
            with self.context.wrap_socket(plain, server_hostname="localhost") as session:
                session.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b""
                while more := session.recv(4096):
                    answer += more
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise OSError(f"answered {answer!r}")
                return session.getpeercert()["serialNumber"]

    def run(self):
        while not os.path.exists(self.stop):
            serial, why = None, None
            try:
                serial = self.once()
            except OSError as error:
                why = error
            with self.lock:
                self.sessions += 1
                if why is None:
                    self.serials.add(serial)
                else:
                    self.failed += 1
                    print(why, file=sys.stderr, flush=True)
                if self.sessions == 1:
                    print("begun", flush=True)


def main():
    counter = Counter(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    threads = [threading.Thread(target=counter.run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(counter.sessions, counter.failed, len(counter.serials))


main()
