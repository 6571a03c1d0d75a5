"""For tests/clients/step-ca: its configuration, a question for a certificate, and what the answer holds."""
import base64
import json
import os
import subprocess
import sys
import time

work = os.environ["WORK"]


def text(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def openssl(*arguments, data=b""):
    environment = dict(os.environ, OPENSSL_CONF="/dev/null")
    return subprocess.run(["openssl", *arguments], input=data, stdout=subprocess.PIPE, check=True, env=environment).stdout


def configuration():
    public = openssl("pkey", "-in", f"{work}/provisioner.key", "-pubout", "-outform", "DER")
    jwk = {"use": "sig", "kty": "EC", "kid": "device", "crv": "P-256", "alg": "ES256"}
    jwk |= {"x": text(public[-64:-32]), "y": text(public[-32:])}
    with open(sys.argv[2]) as page:
        return json.load(page) | {"authority": {"provisioners": [{"type": "JWK", "name": "device", "key": jwk}]}}


def question():
    """An ES256 token of the provisioner (RFC 7515); its signature is the two numbers of OpenSSL's DER."""
    now = int(time.time())
    claims = {"iss": "device", "sub": "client.example", "sans": ["client.example"], "jti": os.urandom(16).hex()}
    claims |= {"aud": f"https://localhost:{os.environ['port']}/1.0/sign", "iat": now, "nbf": now, "exp": now + 300}
    claims |= {"sha": os.environ["root_print"]}
    signed = f"{text({'alg': 'ES256', 'kid': 'device', 'typ': 'JWT'})}.{text(claims)}"
    der = openssl("dgst", "-sha256", "-sign", f"{work}/provisioner.key", data=signed.encode())
    size = der[3]
    numbers = der[4 : 4 + size], der[6 + size :]
    signature = b"".join(number.lstrip(b"\0").rjust(32, b"\0") for number in numbers)
    with open(f"{work}/request.pem") as request:
        return {"csr": request.read(), "ott": f"{signed}.{text(signature)}"}


def answer():
    with open(sys.argv[2]) as file:
        return json.load(file)["crt"]


result = {"configuration": configuration, "question": question, "answer": answer}[sys.argv[1]]()
print(result if isinstance(result, str) else json.dumps(result))
