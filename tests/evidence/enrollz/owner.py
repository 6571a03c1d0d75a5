#!/usr/bin/env python3
"""The owner's side of OpenConfig's HMAC challenge (enrollz, bootz), from the bytes of the standard: TPM 2.0
Library, Part 1, annexes B.10.3 and C.6.3 (seeds), section 23.3 (duplication), and section 11.4.10 (KDFa, KDFe).

owner.py challenge EK.der SECRET [--message bare|enrollz|bootz] [--key NAME] [--attributes HEX] [--auth HEX]
                   [--scheme HEX] [--other-halves]
owner.py verify SECRET RESPONSE

`challenge` writes a message to standard output and the HMAC key to SECRET. EK.der is the SubjectPublicKeyInfo of the
key that the HMAC key is wrapped for. `verify` takes the answer, and writes as JSON: the IAK's name, its TPMT_PUBLIC,
and extraData. What is not right ends it with 1."""

import argparse
import base64
import hashlib
import hmac
import json
import os
import struct
import sys

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

ALGORITHMS = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
GENERATED = 0xFF544347
CERTIFY = 0x8017


def sized(content):
    return struct.pack(">H", len(content)) + content


def kdfa(name, key, label, u, v, bits):
    out, counter = b"", 1
    while len(out) * 8 < bits:
        block = struct.pack(">I", counter) + label + b"\0" + u + v + struct.pack(">I", bits)
        out += hmac.new(key, block, name).digest()
        counter += 1
    return out[: bits // 8]


def kdfe(name, z, label, u, v, bits):
    out, counter = b"", 1
    while len(out) * 8 < bits:
        out += hashlib.new(name, struct.pack(">I", counter) + z + label + b"\0" + u + v).digest()
        counter += 1
    return out[: bits // 8]


def strength(key):
    """nameAlg and AES bits of the TCG's templates for this kind of key."""
    bits = key.key_size
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {256: ("sha256", 128), 384: ("sha384", 256), 521: ("sha512", 256)}[bits]
    return {2048: ("sha256", 128), 3072: ("sha384", 256), 4096: ("sha384", 256)}[bits]


def shared(key, name):
    """A seed, and the content of the TPM2B_ENCRYPTED_SECRET that holds it."""
    width = hashlib.new(name).digest_size
    if isinstance(key, ec.EllipticCurvePublicKey):
        own = ec.generate_private_key(key.curve)
        size = (key.key_size + 7) // 8
        point = own.public_key().public_numbers()
        theirs = key.public_numbers()
        x, y, peer = (number.to_bytes(size, "big") for number in (point.x, point.y, theirs.x))
        z = own.exchange(ec.ECDH(), key)
        return kdfe(name, z, b"DUPLICATE", x, peer, 8 * width), sized(x) + sized(y)
    seed = os.urandom(width)
    algorithm = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}[name]
    oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, b"DUPLICATE\0")
    return seed, key.encrypt(seed, oaep)


def challenge(args):
    with open(args.ek, "rb") as file:
        key = serialization.load_der_public_key(file.read())
    name, bits = strength(key)
    obfuscation, secret = os.urandom(32), os.urandom(32)
    with open(args.secret, "wb") as file:
        file.write(secret)
    attributes = int(args.attributes, 16)
    scheme = bytes.fromhex(args.scheme)
    unique = hashlib.sha256(obfuscation + secret).digest()
    public = struct.pack(">HHI", 0x0008, 0x000B, attributes) + sized(b"") + scheme + sized(unique)
    if args.other_halves:
        secret = os.urandom(32)
    sensitive = struct.pack(">H", 0x0008) + sized(bytes.fromhex(args.auth)) + sized(obfuscation) + sized(secret)
    object_name = struct.pack(">H", 0x000B) + hashlib.sha256(public).digest()
    seed, encrypted_seed = shared(key, name)
    cipher = Cipher(algorithms.AES(kdfa(name, seed, b"STORAGE", object_name, b"", bits)), modes.CFB(bytes(16)))
    encryptor = cipher.encryptor()
    encrypted = encryptor.update(sized(sensitive)) + encryptor.finalize()
    integrity = kdfa(name, seed, b"INTEGRITY", b"", b"", 8 * len(seed))
    outer = hmac.new(integrity, encrypted + object_name, name).digest()
    parts = {
        "hmacPubKey": sized(public),
        "duplicate": sized(sized(outer) + encrypted),
        "inSymSeed": sized(encrypted_seed),
    }
    parts = {field: base64.b64encode(content).decode() for field, content in parts.items()}
    message = {
        "bare": parts,
        "enrollz": {"controlCardSelection": {"role": "CONTROL_CARD_ROLE_ACTIVE"}, "key": args.key, "challenge": parts},
        "bootz": {"keyType": args.key, "hmacEncrypted": parts},
    }[args.message]
    json.dump(message, sys.stdout)


def taken(content, count):
    if len(content) < count:
        sys.exit("owner: a structure is cut")
    return content[:count], content[count:]


def taken_sized(content):
    size, rest = taken(content, 2)
    return taken(rest, struct.unpack(">H", size)[0])


def whole(content):
    inner, rest = taken_sized(content)
    if rest:
        sys.exit("owner: further bytes")
    return inner


def verify(args):
    with open(args.secret, "rb") as file:
        secret = file.read()
    with open(args.response, "rb") as file:
        message = json.load(file)
    message = message.get("challengeResp") or message.get("hmac") or message
    fields = ("iakPub", "iakCertifyInfo", "iakCertifyInfoSignature")
    public, certify, signature = (base64.b64decode(message[field], validate=True) for field in fields)
    public, certify = whole(public), whole(certify)
    if signature[:4] != bytes.fromhex("0005000B") or len(signature) != 36:
        sys.exit("owner: no TPMT_SIGNATURE by HMAC with SHA-256")
    expected = hmac.new(secret, hashlib.sha256(certify).digest(), "sha256").digest()
    if not hmac.compare_digest(expected, signature[4:]):
        sys.exit("owner: the HMAC is not that of the key")
    head, rest = taken(certify, 6)
    if struct.unpack(">IH", head) != (GENERATED, CERTIFY):
        sys.exit("owner: no statement of TPM2_Certify")
    _signer, rest = taken_sized(rest)
    extra, rest = taken_sized(rest)
    _clock, rest = taken(rest, 25)
    certified, rest = taken_sized(rest)
    qualified, rest = taken_sized(rest)
    if rest:
        sys.exit("owner: further bytes")
    name = public[2:4] + hashlib.new(ALGORITHMS[struct.unpack(">H", public[2:4])[0]], public).digest()
    if certified != name or qualified == name:
        sys.exit("owner: another key is certified")
    json.dump({"name": name.hex(), "public": public.hex(), "extraData": extra.hex()}, sys.stdout)


def main():
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("challenge")
    one.add_argument("ek")
    one.add_argument("secret")
    one.add_argument("--message", default="bare")
    one.add_argument("--key", default="KEY_EK")
    one.add_argument("--attributes", default="00050440")
    one.add_argument("--auth", default="")
    one.add_argument("--scheme", default="0005000B")
    one.add_argument("--other-halves", action="store_true")
    one = verbs.add_parser("verify")
    one.add_argument("secret")
    one.add_argument("response")
    args = parser.parse_args()
    {"challenge": challenge, "verify": verify}[args.verb](args)


main()
