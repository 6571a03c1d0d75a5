"""handshakes.py ssl|requests|httpx URL COUNT 1.2|1.3: one process, COUNT connections with the device's key.

Reads CHAIN, KEY_PEM and PEER_CA; s_server closes each connection after its answer, which names the
client's certificate.
"""
import os
import ssl
import sys
import urllib.request

library, url, count, protocol = sys.argv[1:]
chain, key, ca = os.environ["CHAIN"], os.environ["KEY_PEM"], os.environ["PEER_CA"]


def context():
    made = ssl.create_default_context(cafile=ca)
    made.minimum_version = made.maximum_version = ssl.TLSVersion[f"TLSv{protocol.replace('.', '_')}"]
    made.load_cert_chain(chain, key)
    return made


def with_ssl():
    handler = urllib.request.HTTPSHandler(context=context())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)
    return lambda: opener.open(url).read().decode()


def with_requests():
    import requests

    session = requests.Session()
    session.trust_env = False
    session.cert, session.verify = (chain, key), ca
    return lambda: session.get(url).text


def with_httpx():
    import httpx

    client = httpx.Client(verify=context(), trust_env=False)
    return lambda: client.get(url).text


get = {"ssl": with_ssl, "requests": with_requests, "httpx": with_httpx}[library]()
for number in range(int(count)):
    try:
        answer = get()
    except Exception as error:
        sys.exit(f"handshake {number + 1} of {count}: {error}")
    if "Client certificate" not in answer:
        sys.exit(f"handshake {number + 1}: the server saw no certificate")
print(f"{count} handshakes by TLS {protocol}")
