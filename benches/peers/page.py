"""Writes docs/BENCHMARKS.md and its plot."""

import math
import os
import platform

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 440, 300, 60, 40, 50
COLOURS = ["#1b6ca8", "#d1495b", "#2e8b57", "#e09f3e", "#6a4c93", "#444444", "#17a2b8", "#8d5524", "#7fb800"]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.machine()


def page(results, versions, weight, notes):
    """Returns the whole page. Its layout does not depend on the figures."""
    reached = sum(1 for bar in results.bars if bar[3])
    parts = [f"""# Benchmarks

`scripts/bench` writes this page: one run, one software TPM, all modules in turn. Ratios are medians of
the ratios of rounds, so that a machine that changes its speed changes both sides alike. Counts of TPM
commands and instructions do not depend on load; times do. A chip takes 20 to 200 ms for a command that
takes swtpm less than 1 ms, so for a chip the commands count most, and the section on slow TPMs.

{versions}
## Bars

{reached} of {len(results.bars)} bars are reached in this run.

""", table(["what", "bar", "measured", "reached", "note"],
           [[what, bar, shown, "yes" if ok else "**no**", note] for what, bar, shown, ok, note in results.bars]),
        "\n![How cost grows with keys and with the latency of the TPM](benchmarks.svg)\n"]
    for title, about, head, rows in results.tables:
        parts.append(f"\n## {title}\n\n{about}\n\n{table(head, rows)}")
    parts += [weight, notes]
    return "".join(parts)


def plot(results):
    """Returns two plots side by side. The plot for keys has logarithmic axes, that for latency linear axes."""
    halves = [
        half(results.series.get("keys", {}), 0, "pkcs11-tool with many keys", "pairs", "million instructions", True),
        half(results.series.get("latency", {}), WIDTH + 230, "A TPM that takes longer", "ms more for each command",
             "ms", False),
    ]
    whole = 2 * (WIDTH + 230)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{HEIGHT + 20}" '
            f'viewBox="0 0 {whole} {HEIGHT + 20}" font-family="sans-serif" font-size="11">\n'
            f'<rect width="{whole}" height="{HEIGHT + 20}" fill="white"/>\n' + "".join(halves) + "</svg>\n")


def half(lines, at, title, x_name, y_name, logarithmic):
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    scale = math.log10 if logarithmic else (lambda value: value)
    xs, ys = [scale(x) for x, _ in points], [scale(max(y, 1e-3)) for _, y in points]
    low = math.floor(min(ys)) if logarithmic else 0
    high = math.ceil(max(ys)) if logarithmic else max(ys)

    def place(x, y):
        across = (scale(x) - min(xs)) / ((max(xs) - min(xs)) or 1)
        up = (scale(max(y, 1e-3)) - low) / ((high - low) or 1)
        return at + LEFT + across * (WIDTH - LEFT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)
    out = [f'<text x="{at + LEFT}" y="20" font-size="14">{title}</text>\n']
    ticks = [10 ** power for power in range(low, high + 1)] if logarithmic else \
        [high * part / 4 for part in range(5)]
    for value in ticks:
        _, y = place(points[0][0], value)
        shown = f"{value:,.0f}".replace(",", " ") if value >= 1 or value == 0 else f"{value:g}"
        out.append(f'<line x1="{at + LEFT}" x2="{at + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>\n'
                   f'<text x="{at + LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>\n')
    for value in sorted({x for x, _ in points}):
        x, _ = place(value, points[0][1])
        out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:,}</text>\n'
                   .replace(",", " "))
    out.append(f'<text x="{at + (LEFT + WIDTH) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{x_name}</text>\n'
               f'<text x="{at + LEFT}" y="{TOP - 8}" fill="#666666">{y_name}</text>\n')
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        y = TOP + 8 + 16 * number
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>\n'
                   f'<line x1="{at + WIDTH + 10}" x2="{at + WIDTH + 25}" y1="{y - 4}" y2="{y - 4}" '
                   f'stroke="{colour}" stroke-width="2"/>\n<text x="{at + WIDTH + 30}" y="{y}">{name}</text>\n')
    return "".join(out)


def written(folder, results, versions, weight, notes):
    docs = os.path.join(folder, "docs")
    for name, text in [("BENCHMARKS.md", page(results, versions, weight, notes)), ("benchmarks.svg", plot(results))]:
        new = os.path.join(docs, f".{name}.new")
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, os.path.join(docs, name))
