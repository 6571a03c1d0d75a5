"""Measures TLS handshakes in one process. The client's key is used through pkcs11-provider."""

import os

from ground import PEER, PIN, ROOT, Driven, run
from measure import in_turn, median, number, ratio

COUNT = 40


def configuration(ground, name, provider, module):
    """Writes an openssl.cnf for this module, with the settings of the packaged file."""
    path = os.path.join(ground.folder, f"{name}.cnf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"""openssl_conf = openssl_init
[openssl_init]
providers = provider_sect
[provider_sect]
default = default_sect
pkcs11 = pkcs11_sect
[default_sect]
activate = 1
[pkcs11_sect]
module = {provider}
pkcs11-module-path = {module}
pkcs11-module-load-behavior = early
pkcs11-module-block-operations = digest
activate = 1
[req]
distinguished_name = name_sect
[name_sect]
""")
    return path


def certified(ground, name, env, uri):
    """Makes a self-signed certificate for the key."""
    certificate = os.path.join(ground.folder, f"{name}.pem")
    run(["openssl", "req", "-new", "-x509", "-subj", "/CN=client", "-days", "1", "-key", uri, "-out", certificate],
        env)
    return certificate


def handshakes(ground, results):
    """Measures this project's module and tpm2-pkcs11 in turn."""
    provider = run([os.path.join(ROOT, "scripts", "pkcs11-provider")]).stdout.strip()
    fronts, rows = ground.fronts, []
    ours = configuration(ground, "ours", provider, ground.module)
    theirs = configuration(ground, "theirs", provider, PEER)
    for kind in ["ec", "rsa"]:
        pin = f"?pin-value={PIN}"
        cases = [
            ("ours, persistent key", dict(ground.ours(fronts.tpm), OPENSSL_CONF=ours),
             f"pkcs11:token=own;object={kind}-persistent;type=private{pin}"),
            ("ours, sealed key", dict(ground.ours(fronts.tpm), OPENSSL_CONF=ours),
             f"pkcs11:token=own;object={kind}-sealed;type=private{pin}"),
            ("tpm2-pkcs11", dict(ground.peer(fronts.manager()), OPENSSL_CONF=theirs),
             f"pkcs11:token=peer;object={kind};type=private{pin}"),
        ]
        certificates = [certified(ground, f"{kind}-{at}", env, uri) for at, (_, env, uri) in enumerate(cases)]
        for version in ["12", "13"]:
            # A program that ends without C_Finalize leaves a session in the TPM, which has slots for three.
            run(["tpm2_flushcontext", "--loaded-session"], ground.peer(fronts.tpm))
            programs = [Driven([ground.tools["tls"], uri, certificate], env)
                        for (_, env, uri), certificate in zip(cases, certificates)]
            taken = in_turn(7, *[lambda one=one: one.numbers(f"handshake {version} {COUNT}")[0] for one in programs])
            for program in programs:
                program.end()
            for (what, _, _), times in zip(cases, taken):
                rows.append([what, kind.upper(), f"1.{version[1]}", number(COUNT / median(times) * 1e9),
                             f"{ratio(taken[2], times):.2f}"])
            factor = ratio(taken[2], taken[0])
            results.bar(f"handshakes in one process, {kind.upper()}, TLS 1.{version[1]}: beside tpm2-pkcs11", 2.5,
                        factor, f"{factor:.2f}", False)
    results.table("TLS handshakes", "Full handshakes a second in one process that is client and server at once, with a "
                  "client certificate; the server's key is Ed25519 in software.",
                  ["client's key", "kind", "TLS", "a second", "beside tpm2-pkcs11"], rows)
