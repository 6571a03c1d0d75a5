"""sign.py MESSAGE SIGNATURE [pss]: by python-pkcs11, with the device's key; the signature is DER for ECDSA."""
import os
import sys

import pkcs11
from pkcs11.util.ec import encode_ecdsa_signature

message, out = sys.argv[1:3]
pss = sys.argv[3:] == ["pss"]
library = pkcs11.lib(os.environ["MODULE"])
token = library.get_token(token_label=os.environ["TOKEN_LABEL"])
data = open(message, "rb").read()
with token.open(rw=True, user_pin=os.environ["PIN"] or None) as session:
    key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=os.environ["KEY_LABEL"])
    public = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=os.environ["KEY_LABEL"])
    certificates = list(
        session.get_objects(
            {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE, pkcs11.Attribute.LABEL: os.environ["KEY_LABEL"]}
        )
    )
    assert len(certificates) == 1, certificates
    if key.key_type == pkcs11.KeyType.EC:
        signature = key.sign(data, mechanism=pkcs11.Mechanism.ECDSA_SHA256)
        assert public.verify(data, signature, mechanism=pkcs11.Mechanism.ECDSA_SHA256)
        signature = encode_ecdsa_signature(signature)
    elif pss:
        parameters = (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, 32)
        signature = key.sign(data, mechanism=pkcs11.Mechanism.SHA256_RSA_PKCS_PSS, mechanism_param=parameters)
    else:
        signature = key.sign(data, mechanism=pkcs11.Mechanism.SHA256_RSA_PKCS)
        assert public.verify(data, signature, mechanism=pkcs11.Mechanism.SHA256_RSA_PKCS)
open(out, "wb").write(signature)
