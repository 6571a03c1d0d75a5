"""openvpn.py PORT TOKEN PIN: gives the PIN to the openvpn whose management interface is there, when it asks."""

import re
import socket
import sys

port, token, pin = sys.argv[1:]
with socket.create_connection(("127.0.0.1", int(port))) as talk:
    lines = talk.makefile("rw", newline="\r\n")
    for line in lines:
        asked = re.match(r">PASSWORD:Need '(.*)' password", line)
        if asked:
            if token not in asked.group(1):
                sys.exit(f"asks for something else: {line}")
            print("asked for the PIN of", asked.group(1), flush=True)
            lines.write(f'password "{asked.group(1)}" "{pin}"\n')
            lines.flush()
