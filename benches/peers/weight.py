"""Measures the size of the module, by section and by crate."""

import collections
import os
import re
import subprocess
import tempfile

import page
from measure import number


def crate(symbol):
    """Returns the crate of a symbol, as far as its name shows the crate."""
    symbol = symbol.lstrip("<&*(")
    if symbol.startswith("aws_lc"):
        return "aws-lc (C)"
    found = re.match(r"(?:dyn |mut )?([a-z][a-z0-9_]*)::", symbol)
    return found.group(1) if found else "other"


def table(module, results):
    """Returns a section for the page, and adds the limit of the size."""
    with tempfile.NamedTemporaryFile() as stripped:
        subprocess.run(["strip", "-o", stripped.name, module], check=True)
        size = os.path.getsize(stripped.name)
    results.bar("module, stripped: MB", 7, size / 1e6, f"{size / 1e6:.2f}", note="what weighs stands below")
    sections = subprocess.run(["size", "-A", module], capture_output=True, text=True, check=True).stdout
    rows = []
    for line in sections.splitlines():
        words = line.split()
        if len(words) == 3 and words[1].isdigit() and int(words[1]) > 50_000 and not words[0].startswith(".debug"):
            rows.append([f"section `{words[0]}`", number(int(words[1]) / 1000)])
    symbols = subprocess.run(["nm", "--size-sort", "--print-size", "--demangle", module], capture_output=True,
                             text=True).stdout
    crates = collections.Counter()
    for line in symbols.splitlines():
        found = re.match(r"[0-9a-f]+ ([0-9a-f]+) [tTrRdDwW] (.*)", line)
        if found:
            crates[crate(found.group(2))] += int(found.group(1), 16)
    for name, weight in crates.most_common(20):
        rows.append([f"crate `{name}`", number(weight / 1000)])
    return ("\n## What weighs in the module\n\nSections of the file, and code and data by the crate that their symbols "
            "name. A generic function counts for the crate that begins its name.\n\n"
            + page.table(["what", "kB"], rows))
