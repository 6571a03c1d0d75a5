"""Measures signatures: latency, CPU time, instructions, throughput, and reads of attributes during them."""

import sys

from ground import PEER, PIN, SOFTHSM, Ended, run
from measure import awake, in_turn, median, number, ratio

# Each pair of processes stays on its processors, so several pairs are compared.
PAIRS, ROUNDS = 5, 3


def make_keys(ground):
    """Makes keys of each type, in each storage, with each module. The first key makes the storage root key."""
    ground.set_pins()
    ours = ground.our_host("own", PIN)
    for kind in ["ec", "rsa"]:
        for place in ["plain", "persistent", "sealed"]:
            ours.ask(f"make {kind}-{place} {kind} open {place}")
        ours.ask(f"make {kind}-pin {kind} private persistent")
    ours.end()
    ground.make_peer()
    for host in [ground.peer_host(), ground.softhsm_host()]:
        for kind in ["ec", "rsa"]:
            host.ask(f"make {kind} {kind} private plain")
        host.end()


def opened(host, key, kind):
    host.ask(f"key {key}")
    host.ask(f"by {kind}")
    host.ask("sign 3")
    return host


@awake()
def latency(ground, results):
    """Measures each key of this project's module in turn with an equal key of another program."""
    fronts = ground.fronts
    rows = []

    def beside(what, kind, start, start_other, other_name, count, bar=None, is_upper=True):
        one, two = [], []
        for _ in range(PAIRS):
            ours, other = start(), start_other()
            pair = in_turn(ROUNDS, lambda: ours.numbers(f"sign {count}"), lambda: other.numbers(f"sign {count}"))
            for side, figures in zip((one, two), pair):
                side.extend(figures)
            ours.end()
            other.end()
        # The ratio of the rates of signatures is the inverse of the ratio of their times.
        factor = ratio([x[0] for x in one], [x[0] for x in two])
        figures = [median(x[at] for x in side) / 1000 for side in (one, two) for at in (0, 3)]
        rows.append([what, kind.upper(), number(figures[0]), number(figures[1]), other_name, number(figures[2]),
                     number(figures[3]), f"{factor:.2f}"])
        if bar:
            shown = factor if is_upper else 1 / factor
            results.bar(f"{what}, {kind.upper()}: {'time' if is_upper else 'signatures a second'} beside {other_name}",
                        bar, shown, f"{shown:.2f}", is_upper)

    def our(key, kind, is_managed=False, token="own"):
        return lambda: opened(ground.our_host(token, PIN if key.endswith("pin") else "-",
                                              fronts.manager() if is_managed else None), key, kind)

    def raw_command(kind, *place, is_managed=False):
        return lambda: ground.esys(kind, *place, fronts.manager() if is_managed else None)

    for kind, count in [("ec", 60), ("rsa", 20)]:
        raw, managed = "raw TPM2_Sign", "wrapped key behind a resource manager"
        if kind == "ec":
            beside("factory key, no PIN", kind, our("idev-id", kind, token="idev-id"),
                   raw_command(kind, "persistent", "open"), raw, count, 1.05)
        beside("persistent key, no PIN", kind, our(f"{kind}-persistent", kind),
               raw_command(kind, "persistent", "open"), raw, count, 1.05)
        beside(managed, kind, our(f"{kind}-plain", kind, True), raw_command(kind, "loaded", "open", is_managed=True),
               raw, count, 1.05)
        beside("wrapped key on a bare TPM", kind, our(f"{kind}-plain", kind),
               raw_command(kind, "file", "open"), "raw Load, Sign, FlushContext", count, 1.05)
        beside("persistent key with PIN", kind, our(f"{kind}-pin", kind),
               raw_command(kind, "persistent", "value"), "raw StartAuthSession, Sign", count, 1.1)
        beside("sealed key", kind, our(f"{kind}-sealed", kind), lambda: opened(ground.softhsm_host(), kind, kind),
               "SoftHSM", count * 4, 0.9 if kind == "ec" else None, False)
        beside(managed, kind, our(f"{kind}-plain", kind, True), lambda: opened(ground.peer_host(), kind, kind),
               "tpm2-pkcs11", count)
    results.table("A signature", "Median µs of wall time and mean µs of own CPU time of one C_SignInit and C_Sign "
                  "(CKM_ECDSA or CKM_SHA256_RSA_PKCS), and the median of the ratios of rounds in turn. "
                  "Loops of the lowest priority (SCHED_IDLE) keep the processors awake.",
                  ["key of ours", "kind", "µs", "own CPU", "beside", "µs", "own CPU", "ratio"], rows)


def instructions(ground, results):
    """Counts the instructions of a repeated signature, as the difference of two counts."""
    rows = []

    def each(what, words, env, key, kind, bar=None):
        def count(signatures):
            text = f"key {key}\nby {kind}\nsign {signatures}\n"
            return ground.instructions(words, env, text)
        cost = (count(25) - count(5)) / 20
        rows.append([what, kind.upper(), number(cost)])
        if bar:
            results.bar(f"instructions of a signature: {what}, {kind.upper()}", bar, cost, number(cost))
        return cost

    host, fronts = ground.tools["host"], ground.fronts
    env = ground.ours(fronts.tpm)
    own = [host, ground.module, "own"]
    each("factory key", [host, ground.module, "idev-id", "-"], env, "idev-id", "ec", 20_000)
    for kind in ["ec", "rsa"]:
        each("persistent key, no PIN", [*own, "-"], env, f"{kind}-persistent", kind, 20_000)
        each("wrapped key behind a resource manager", [*own, "-"], ground.ours(fronts.manager()), f"{kind}-plain",
             kind, 20_000)
        each("wrapped key on a bare TPM", [*own, "-"], env, f"{kind}-plain", kind)
        each("persistent key with PIN", [*own, PIN], env, f"{kind}-pin", kind, 150_000)
        each("sealed key", [*own, "-"], env, f"{kind}-sealed", kind)
        each("tpm2-pkcs11", [host, PEER, "peer", PIN], ground.peer(fronts.manager()), kind, kind)
        each("SoftHSM", [host, SOFTHSM, "soft", PIN], ground.softhsm_env, kind, kind)
    each_time = [ground.calls([*own, "-"], env, f"key rsa-sealed\nby rsa\nsign {count}\n", "RSA_parse_private_key")
                 for count in (1, 5)]
    parsed = (each_time[1] - each_time[0]) / 4
    results.bar("sealed key, RSA: the key is parsed in a signature, times", 0, parsed, number(parsed),
                note="A parsed key would stay in memory that may be swapped out, and holds a lock. See below.")
    results.table("Instructions of a signature", "In user space of the calling process, by callgrind: the "
                  "difference between 25 and 5 signatures, divided by 20. Independent of load.",
                  ["key", "kind", "instructions"], rows)


def until_the_peer_fails(what, counts, measure):
    """Measures each count. tpm2-pkcs11 fails with several threads or processes; then no further count is tried."""
    row = []
    for count in counts:
        try:
            row.append(number(measure(count)))
        except Ended as ended:
            if what != "tpm2-pkcs11":
                raise
            print(ended, file=sys.stderr)
            return row + ["fails"] * (len(counts) - len(row))
    return row


def throughput(ground, results):
    """Measures signatures per second with several threads and with several processes."""
    rows = []
    makers = [
        ("factory key", lambda: opened(ground.our_host("idev-id"), "idev-id", "ec"), 1200),
        ("wrapped key on a bare TPM", lambda: opened(ground.our_host("own"), "ec-plain", "ec"), 480),
        ("sealed key", lambda: opened(ground.our_host("own"), "ec-sealed", "ec"), 960),
        ("tpm2-pkcs11", lambda: opened(ground.peer_host(), "ec", "ec"), 96),
        ("SoftHSM", lambda: opened(ground.softhsm_host(), "ec", "ec"), 960),
    ]
    counts = [1, 2, 4, 8, 16]
    for what, make, total in makers:
        host = make()

        def by_threads(count):
            figures, = in_turn(3, lambda: total / host.numbers(f"threads {count} {total}")[0] * 1e9)
            return median(figures)

        def by_processes(count):
            # Each process has its own resource manager, so all processes can work at the same time.
            hosts = []
            try:
                hosts.extend(make() for _ in range(count))
                for one in hosts:
                    one.process.stdin.write(f"threads 1 {total // count}\n")
                return total // count * count / max(float(one.line()) for one in hosts) * 1e9
            finally:
                for one in hosts:
                    one.end()

        rows.append([what, "threads", *until_the_peer_fails(what, counts, by_threads)])
        host.end()
        # A process of tpm2-pkcs11 that failed leaves its sessions in the TPM.
        run(["tpm2_flushcontext", "-T", ground.fronts.tpm, "--loaded-session"])
        rows.append([what, "processes", *until_the_peer_fails(what, counts, by_processes)])
    results.table("Signatures a second", "P-256, all threads or processes together. A TPM runs one command at a time.",
                  ["key", "by", *map(str, counts)], rows)


def attributes(ground, results):
    """Measures reads of attributes while another thread waits for a TPM that needs 200 ms per command."""
    ground.fronts.ask("delay 200")
    host = opened(ground.our_host("idev-id", tcti=ground.fronts.proxy), "idev-id", "ec")
    middle, high, most, count = host.numbers("attributes 10")
    host.end()
    ground.fronts.ask("delay 0")
    results.bar("C_GetAttributeValue beside a signature of 200 ms: 99th percentile, µs", 100, high / 1000,
                number(high / 1000))
    results.table("Attributes while the TPM works", "Two attributes of a key, read while another thread signs on a "
                  "TPM with 200 ms a command.", ["reads", "median µs", "99th percentile µs", "longest µs"],
                  [[number(count), number(middle / 1000), number(high / 1000), number(most / 1000)]])
