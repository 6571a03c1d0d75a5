#!/usr/bin/env python3
"""A strict EST server (RFC 7030, RFC 8951) for tests, with faults.

usage: server.py --dir DIR --clients FILE [--bind ADDRESS] [--default-port KIND]

DIR gets the CAs (root.pem, ca.pem), the server's keys and `requests`, a line of JSON for each request.
--clients: certificates of CAs whose clients may enroll. Standard output gets one line of JSON, the
ports by kind of TLS: good, other-name, registration-authority, expired, alert, no-question, tls12,
plain. A fault is asked for by the label in the path: /.well-known/est/FAULT/simpleenroll.
"""

import argparse
import base64
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
DATA = bytes.fromhex("06092a864886f70d010701")
FAR = "21001231235959Z"
PAST = "20200101000000Z"
SETTINGS = """
[ca]
default_ca = here
[here]
dir = {dir}
database = {dir}/{name}.index
new_certs_dir = {dir}/issued
certificate = {dir}/{name}.pem
private_key = {dir}/{name}.key
default_md = sha256
policy = anything
preserve = yes
copy_extensions = {copy}
unique_subject = no
rand_serial = yes
x509_extensions = {extensions}
[anything]
countryName = optional
organizationName = optional
organizationalUnitName = optional
commonName = optional
serialNumber = optional
[leaf]
basicConstraints = critical, CA:FALSE
authorityKeyIdentifier = keyid
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
[other]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:other.example
[registration]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth, 1.3.6.1.5.5.7.3.28
subjectAltName = DNS:other.example
"""


def openssl(*words, data=None):
    done = subprocess.run(["openssl", *words], input=data, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {' '.join(words)}: {done.stderr.decode()}")
    return done.stdout


def element(tag, content):
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + content


def open_ended(tag, content):
    return bytes([tag, 0x80]) + content + b"\0\0"


def certs_only(certificates, wrap=element, crls=()):
    contents = wrap(0x30, DATA)
    some = wrap(0xA0, b"".join(certificates)) if certificates else b""
    some += wrap(0xA1, b"".join(crls)) if crls else b""
    signed = b"\x02\x01\x01" + element(0x31, b"") + contents + some + element(0x31, b"")
    return wrap(0x30, SIGNED_DATA + wrap(0xA0, wrap(0x30, signed)))


def parts(der):
    """The elements of which the content of an element consists: tag, whole."""
    found, content = [], body(der)
    while content:
        whole = content[: header(content) + length(content)]
        found.append((whole[0], whole))
        content = content[len(whole):]
    return found


def header(der):
    return 2 if der[1] < 0x80 else 2 + (der[1] & 0x7F)


def length(der):
    return der[1] if der[1] < 0x80 else int.from_bytes(der[2 : header(der)], "big")


def body(der):
    return der[header(der) : header(der) + length(der)]


def names_of_request(der):
    """Subject and subjectAltName of a PKCS#10 request, as they stand there."""
    info = parts(parts(der)[0][1])
    name, subject_alt = info[1][1], b""
    for _, attribute in parts(info[3][1]):
        kind, values = (whole for _, whole in parts(attribute))
        if kind == bytes.fromhex("06092a864886f70d01090e"):
            subject_alt = alternative(parts(values)[0][1])
    return name, subject_alt


def names_of_certificate(der):
    info = [whole for _, whole in parts(parts(der)[0][1])]
    extensions = [whole for whole in info if whole[0] == 0xA3]
    return info[5], alternative(body(extensions[0])) if extensions else b""


def alternative(extensions):
    for _, extension in parts(extensions):
        if extension[header(extension):].startswith(bytes.fromhex("0603551d11")):
            return extension
    return b""


class Authority:
    """A root, a CA below it that issues, and the certificates of servers."""

    def __init__(self, folder):
        self.dir = folder
        self.turn = threading.Lock()
        os.makedirs(f"{folder}/issued", exist_ok=True)
        self.root("root")
        self.below("ca", "root")
        self.root("expired", PAST, "20200201000000Z")
        self.root("stranger")
        self.root("second-root")
        self.below("second", "second-root")
        for name, section, end in [
            ("good", "server", FAR), ("other", "other", FAR), ("registration", "registration", FAR),
            ("over", "server", "20200201000000Z"),
        ]:
            self.key(name)
            request = openssl("req", "-new", "-key", f"{folder}/{name}.key", "-subj", f"/CN={name}")
            begin = PAST if end == FAR else PAST
            pem = self.signed("ca", request, section, begin, end, copy="none")
            with open(f"{folder}/{name}.chain", "w", encoding="ascii") as chain:
                chain.write(pem + self.pem("ca"))

    def key(self, name):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{self.dir}/{name}.key")

    def root(self, name, begin=PAST, end=FAR):
        self.key(name)
        request = openssl("req", "-new", "-key", f"{self.dir}/{name}.key", "-subj", f"/O=Test EST/CN={name}")
        self.signed(name, request, "authority", begin, end, own=True)

    def below(self, name, issuer):
        self.key(name)
        request = openssl("req", "-new", "-key", f"{self.dir}/{name}.key", "-subj", f"/O=Test EST/CN={name}")
        with open(f"{self.dir}/{name}.pem", "w", encoding="ascii") as file:
            file.write(self.signed(issuer, request, "authority", PAST, FAR))

    def signed(self, issuer, request, section, begin, end, own=False, copy="copy"):
        with self.turn:
            base = f"{self.dir}/{issuer}"
            with open(f"{base}.cnf", "w", encoding="ascii") as file:
                file.write(SETTINGS.format(dir=self.dir, name=issuer, extensions=section, copy=copy))
            open(f"{base}.index", "w", encoding="ascii").close()
            with open(f"{base}.csr", "wb") as file:
                file.write(request)
            words = ["ca", "-batch", "-notext", "-config", f"{base}.cnf", "-in", f"{base}.csr"]
            words += ["-startdate", begin, "-enddate", end, "-out", f"{base}.new"]
            openssl(*words, *(["-selfsign", "-keyfile", f"{base}.key"] if own else []))
            with open(f"{base}.new", encoding="ascii") as file:
                pem = file.read()
            if own:
                os.replace(f"{base}.new", f"{base}.pem")
            return pem

    def pem(self, name):
        with open(f"{self.dir}/{name}.pem", encoding="ascii") as file:
            return file.read()

    def der(self, name):
        return ssl.PEM_cert_to_DER_cert(self.pem(name))

    def crl(self, issuer):
        with self.turn:
            words = ["ca", "-gencrl", "-config", f"{self.dir}/{issuer}.cnf", "-crldays", "7"]
            return openssl("crl", "-outform", "DER", data=openssl(*words))

    def issue(self, request, fault):
        now = time.time()
        stamp = lambda seconds: time.strftime("%Y%m%d%H%M%SZ", time.gmtime(seconds))
        begin, end = stamp(now - 60), stamp(now + 30 * 86400)
        issuer, section = "ca", "leaf"
        if fault == "wrong-key":
            key = openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout")
            request = openssl("req", "-new", "-key", "/dev/stdin", "-subj", "/CN=web", data=key)
        elif fault == "expired-ca":
            issuer = "expired"
        elif fault == "second-profile":
            issuer = "second"
        elif fault == "stranger":
            issuer = "stranger"
        elif fault == "over":
            begin, end = PAST, "20200201000000Z"
        elif fault == "future":
            begin, end = stamp(now + 86400), FAR
        elif fault == "older":
            begin, end = "20210101000000Z", stamp(now + 86400)
        elif fault == "authority":
            section = "authority"
        elif fault == "short-life":
            begin, end = stamp(now - 3600), stamp(now + 1800)
        pem = self.signed(issuer, request, section, begin, end)
        return ssl.PEM_cert_to_DER_cert(pem)


class Refused(Exception):
    """A status and what is said with it."""

    def __init__(self, status, words, headers=()):
        super().__init__(words)
        self.status, self.words, self.headers = status, words, list(headers)


class Server:
    def __init__(self, options):
        self.dir = options.dir
        self.ca = Authority(options.dir)
        with open(options.clients, encoding="ascii") as file:
            self.clients = file.read()
        self.lock = threading.Lock()
        self.asked = {}
        self.nonce = os.urandom(8).hex()
        self.bind = options.bind
        self.default_port = options.default_port
        self.ports = {}

    def context(self, chain, ask=True, clients=None, most=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{self.dir}/{chain}.chain", f"{self.dir}/{chain}.key")
        if ask:
            context.verify_mode = ssl.CERT_OPTIONAL
            believed = self.clients + self.ca.pem("ca") + self.ca.pem("root") if clients is None else clients
            context.load_verify_locations(cadata=believed)
        if most:
            context.maximum_version = most
        return context

    def run(self):
        kinds = {
            "good": self.context("good"),
            "other-name": self.context("other"),
            "registration-authority": self.context("registration"),
            "expired": self.context("over"),
            "alert": self.context("good", clients=self.ca.pem("stranger")),
            "no-question": self.context("good", ask=False),
            "tls12": self.context("good", most=ssl.TLSVersion.TLSv1_2),
            "plain": None,
        }
        for kind, context in kinds.items():
            family = socket.AF_INET6 if ":" in self.bind else socket.AF_INET
            port = 443 if kind == self.default_port else 0
            listener = socket.create_server((self.bind, port), family=family, backlog=64)
            self.ports[kind] = listener.getsockname()[1]
            threading.Thread(target=self.listen, args=(listener, context), daemon=True).start()
        print(json.dumps(self.ports), flush=True)
        sys.stdin.read()

    def listen(self, listener, context):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=self.serve, args=(client, context), daemon=True).start()

    def serve(self, client, context):
        try:
            client.settimeout(60)
            if context is None:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                client.close()
                return
            client = context.wrap_socket(client, server_side=True)
            with client:
                self.answer(client, client.getpeercert(binary_form=True))
        except (OSError, ValueError):
            pass

    def answer(self, client, peer):
        head = b""
        while b"\r\n\r\n" not in head:
            more = client.recv(4096)
            if not more:
                return
            head += more
        head, _, rest = head.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(rest) < int(headers.get("content-length", "0")):
            rest += client.recv(4096)
        before, known, rest_of_path = path.partition("/.well-known/est/")
        prefix, _, operation = rest_of_path.rpartition("/")
        try:
            # strongSwan has the label before.
            prefix = prefix or before.strip("/")
            if not known or "/" in prefix:
                raise Refused(404, "no such place")
            answer = self.decide(client, prefix, operation, method, headers, rest, peer)
        except Refused as refused:
            text = [("Content-Type", "text/plain")] if refused.words else []
            answer = refused.status, text + refused.headers, refused.words.encode()
        self.log(path, peer, rest, answer)
        if answer:
            self.send(client, prefix, *answer)

    def log(self, path, peer, request, answer):
        line = {
            "path": path,
            "peer": hashlib.sha256(peer).hexdigest() if peer else None,
            "request": hashlib.sha256(request).hexdigest() if request else None,
            "status": answer[0] if answer else None,
        }
        with self.lock, open(f"{self.dir}/requests", "a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")

    def send(self, client, fault, status, headers, content):
        version = "HTTP/1.0" if fault == "http10" else "HTTP/1.1"
        head = f"{version} {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
        if fault == "chunked":
            chunks = [content[at : at + 100] for at in range(0, len(content), 100)] + [b""]
            body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
            head += "Transfer-Encoding: chunked\r\n"
        elif fault == "http10":
            body = content
        else:
            body = content
            head += f"Content-Length: {len(content) + (1000 if fault == 'short' else 0)}\r\n"
        client.sendall(head.encode() + b"\r\n" + body)
        try:
            # Python's own way to say that the session ends.
            client.unwrap()
        except (OSError, AttributeError):
            pass

    def decide(self, client, fault, operation, method, headers, content, peer):
        issues = operation in ("simpleenroll", "simplereenroll")
        if operation not in ("cacerts", "csrattrs") and not issues:
            raise Refused(404, "no such operation")
        if method != ("POST" if issues else "GET"):
            raise Refused(405, "another method")
        if operation == "cacerts":
            if fault == "no-cacerts":
                raise Refused(500, "no certificates today")
            above = ("root", "ca") if fault != "second-profile" else ("second-root", "second")
            pem = [self.ca.der(name) for name in above]
            if fault == "expired-ca":
                pem.append(self.ca.der("expired"))
            return self.pkcs7(certs_only(pem))
        if operation == "csrattrs":
            return self.wishes(fault)
        self.check_form(headers, content)
        request = base64.b64decode(content, validate=True)
        self.check_client(fault, operation, method, headers, request, peer)
        return self.issue(client, fault, operation, headers, request)

    @staticmethod
    def pkcs7(der, status=200):
        kind = ("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
        return status, [kind, ("Content-Transfer-Encoding", "base64")], base64.b64encode(der) + b"\n"

    @staticmethod
    def wishes(fault):
        kind = [("Content-Type", "application/csrattrs")]
        oid = lambda text: bytes.fromhex(text)
        curve = lambda der: element(0x30, oid("06072a8648ce3d0201") + element(0x31, der))
        known = {
            "wants-p384": element(0x30, curve(oid("06052b81040022")) + oid("06082a8648ce3d040303")),
            "wants-odd": element(0x30, curve(oid("06052b8104000a"))),
            "wants-binding": element(0x30, oid("06092a864886f70d010907")),
            "wants-purpose": element(0x30, element(0x30, oid("06092a864886f70d01090e") + element(
                0x31, element(0x30, element(0x30, oid("0603551d25") + element(
                    0x04, element(0x30, oid("06082b06010505070302")))))))),
        }
        if fault in known:
            return 200, kind, base64.b64encode(known[fault])
        if fault == "wants-garbage":
            return 200, kind, b"!!!"
        if fault == "wants-404":
            raise Refused(404, "")
        return 204, [], b""

    @staticmethod
    def check_form(headers, content):
        if headers.get("content-type") != "application/pkcs10":
            raise Refused(415, "not application/pkcs10")
        if "content-length" not in headers or "transfer-encoding" in headers:
            raise Refused(411, "a length is wanted")
        allowed = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
        if not content or not set(content) <= allowed | set(b"\r\n"):
            raise Refused(400, "not base64")

    def check_client(self, fault, operation, method, headers, request, peer):
        openssl("req", "-verify", "-noout", "-inform", "DER", data=request)
        if fault in ("password", "digest"):
            self.check_password(fault, method, headers)
            return
        if peer is None:
            raise Refused(401, "a client certificate is wanted")
        if operation == "simplereenroll":
            issuer = parts(parts(peer)[0][1])[3][1]
            subject_of_ca = parts(parts(self.ca.der("ca"))[0][1])[5][1]
            if issuer != subject_of_ca:
                raise Refused(403, "that certificate is not one of ours")
            if names_of_request(request) != names_of_certificate(peer):
                raise Refused(400, "subject and subjectAltName are others")

    def check_password(self, fault, method, headers):
        given = headers.get("authorization", "")
        if fault == "password":
            if given != "Basic " + base64.b64encode(b"est:secret").decode():
                raise Refused(401, "", [("WWW-Authenticate", 'Basic realm="est"')])
            return
        wanted = f'Digest realm="est", nonce="{self.nonce}", qop="auth", algorithm=SHA-256'
        fields = dict(part.strip().split("=", 1) for part in given.partition(" ")[2].split(", ") if "=" in part)
        fields = {name: value.strip('"') for name, value in fields.items()}
        digest = lambda text: hashlib.sha256(text.encode()).hexdigest()
        secret = digest("est:est:secret")
        about = digest(f"{method}:{fields.get('uri')}")
        parts_of = [secret, self.nonce, fields.get("nc", ""), fields.get("cnonce", ""), "auth", about]
        if fields.get("response") != digest(":".join(parts_of)):
            raise Refused(401, "", [("WWW-Authenticate", wanted)])

    def issue(self, client, fault, operation, headers, request):
        refusals = {
            "unauthorized": (401, "who are you?"), "forbidden": (403, "not you"), "gone": (404, "nothing here"),
            "broken": (500, "it fell down\x1b[2J"), "busy": (503, "later, perhaps"), "bad": (400, "no such subject"),
        }
        if fault in refusals:
            raise Refused(*refusals[fault])
        name = hashlib.sha256(request).hexdigest()
        if fault.startswith("later"):
            times = int(fault.rpartition("-")[2]) if fault[-1].isdigit() else 1
            with self.lock:
                count = self.asked[name] = self.asked.get(name, 0) + 1
            if count <= times:
                raise Refused(202, "", [] if fault == "later-silent" else [("Retry-After", "1")])
        if fault == "held":
            # Until somebody says so: `holds` tells that it waits, `go` lets it go on.
            open(f"{self.dir}/holds", "w", encoding="ascii").close()
            while not os.path.exists(f"{self.dir}/go"):
                time.sleep(0.01)
        if fault == "silent":
            client.recv(1)
            return None
        if fault == "drip":
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 600:
                client.sendall(bytes([byte]))
                time.sleep(0.2)
            return None
        if fault == "closed":
            return None
        if fault in ("here", "around", "elsewhere"):
            other = self.ports["tls12"]
            host = headers.get("host", "")
            to = {
                "here": f"/.well-known/est/{operation}",
                "around": f"https://{host}/.well-known/est/around/{operation}",
                "elsewhere": f"https://localhost:{other}/.well-known/est/{operation}",
            }[fault]
            return 302, [("Location", to)], b""
        if fault == "none":
            return self.pkcs7(certs_only([]))
        if fault == "page":
            return 200, [("Content-Type", "text/html")], b"<html><h1>Log in</h1></html>"
        if fault == "empty":
            return 200, [("Content-Type", "application/pkcs7-mime")], b""
        if fault == "huge":
            return 200, [("Content-Type", "application/pkcs7-mime")], b"A" * (3 << 20)
        leaf = self.ca.issue(openssl("req", "-inform", "DER", data=request), fault)
        above = [self.ca.der("root"), self.ca.der("ca")]
        der = certs_only([leaf])
        kind = [("Content-Type", "application/pkcs7-mime")]
        if fault == "truncated":
            return self.pkcs7(der[: len(der) // 2])
        if fault == "order":
            return self.pkcs7(certs_only([*above, leaf]))
        if fault == "crls":
            return self.pkcs7(certs_only([*above, leaf], crls=[self.ca.crl("ca"), self.ca.crl("root")]))
        if fault == "extra":
            other = self.ca.issue(openssl("req", "-inform", "DER", data=request), "wrong-key")
            return self.pkcs7(certs_only([other, self.ca.der("stranger"), *above, leaf, self.ca.der("expired")]))
        if fault == "open-lengths":
            return self.pkcs7(certs_only([leaf], open_ended))
        if fault == "raw":
            return 200, kind, der
        if fault == "lines":
            text = base64.b64encode(der).decode()
            return 200, kind, "".join(text[at : at + 76] + "\r\n" for at in range(0, len(text), 76)).encode()
        if fault == "pem":
            return 200, kind, openssl("pkcs7", "-inform", "DER", data=der)
        return self.pkcs7(der, 201 if fault == "created" else 200)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--dir", required=True)
    arguments.add_argument("--clients", required=True)
    arguments.add_argument("--bind", default="127.0.0.1")
    arguments.add_argument("--default-port", metavar="KIND", help="the kind of TLS that listens at port 443")
    Server(arguments.parse_args()).run()
