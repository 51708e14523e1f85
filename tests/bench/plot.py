# SPDX-License-Identifier: GPL-2.0-or-later
"""Panels over one axis of time, as an SVG that needs nothing else."""
import html
import math

WIDTH, LEFT, RIGHT, TOP, GAP, FOOT = 960, 80, 20, 60, 46, 50
COLOURS = ("#2f6fb0", "#c4622d", "#4f8f4f", "#8a5aa8", "#9a8a2c", "#707070")


def text(x, y, words, anchor="start", size=12, colour="#333", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'fill="{colour}" font-weight="{weight}">{html.escape(words)}</text>')


def short(value):
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


class Panel:
    """@low and @high bound a logarithmic axis; what is outside is drawn at its edge."""

    def __init__(self, title, height, low=None, high=None, unit=""):
        self.title, self.height, self.low, self.high, self.unit = title, height, low, high, unit
        self.lines, self.bands, self.levels = [], [], []

    def line(self, points, name, steps=False, faint=False):
        """@points: (seconds, value or None for a gap)"""
        self.lines.append((points, name, steps, faint))

    def band(self, begin_s, end_s, name):
        self.bands.append((begin_s, end_s, name))

    def level(self, value, name):
        self.levels.append((value, name))


class Plot:
    def __init__(self, title, subtitle, seconds):
        self.title, self.subtitle, self.seconds = title, subtitle, seconds
        self.panels, self.marks = [], []

    def x(self, seconds):
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(seconds / self.seconds, 0), 1)

    def write(self, path):
        height = TOP + FOOT + sum(p.height + GAP for p in self.panels) - GAP
        out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
               'font-family="sans-serif">',
               f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
               text(LEFT, 22, self.title, size=15, weight="bold"), text(LEFT, 40, self.subtitle)]
        top = TOP + 10
        for p in self.panels:
            out += self.draw(p, top)
            top += p.height + GAP
        out += self.time_axis(top - GAP)
        out.append("</svg>")
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(out) + "\n")

    def time_axis(self, bottom):
        step = 5 if self.seconds <= 120 else 30
        out = [text(self.x(t), bottom + 16, f"{t}", "middle", 11)
               for t in range(0, int(self.seconds) + 1, step)]
        return out + [text(WIDTH - RIGHT, bottom + 32, "seconds", "end", 11)]

    def draw(self, p, top):
        right, bottom = WIDTH - RIGHT, top + p.height
        out = [text(LEFT, top - 8, p.title, weight="bold")]
        for t in self.marks:
            out.append(f'<line x1="{self.x(t):.1f}" x2="{self.x(t):.1f}" y1="{top}" '
                       f'y2="{bottom}" stroke="#999" stroke-dasharray="2 3"/>')
        if p.bands:
            out += self.draw_bands(p, top)
        if p.low:
            out += self.draw_scale(p, top)
            out += self.draw_lines(p, top)
        out.append(f'<rect x="{LEFT}" y="{top}" width="{right - LEFT}" height="{p.height}" '
                   'fill="none" stroke="#bbb"/>')
        return out

    def y(self, p, top, value):
        value = min(max(value, p.low), p.high)
        share = math.log(value / p.low) / math.log(p.high / p.low)
        return top + p.height * (1 - share)

    def draw_scale(self, p, top):
        out = []
        for power in range(math.ceil(math.log10(p.low)), math.floor(math.log10(p.high)) + 1):
            y = self.y(p, top, 10 ** power)
            out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                       'stroke="#eee"/>')
            out.append(text(LEFT - 6, y + 4, short(10.0 ** power) + p.unit, "end", 11))
        for value, name in p.levels:
            y = self.y(p, top, value)
            out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                       'stroke="#b03030" stroke-dasharray="6 4"/>')
            out.append(text(WIDTH - RIGHT - 4, y - 4, name, "end", 11, "#b03030"))
        return out

    def draw_bands(self, p, top):
        names = list(dict.fromkeys(name for _, _, name in p.bands))
        out = []
        for begin, end, name in p.bands:
            x, width = self.x(begin), self.x(end) - self.x(begin)
            colour = COLOURS[names.index(name) % len(COLOURS)]
            out.append(f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{p.height}" '
                       f'fill="{colour}" fill-opacity="0.25"/>')
            if width > 7 * len(name):
                out.append(text(x + 4, top + 14, name, size=11, colour=colour))
        return out

    def draw_lines(self, p, top):
        out = []
        for number, (points, name, steps, faint) in enumerate(p.lines):
            colour = COLOURS[number % len(COLOURS)]
            look = f'fill="none" stroke="{colour}" stroke-width="{1 if faint else 1.8}"'
            if faint:
                look += ' stroke-opacity="0.6"'
            out.append(f'<path d="{self.path(p, top, points, steps)}" {look}/>')
            out.append(text(WIDTH - RIGHT - 150 * (len(p.lines) - number), top - 8, "— " + name,
                            size=11, colour=colour))
        return out

    def path(self, p, top, points, steps):
        words, pen = [], False
        for t, value in points:
            if value is None:
                pen = False
                continue
            x, y = f"{self.x(t):.1f}", f"{self.y(p, top, value):.1f}"
            if pen and steps:
                words.append(f"H{x}V{y}")
            else:
                words.append(f"{'L' if pen else 'M'}{x} {y}")
            pen = True
        return "".join(words)
