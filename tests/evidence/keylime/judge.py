"""Judge of evidence: what Keylime's registrar checks of an agent's keys and certificates.

python judge.py certify EVIDENCE UUID      the attestation key certifies the key, with SHA-256(UUID) as nonce
python judge.py challenge EVIDENCE OUT     the registrar's challenge; prints the secret in hexadecimal digits
python judge.py ek EVIDENCE ROOTS          certificates of the endorsement key, by a folder of roots
python judge.py certificates IDEVID IAK ROOTS EVIDENCE
                                             IDevID and IAK certificates, and that they are of these keys
"""

import base64
import hashlib
import json
import sys
import types

# Keylime signs policies with GnuPG, which is no part of this; the package needs GnuPG's headers.
sys.modules["gpg"] = types.ModuleType("gpg")

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from keylime import cert_utils
from keylime.tpm import tpm2_objects, tpm_main


def sized(text):
    content = base64.b64decode(text)
    return len(content).to_bytes(2, "big") + content


def read(path):
    with open(path, "rb") as file:
        return file.read()


def der(path):
    return cert_utils.x509_pem_cert(read(path).decode()).public_bytes(Encoding.DER)


def info(key):
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certify(evidence, uuid):
    key, signer = evidence["key"], evidence["attestationKey"]
    attest, signature = (base64.b64decode(key[part]) for part in ("certify", "signature"))
    nonce = hashlib.sha256(uuid.encode()).digest()
    public, by = sized(key["public"]), sized(signer["public"])
    assert tpm_main.Tpm.verify_tpm_object(public, by, attest, signature, nonce)
    assert tpm_main.Tpm.verify_aik_with_iak(uuid, public, by, attest, signature)
    assert not tpm_main.Tpm.verify_aik_with_iak(uuid + "x", public, by, attest, signature)


def challenge(evidence, out):
    blob, key = tpm_main.Tpm.encrypt_aik_with_ek(
        "device", sized(evidence["ekPublic"]), sized(evidence["attestationKey"]["public"])
    )
    with open(out, "wb") as file:
        file.write(base64.b64decode(blob))
    print(base64.b64decode(key).hex())


def endorsement(evidence, roots):
    found = [base64.b64decode(one) for one in evidence["ekCertificates"]]
    assert found
    for certificate in found:
        assert cert_utils.verify_ek(certificate, roots)


def certificates(idevid, iak, roots, evidence):
    wrong, idevid_key, iak_key = cert_utils.iak_idevid_cert_checks(der(idevid), der(iak), roots)
    assert not wrong, wrong
    of_tpm = [evidence["key"]["public"], evidence["attestationKey"]["public"]]
    for key, public in zip((idevid_key, iak_key), of_tpm):
        assert info(key) == info(tpm2_objects.pubkey_from_tpm2b_public(sized(public)))


def main(what, *arguments):
    if what == "certificates":
        *files, evidence = arguments
        certificates(*files, json.loads(read(evidence)))
        return
    evidence, *rest = arguments
    judges = {"certify": certify, "challenge": challenge, "ek": endorsement}
    judges[what](json.loads(read(evidence)), *rest)


main(*sys.argv[1:])
