"""The parts that all measurements use: programs that answer each input line, a TPM with its proxy and
resource managers, and the tokens of three modules on this TPM."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
MULTIARCH = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True).stdout.strip()
PEER = f"/usr/lib/{MULTIARCH}/pkcs11/libtpm2_pkcs11.so"
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "123456"


def run(words, env=None, text=None, check=True):
    """Runs a program to its end and returns its outputs. A failure ends the run with these outputs."""
    done = subprocess.run(words, env=env, input=text, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"bench: {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Ended(SystemExit):
    """A driven program ended early. Ends the run unless the caller catches this exception."""


class Driven:
    """A program that answers each line of its input with a line."""

    def __init__(self, words, env, ready="ready"):
        self.words = words
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(words, env=env, text=True, bufsize=1, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors)
        self.greeting = []
        while ready:
            line = self.line()
            self.greeting.append(line)
            if line.startswith(ready):
                break

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise Ended(f"bench: {' '.join(self.words)} ended: {self.errors.read()}")
        return line.strip()

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        return self.line()

    def numbers(self, line):
        return [float(word) for word in self.ask(line).split()]

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)


class Fronts(Driven):
    """swtpm with a factory identity, a proxy that counts, and resource managers."""

    def __init__(self, program):
        super().__init__([program], dict(os.environ))
        told = dict(line.split(" ", 1) for line in self.greeting if " " in line)
        self.tpm, self.proxy = told["tpm"], told["proxy"]

    def manager(self):
        """Starts a resource manager for one client and returns its TCTI."""
        return self.ask("manager")

    def take(self):
        """Returns the codes of the commands that came through the proxy since the last call."""
        return self.ask("take").split()


class Ground:
    """A TPM, and tokens of three modules that were made for the measurements."""

    def __init__(self, module, fronts, folder):
        self.folder, self.module, self.fronts = folder, module, fronts
        self.tools = {}
        for name, flags in [("host", ["-pthread", "-ldl"]), ("esys", ["-ltss2-esys", "-ltss2-tctildr"]),
                            ("tls", ["-lssl", "-lcrypto"])]:
            self.tools[name] = self.compiled(name, flags)
        self.tools["heap"] = self.compiled("heap", ["-ldl"], os.path.join(ROOT, "tests", "c"))
        self.clean = {name: value for name, value in os.environ.items()
                      if not name.startswith(("DEVID_PKCS11", "TPM2", "SOFTHSM", "OPENSSL"))}
        self.softhsm_env = self.make_softhsm()
        self.home("own")

    def compiled(self, name, flags, place=HERE):
        into = os.path.join(self.folder, name)
        p11 = run(["pkg-config", "--cflags", "p11-kit-1"]).stdout.split()
        run(["gcc", "-std=gnu11", "-O2", "-Wall", "-I", os.path.join(ROOT, "include"), *p11,
             os.path.join(place, name + ".c"), "-o", into, *flags])
        return into

    # This project's module.

    def home(self, name):
        """Makes a folder with settings and state of this project's module."""
        path = os.path.join(self.folder, name)
        for part in ["config.d", "chain", "run", "state"]:
            os.makedirs(os.path.join(path, part), exist_ok=True)
        open(os.path.join(path, "config.toml"), "w").close()
        return path

    def ours(self, tcti, home="own"):
        path = os.path.join(self.folder, home)
        return dict(self.clean, DEVID_PKCS11_CONFIG=f"{path}/config.toml", DEVID_PKCS11_RUN=f"{path}/run",
                    DEVID_PKCS11_STATE=f"{path}/state", DEVID_PKCS11_TCTI=tcti)

    def our_host(self, token, pin="-", tcti=None, home="own"):
        return self.host(self.module, token, pin, self.ours(tcti or self.fronts.tpm, home))

    def host(self, module, token, pin, env):
        return Driven([self.tools["host"], module, token, pin], env)

    def set_pins(self):
        """Sets the PINs of the token devid, which then has the label `own`."""
        env = self.ours(self.fronts.tpm)
        tool = ["pkcs11-tool", "--module", self.module]
        run([*tool, "--init-token", "--slot-index", "1", "--label", "own", "--so-pin", "87654321"], env)
        run([*tool, "--token-label", "own", "--login", "--login-type", "so", "--so-pin", "87654321",
             "--init-pin", "--new-pin", PIN], env)

    # tpm2-pkcs11.

    def peer(self, tcti):
        return dict(self.clean, TPM2_PKCS11_STORE=os.path.join(self.folder, "peer"), TPM2_PKCS11_TCTI=tcti,
                    TPM2TOOLS_TCTI=tcti, TPM2_PKCS11_LOG_LEVEL="0", TSS2_LOG="all+none")

    def make_peer(self):
        """Makes a token of tpm2-pkcs11 below the existing storage root key."""
        os.makedirs(os.path.join(self.folder, "peer"))
        env = self.peer(self.fronts.manager())
        store = ["--path", os.path.join(self.folder, "peer")]
        run(["tpm2_ptool", "init", "--primary-handle", "0x81000001", *store], env)
        run(["tpm2_ptool", "addtoken", "--pid=1", "--sopin=" + PIN, "--userpin=" + PIN, "--label=peer", *store],
            env)

    def peer_host(self, tcti=None, pin=PIN):
        return self.host(PEER, "peer", pin, self.peer(tcti or self.fronts.manager()))

    # SoftHSM.

    def make_softhsm(self):
        tokens = os.path.join(self.folder, "tokens")
        os.makedirs(tokens)
        conf = os.path.join(self.folder, "softhsm2.conf")
        with open(conf, "w", encoding="utf-8") as file:
            file.write(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
        env = dict(self.clean, SOFTHSM2_CONF=conf)
        run(["softhsm2-util", "--init-token", "--free", "--label", "soft", "--pin", PIN, "--so-pin", PIN], env)
        return env

    def softhsm_host(self):
        return self.host(SOFTHSM, "soft", PIN, self.softhsm_env)

    # TPM commands without a PKCS#11 module.

    def esys(self, kind, place, auth, tcti=None, handle="81000900"):
        words = [self.tools["esys"], tcti or self.fronts.tpm, kind, place, auth, handle]
        return Driven(words, dict(self.clean, TSS2_LOG="all+none"))

    # Whole processes.

    def instructions(self, words, env, text=None):
        """Returns the number of instructions of a process in user space."""
        done = run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *words], env, text)
        return int(re.search(r"Collected : (\d+)", done.stderr).group(1))

    def calls(self, words, env, text, function):
        """Returns how often a process calls the functions whose names contain `function`."""
        listed = os.path.join(self.folder, "calls")
        run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={listed}", "--compress-strings=no", *words], env,
            text)
        count, called = 0, ""
        with open(listed, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("cfn="):
                    called = line
                elif line.startswith("calls=") and function in called:
                    count += int(line[len("calls="):].split()[0])
        return count

    def memory(self, words, env):
        """Returns the maximum resident memory of a process in kB, as GNU time reports it."""
        done = run(["time", "-f", "%M", *words], env)
        return int(done.stderr.strip().splitlines()[-1])

    def commands(self, words, env, text=None):
        """Returns the number of TPM commands of a process. Its environment must name the proxy."""
        self.fronts.take()
        run(words, env, text)
        return len(self.fronts.take())


def temporary():
    """Makes a temporary folder, in memory if possible, so that the disk does not affect the figures."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.mkdtemp(prefix="bench-", dir=place)


def removed(folder):
    shutil.rmtree(folder, ignore_errors=True)
