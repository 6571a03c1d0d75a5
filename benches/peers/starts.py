"""Measures whole processes, TPM commands of each phase, many keys, and slow TPMs."""

import os
import re
import shutil

from ground import PEER, PIN, ROOT, SOFTHSM, run
from measure import in_turn, median, number, process, ratio
from signing import opened

KEYS = [1, 10, 100, 1000]
MOST_KEYS = 10_000
DELAYS = [0, 30, 150]


def tool(module, *words):
    return ["pkcs11-tool", "--module", module, *words]


def signing(ground, module, token, label, *login):
    data = os.path.join(ground.folder, "digest")
    with open(data, "wb") as file:
        file.write(b"\x5a" * 32)
    return tool(module, "--token-label", token, *login, "--sign", "--mechanism", "ECDSA", "--label", label,
                "--input-file", data, "--output-file", os.path.join(ground.folder, "signature"))


def by_id(words, identifier):
    """Returns the command with the key's CKA_ID: pkcs11-tool --sign reads no other attribute."""
    at = words.index("--label")
    return [*words[:at], "--id", identifier.encode().hex(), *words[at + 2:]]


def cold(ground, results):
    """Measures pkcs11-tool from its start to its end."""
    fronts, login = ground.fronts, ["--login", "--pin", PIN]
    manager = fronts.manager()
    cases = [
        ("ours, factory key", ground.ours(fronts.tpm), ground.ours(fronts.proxy),
         tool(ground.module, "--token-label", "idev-id", "-O"),
         signing(ground, ground.module, "idev-id", "idev-id")),
        ("ours, key with PIN", ground.ours(fronts.tpm), ground.ours(fronts.proxy),
         tool(ground.module, "--token-label", "own", *login, "-O"),
         by_id(signing(ground, ground.module, "own", "ec-pin", *login), "ec-pin")),
        ("SoftHSM", ground.softhsm_env, None, tool(SOFTHSM, "--token-label", "soft", *login, "-O"),
         by_id(signing(ground, SOFTHSM, "soft", "ec", *login), "ec")),
        ("tpm2-pkcs11", ground.peer(manager), ground.peer(fronts.proxy),
         tool(PEER, "--token-label", "peer", *login, "-O"),
         by_id(signing(ground, PEER, "peer", "ec", *login), "ec")),
    ]
    rows, figures = [], {}
    for what, at in [("-O", 3), ("--sign", 4)]:
        taken = in_turn(7, *[lambda case=case: process(case[at], case[1]) for case in cases])
        for case, times in zip(cases, taken):
            cost = ground.instructions(case[at], case[1])
            memory = median(ground.memory(case[at], case[1]) for _ in range(3))
            sent = ground.commands(case[at], case[2]) if case[2] else 0
            figures[case[0], what] = cost, memory
            rows.append([case[0], what, number(median(x[0] for x in times)), number(median(x[1] for x in times)),
                         number(cost), number(memory), number(sent)])
    results.table("Cold start of pkcs11-tool", "From the start of the process to its end. tpm2-pkcs11 and SoftHSM log "
                  "in, since their keys are behind a PIN.",
                  ["module", "pkcs11-tool", "wall ms", "CPU ms", "instructions", "most memory kB", "TPM commands"],
                  rows)
    (ours, our_memory), (softhsm, their_memory) = (figures[name, "--sign"] for name in ["ours, factory key", "SoftHSM"])
    results.bar("cold pkcs11-tool --sign, factory key: instructions beside SoftHSM", 0.25, ours / softhsm,
                f"{ours / softhsm:.3f}")
    results.bar("cold pkcs11-tool --sign, factory key: memory beside SoftHSM", 1, our_memory / their_memory,
                f"{our_memory / their_memory:.3f}")


def phases(ground, results):
    """Counts the TPM commands of each phase of a process."""
    fronts = ground.fronts
    rows = []

    def count(what, start, key, kind):
        fronts.take()
        host = start()
        begun = len(fronts.take())
        host.ask(f"key {key}")
        host.ask(f"by {kind}")
        found = len(fronts.take())
        host.ask("sign 1")
        first = len(fronts.take())
        host.ask("sign 10")
        each = len(fronts.take()) / 10
        host.end()
        rows.append([what, number(begun), number(found), number(first), number(each), number(len(fronts.take()))])
        return each

    count("ours, factory key", lambda: ground.our_host("idev-id", tcti=fronts.proxy), "idev-id", "ec")
    for kind in ["ec", "rsa"]:
        for place in ["persistent", "plain", "sealed"]:
            each = count(f"ours, {kind} {place}, no PIN", lambda: ground.our_host("own", tcti=fronts.proxy),
                         f"{kind}-{place}", kind)
            if place == "plain":
                results.bar(f"wrapped key on a bare TPM, {kind.upper()}: commands of a signature", 3, each, number(each))
    count("ours, ec persistent, PIN", lambda: ground.our_host("own", PIN, fronts.proxy), "ec-pin", "ec")
    count("tpm2-pkcs11, ec", lambda: ground.peer_host(fronts.proxy), "ec", "ec")
    count("tpm2-pkcs11, rsa", lambda: ground.peer_host(fronts.proxy), "rsa", "rsa")
    results.table("TPM commands by phase", "On a bare TPM, counted by a proxy. The start is C_Initialize, "
                  "C_OpenSession and, with a PIN, C_Login.",
                  ["key", "start", "search", "first signature", "each further", "end"], rows)
    fronts.take()
    ground.our_host("own", tcti=fronts.proxy).end()
    open_ = len(fronts.take())
    ground.our_host("own", PIN, fronts.proxy).end()
    login = len(fronts.take()) - open_
    results.bar("C_Login on a bare TPM: commands", 4, login, number(login),
                note="The counters must be read, since other processes try PINs, too. A seal that counts wrong PINs "
                     "is loaded and flushed, since all share three slots. A session hides the PIN. See below.")


def many_keys(ground, results):
    """Measures listings and first signatures with an increasing number of keys."""
    rows, ours, theirs = [], {}, {}
    fronts = ground.fronts
    home = ground.home("many")
    env = ground.ours(fronts.tpm, "many")
    host = ground.our_host("devid", home="many")
    host.ask("make key-0 ec open plain")
    host.end()
    folder = os.path.join(home, "state", "devid")
    original, = [name for name in os.listdir(folder) if name.endswith(".pem")]
    with open(os.path.join(folder, original), encoding="utf-8") as file:
        text = file.read()
    made = 1

    def sizes(words, listing, env):
        return (ground.instructions(listing, env), ground.memory(listing, env),
                ground.instructions(words, env), ground.memory(words, env),
                median(process(words, env)[0] for _ in range(5)))

    for keys in [*KEYS, MOST_KEYS]:
        while made < keys:
            name = f"key-{made}"
            copy = text.replace("Label: key-0\n", f"Label: {name}\n")
            copy = re.sub(r"^ID: .*$", f"ID: {name.encode().hex()}", copy, flags=re.MULTILINE)
            with open(os.path.join(folder, f"copy-{made}.pem"), "w", encoding="utf-8") as file:
                file.write(copy)
            made += 1
        words = by_id(signing(ground, ground.module, "devid", "x"), f"key-{keys - 1}")
        ours[keys] = sizes(words, tool(ground.module, "--token-label", "devid", "-O"), env)
    # tpm2-pkcs11 makes its keys itself, behind a resource manager, where its keys stay loaded.
    shutil.copytree(os.path.join(ground.folder, "peer"), os.path.join(ground.folder, "peer-kept"))
    host, made = ground.peer_host(), 0
    manager = fronts.manager()
    for keys in KEYS:
        while made < keys:
            host.ask(f"make many-{made} ec private plain")
            made += 1
        login = ["--login", "--pin", PIN]
        words = by_id(signing(ground, PEER, "peer", "x", *login), f"many-{keys - 1}")
        theirs[keys] = sizes(words, tool(PEER, "--token-label", "peer", "-O"), ground.peer(manager))
    host.end()
    # The next measurements need the earlier store.
    shutil.rmtree(os.path.join(ground.folder, "peer"))
    os.rename(os.path.join(ground.folder, "peer-kept"), os.path.join(ground.folder, "peer"))
    for keys in [*KEYS, MOST_KEYS]:
        for what, all_figures in [("ours", ours), ("tpm2-pkcs11", theirs)]:
            if keys in all_figures:
                listing, memory, sign, sign_memory, wall = all_figures[keys]
                rows.append([number(keys), what, number(listing), number(memory), number(sign), number(sign_memory),
                             number(wall)])
                results.point("keys", f"{what}: list", keys, listing / 1e6)
                results.point("keys", f"{what}: sign", keys, sign / 1e6)
    results.table("Many keys", "pkcs11-tool -O and --sign with the last of so many P-256 pairs, whole processes.",
                  ["pairs", "module", "list: instructions", "list: kB", "sign: instructions", "sign: kB",
                   "sign: wall ms"], rows)
    many = KEYS[-1]
    per_key = [(figures[many][0] - figures[1][0]) / (many - 1) for figures in (ours, theirs)]
    factor = ours[many][0] / theirs[many][0]
    results.bar(f"{many} pairs listed: instructions beside tpm2-pkcs11", 0.1, factor, f"{factor:.3f}", note=f"{number(per_key[0])} and {number(per_key[1])} a pair")
    growth = (ours[MOST_KEYS][0] - ours[many][0]) / (MOST_KEYS - many) / per_key[0]
    results.bar(f"growth from {many} to {MOST_KEYS} pairs beside that from 1 to {many}, a pair", 1.1, growth, f"{growth:.2f}",
                note="1 is linear")
    alone(ground)
    heap(ground, results)
    first_signatures(ground, results)


def alone(ground):
    """Makes a folder with one key, and leaves 1000 in the other folder."""
    one = ground.home("alone")
    many = os.path.join(ground.folder, "many", "state", "devid")
    shutil.copytree(many, os.path.join(one, "state", "devid"),
                    ignore=lambda _, names: [name for name in names if name.startswith("copy-")])
    for number_ in range(KEYS[-1], MOST_KEYS):
        os.remove(os.path.join(many, f"copy-{number_}.pem"))


def heap(ground, results):
    """Measures the heap of a listed pair by the program of the gate (tests/process/heap.rs)."""
    with open(os.path.join(ROOT, "testkit", "src", "budgets.rs"), encoding="utf-8") as file:
        budget = int(re.search(r"HEAP_OF_A_KEY: u64 = ([0-9_]+);", file.read()).group(1).replace("_", ""))

    def listed(home):
        words = [ground.tools["heap"], ground.module, "1"]
        return [int(word) for word in run(words, ground.ours(ground.fronts.tpm, home)).stdout.split()]
    (objects, one), (more, all_bytes) = listed("alone"), listed("many")
    each = (all_bytes - one) / ((more - objects) / 2)
    results.bar("heap of a listed pair: bytes", budget, each, number(each),
                note="The bar is the limit of the gate in CI.")


def first_signatures(ground, results):
    """Measures the first signature of a process that knows its key, with 1000 key pairs and with one."""
    def one(home, key):
        host = ground.our_host("devid", home=home)
        host.ask(f"key {key}")
        took = host.numbers("sign 1")[0]
        host.end()
        return took
    lone, crowd = in_turn(9, lambda: one("alone", "key-0"), lambda: one("many", f"key-{KEYS[-1] - 1}"))
    factor = ratio(crowd, lone)
    results.bar(f"first C_SignInit and C_Sign of a process with {KEYS[-1]} pairs beside one with 1: time", 1.2, factor,
                f"{factor:.2f}")


def slow_tpms(ground, results):
    """Measures equal work on TPMs that need more time per command, as TPM chips do."""
    fronts, rows = ground.fronts, []
    login = ["--login", "--pin", PIN]
    proxy = ground.ours(fronts.proxy)
    starts = [
        ("ours, factory key: cold --sign", proxy, signing(ground, ground.module, "idev-id", "idev-id")),
        ("ours, PIN: cold --sign", proxy, by_id(signing(ground, ground.module, "own", "x", *login), "ec-pin")),
        ("tpm2-pkcs11: cold --sign", ground.peer(fronts.proxy),
         by_id(signing(ground, PEER, "peer", "x", *login), "ec")),
    ]
    steady = [
        ("ours, factory key: signature", lambda: ground.our_host("idev-id", tcti=fronts.proxy), "idev-id", "ec"),
        ("ours, wrapped on a bare TPM: signature", lambda: ground.our_host("own", tcti=fronts.proxy), "ec-plain", "ec"),
        ("ours, wrapped behind a manager: signature", lambda: ground.our_host("own", tcti=fronts.manager()),
         "ec-plain", "ec"),
        ("ours, PIN: signature", lambda: ground.our_host("own", PIN, fronts.proxy), "ec-pin", "ec"),
        ("ours, sealed: signature", lambda: ground.our_host("own", tcti=fronts.proxy), "ec-sealed", "ec"),
        ("tpm2-pkcs11: signature", lambda: ground.peer_host(fronts.proxy), "ec", "ec"),
    ]
    taken = {}
    for delay in DELAYS:
        fronts.ask(f"delay {delay}")
        for what, env, words in starts:
            taken[what, delay] = median(process(words, env)[0] for _ in range(1 if delay else 5))
        for what, start, key, kind in steady:
            host = opened(start(), key, kind)
            taken[what, delay] = host.numbers("sign 5")[0] / 1e6
            host.end()
    fronts.ask("delay 0")
    for what in [case[0] for case in [*starts, *steady]]:
        rows.append([what, *[number(taken[what, delay]) for delay in DELAYS]])
        for delay in DELAYS:
            results.point("latency", what, delay, taken[what, delay])
    results.table("Slow TPMs", "Wall ms where each TPM command takes so much longer.",
                  ["work", *[f"+{delay} ms" for delay in DELAYS]], rows)
