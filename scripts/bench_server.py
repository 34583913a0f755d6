#!/usr/bin/env python3
"""The Python part of bench-server, which runs and measures the servers.

Started by bench-server, which creates the namespaces and the working directory, and removes them.
"""

import dataclasses
import itertools
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

from dhcp_servers import FIRST, LAST, THREADS, Server, Setup, arguments, perfdhcp_command, perfdhcp_report
from real_servers import Failure

# Maximum ratio of dropped exchanges at a server's highest rate.
DROPS = 0.01
# Minimum ratio of the rate that perfdhcp sends to the requested one, for a valid trial.
SENT = 0.9
FIRST_RATE = 500
FIRST_RATE_WITH_DATABASE = 50
# The factor between rates until too much is dropped, and the number of halvings after that.
STEP = 1.5
HALVINGS = 3
LAST_RATE = 100_000
# Seconds that perfdhcp waits for the last answers; later ones count as dropped.
WAIT = 1.0
# The ratio of the rate at which a server is filled to its highest rate.
FILL = 0.7
# Exchanges before a trial with a database, for which the servers open their sessions.
FIRST_EXCHANGES = 20
# Minimum seconds of the trial that measures processor time and delays.
COMMON_SECONDS = 10
NAMES = {"ours": "this", "kea": "Kea"}
# The types of databases in connection strings, with the variables and the servers of scripts/databases.
DATABASES = {"postgresql": ("LEASEMGR_POSTGRESQL", "postgresql"), "mysql": ("LEASEMGR_MYSQL", "mariadb")}


@dataclasses.dataclass
class Trial:
    """A load: exchanges requested each second, numbers of those sent and finished, and the processor times of the server and
    of the database."""

    rate: int
    sent: int
    finished: int
    seconds: float
    cpu: float
    database_cpu: float
    text: str

    @property
    def sent_rate(self):
        return self.sent / self.seconds

    @property
    def drops(self):
        """The ratio of unfinished exchanges to those begun."""
        return 1 - min(1, self.finished / self.sent) if self.sent else 1.0

    @property
    def is_sent(self):
        return self.sent_rate >= self.rate * SENT

    @property
    def is_good(self):
        return self.is_sent and self.drops < DROPS


class Database:
    """A server of scripts/databases, with the database of kea-admin."""

    def __init__(self, kind):
        variable, server = DATABASES[kind]
        self.kind = kind
        self.directory = pathlib.Path(os.environ["LEASEMGR_DATABASES"]) / server
        words = (word.split("=", 1) for word in os.environ[variable].split())
        self.keywords = {"type": kind, "name": "kea22", **dict(words)}

    def clear(self):
        """Deletes all leases."""
        tables = [f"lease{family}{end}" for family in (4, 6) for end in ("", "_stat")]
        sql = "; ".join(f"TRUNCATE {table}" for table in tables)
        if self.kind == "postgresql":
            command = ["psql", "-X", "-q", "-h", self.directory, "-p", self.keywords["port"], "-U", "postgres", "-c", sql, "kea22"]
        else:
            socket = f"--socket={self.directory / 'socket'}"
            command = ["mariadb", "--no-defaults", socket, "--user=root", "-e", sql, "kea22"]
        subprocess.run(command, check=True)

    def cpu_seconds(self):
        """Returns the processor time of the server and its child processes, also of those that have ended."""
        leader = int((self.directory / "pid").read_text())
        ticks = 0
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rsplit(") ", 1)[1].split()
            except OSError:
                continue
            is_leader = int(path.parent.name) == leader
            if is_leader or int(fields[1]) == leader:
                ticks += sum(int(field) for field in fields[11 : 15 if is_leader else 13])
        return ticks / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, family, options, database=None):
        self.family = family
        self.options = options
        self.database = database
        self.first_rate = FIRST_RATE_WITH_DATABASE if database else FIRST_RATE
        self.count = 0
        self.trials = {"ours": [], "kea": []}

    def server(self, kind):
        """Returns a new server without leases."""
        self.count += 1
        setup, place = Setup(), ""
        if self.database:
            self.database.clear()
            setup, place = Setup(database=self.database.keywords), f"-{self.database.kind}"
        return Server(kind, self.family, f"{kind}{self.family}{place}-{self.count}", setup, self.options)

    def load(self, server, rate, seconds, first_client=0, options=()):
        """Runs a load of new clients at a rate."""
        command = perfdhcp_command(
            self.options.client_ns,
            self.family,
            rate,
            max(1, int(rate * (seconds + 1))),
            first_client,
            "",
            ("-p", str(seconds), "-W", str(int(WAIT * 1e6)), *options),
        )
        def times():
            return server.cpu_seconds(), self.database.cpu_seconds() if self.database else 0.0

        before = times()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        cpu, database_cpu = (after - start for after, start in zip(times(), before))
        report = perfdhcp_report(done.stdout)
        if FIRST[self.family] not in report:
            raise Failure(f"perfdhcp: {(done.stdout + done.stderr)[-1000:]}")
        finished = report[LAST[self.family]].received if LAST[self.family] in report else 0
        if server.process.poll() is not None:
            raise Failure(f"the server has ended: {server.last_lines()}")
        return Trial(rate, report[FIRST[self.family]].sent, finished, seconds, cpu, database_cpu, done.stdout)

    def warm_up(self, server):
        """Lets a server open its sessions with the database."""
        if self.database:
            self.load(server, FIRST_EXCHANGES, 1, 1 << 21)

    def trial(self, kind, rate, tries=2):
        """Runs a load on a new server; repeats it if too much is dropped, as the machine may have been busy."""
        trials = []
        while not trials or (len(trials) < tries and not trials[-1].is_good):
            with self.server(kind) as server:
                self.warm_up(server)
                trials.append(self.load(server, rate, self.options.seconds))
            last = trials[-1]
            limit = "" if last.is_sent else ", the load generator's limit"
            say(f"    {rate}/s: {last.sent_rate:.0f}/s sent, {last.drops:.2%} dropped{limit}")
        best = max(trials, key=lambda trial: trial.finished)
        self.trials[kind].append(best)
        return best

    def highest_rate(self, kind):
        """Returns the highest rate with few drops, and whether it is limited by the load generator."""
        low, high, limited = None, self.first_rate, False
        before = len(self.trials[kind])
        while high <= LAST_RATE:
            trial = self.trial(kind, high)
            if not trial.is_good:
                limited = trial.drops < DROPS
                break
            low = trial
            high = round_rate(high * STEP)
        if low is None:
            return 0.0, limited
        for _ in range(HALVINGS):
            middle = round_rate(math.sqrt(low.rate * high))
            if middle in (low.rate, high):
                break
            trial = self.trial(kind, middle)
            if trial.is_good:
                low = trial
            else:
                high = middle
                limited = trial.drops < DROPS
        # A trial that sent less than requested, but lost nothing, proves the rate that it sent.
        shown = [t.sent_rate for t in self.trials[kind][before:] if t.drops < DROPS]
        if not self.database:
            # For the plot.
            for n in (1, 2):
                self.trial(kind, round_rate(low.rate * STEP**n), 1)
        return max(shown) if limited else low.sent_rate, limited

    def measure(self, kind):
        place = f" on {self.database.kind}" if self.database else ""
        say(f"DHCPv{self.family}, {self.name(kind)}{place}")
        rates, limits = zip(*(self.highest_rate(kind) for _ in range(self.options.runs)))
        rate = statistics.median(rates)
        result = {"rate": rate, "limited": any(limits)}
        if not rate:
            raise Failure(f"{self.name(kind)} drops too much at {self.first_rate} exchanges a second")
        with self.server(kind) as server:
            result["empty"] = server.resident_bytes()
            self.warm_up(server)
            common = self.options.common_rate
            seconds = max(COMMON_SECONDS, self.options.seconds)
            # perfdhcp prints the times of each exchange, which does not cost time of the server.
            trial = self.load(server, common, seconds, 0, ("-x", "t"))
            result |= {
                "cpu": trial.cpu / trial.finished * 1000 if trial.finished else math.nan,
                "database_cpu": trial.database_cpu / trial.finished * 1000 if trial.finished else math.nan,
                "delay": statistics.median(delays(trial.text)),
                "drops": trial.drops,
            }
            say(f"    {common}/s: {result['cpu']:.3f} s of processor time for 1000 exchanges, {trial.drops:.2%} dropped")
            if self.database:
                return result
            self.fill(server, trial, rate)
            leases = sum(row.state == "assigned" for row in server.leases().values())
            result |= {"leases": leases, "memory": server.resident_bytes()}
            say(f"    {leases} leases: {result['memory'] / 1e6:.1f} MB")
        return result

    def fill(self, server, trial, rate):
        """Loads the server until it has the number of leases. Clients whose exchange was dropped do not count."""
        clients, leases = 1 << 20, trial.finished
        while leases < self.options.leases:
            speed = min(round_rate(rate * FILL), self.options.leases)
            missing = self.options.leases - leases
            seconds = max(1, math.ceil(missing / speed))
            got = self.load(server, speed, seconds, clients, ("-n", str(missing))).finished
            if not got:
                raise Failure("the server no longer answers")
            leases += got
            clients += 1 << 20

    @staticmethod
    def name(kind):
        return NAMES[kind]


def say(text):
    print(text, file=sys.stderr, flush=True)


def round_rate(rate):
    """Rounds to two and a half digits, so that all searches use the same rates."""
    step = max(1, 10 ** (len(str(int(rate))) - 2) // 2)
    return int(round(rate / step) * step)


def delays(text):
    """Returns the delay of each answer, in seconds."""
    pairs = re.findall(r"^sent / received: (\d+\.\d+) / (\d+\.\d+)", text, re.M)
    return [float(received) - float(sent) for sent, received in pairs] or [math.nan]


# The plot

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 52
COLOURS = {"ours": "#1f6fb4", "kea": "#c8501e"}


def nice_step(span, count):
    """Returns a step of 1, 2 or 5 times a power of ten, for about `count` lines."""
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= raw)


def medians(trials):
    """Returns the points of a curve: rates sent and percentages dropped, in the order of the requested rates."""
    groups = {}
    for trial in trials:
        groups.setdefault(trial.rate, []).append(trial)
    return [
        (statistics.median(t.sent_rate for t in group), statistics.median(t.drops for t in group) * 100)
        for _, group in sorted(groups.items())
    ]


def plot_panel(family, trials, top):
    """Draws drops over the rate, for both servers."""
    points = {kind: medians(found) for kind, found in trials.items() if found}
    highest = max(rate for found in points.values() for rate, _ in found) * 1.02
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    lines = [f'<text x="{LEFT}" y="{top + 20}" font-weight="bold">DHCPv{family}</text>']

    def x_of(rate):
        return LEFT + rate / highest * width

    def y_of(drops):
        return top + TOP + (100 - drops) / 100 * height

    for drops in range(0, 101, 20):
        y = y_of(drops)
        lines += [
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>',
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{drops} %</text>',
        ]
    step = nice_step(highest, 8)
    for n in range(int(highest / step) + 1):
        x = x_of(n * step)
        lines += [
            f'<line x1="{x:.1f}" y1="{y_of(0):.1f}" x2="{x:.1f}" y2="{y_of(0) + 5:.1f}" stroke="#444"/>',
            f'<text x="{x:.1f}" y="{y_of(0) + 19:.1f}" text-anchor="middle">{n * step:,.0f}</text>',
        ]
    lines.append(f'<line x1="{LEFT}" y1="{y_of(0):.1f}" x2="{WIDTH - RIGHT}" y2="{y_of(0):.1f}" stroke="#444"/>')
    lines.append(
        f'<text x="{LEFT + width / 2}" y="{y_of(0) + 38:.1f}" text-anchor="middle">exchanges begun each second</text>'
    )
    y = y_of(50)
    lines.append(f'<text x="14" y="{y}" text-anchor="middle" transform="rotate(-90 14 {y})">exchanges dropped</text>')
    for n, (kind, found) in enumerate(points.items()):
        colour = COLOURS[kind]
        path = " ".join(f"{x_of(rate):.1f},{y_of(drops):.1f}" for rate, drops in found)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [
            f'<circle cx="{x_of(rate):.1f}" cy="{y_of(drops):.1f}" r="3" fill="{colour}"/>' for rate, drops in found
        ]
        x = LEFT + 120 + 220 * n
        lines += [
            f'<line x1="{x}" y1="{top + 16}" x2="{x + 24}" y2="{top + 16}" stroke="{colour}" stroke-width="3"/>',
            f'<text x="{x + 30}" y="{top + 20}">{server_name(kind, family)}</text>',
        ]
    return lines


def server_name(kind, family):
    return f"kea-dhcp{family} {kea_version()}" if kind == "kea" else f"dhcp{family}_server, this"


def plot(benches):
    height = HEIGHT * len(benches)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        "<title>DHCP exchanges dropped at each rate</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for n, bench in enumerate(benches):
        lines += plot_panel(bench.family, bench.trials, n * HEIGHT)
    return "\n".join([*lines, "</svg>", ""])


# The table


def kea_version():
    done = subprocess.run(["/usr/sbin/kea-dhcp4", "-v"], capture_output=True, text=True, check=False)
    return done.stdout.split()[0] if done.stdout else ""


def processor():
    found = re.search(r"^model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else "unknown processor"


def rows(bench, results):
    ours, kea = results["ours"], results["kea"]
    family = f"DHCPv{bench.family}" + (f", {bench.database.kind}" if bench.database else "")

    def row(name, form, key, better):
        above, below = (ours, kea) if better == "more" else (kea, ours)
        ratio = above[key] / below[key] if below[key] else math.nan
        return f"| {family} | {name} | {form(ours[key])} | {form(kea[key])} | {ratio:.1f} |"

    def rate(value):
        limited = value == ours["rate"] and ours["limited"] or value == kea["rate"] and kea["limited"]
        return f"{'at least ' if limited else ''}{value:,.0f}"

    at = f"at {bench.options.common_rate:,}/s"
    common = [
        row("highest rate, exchanges a second", rate, "rate", "more"),
        row(f"processor time for 1000 exchanges {at}, ms", lambda s: f"{s * 1000:.0f}", "cpu", "less"),
    ]
    delay = row(f"median delay of a message {at}, ms", lambda s: f"{s * 1000:.2f}", "delay", "less")
    dropped = f"| {family} | exchanges dropped {at} | {ours['drops']:.2%} | {kea['drops']:.2%} | |"
    if bench.database:
        of_database = f"processor time of the database for them {at}, ms"
        return [*common, row(of_database, lambda s: f"{s * 1000:.0f}", "database_cpu", "less"), delay, dropped]
    leases = min(ours["leases"], kea["leases"])
    return [
        *common,
        delay,
        row(f"memory after {leases:,} leases, MB", lambda b: f"{b / 1e6:.1f}", "memory", "less"),
        row("memory before them, MB", lambda b: f"{b / 1e6:.1f}", "empty", "less"),
        dropped,
    ]


def main():
    parser = arguments()
    for name in ("--seconds", "--runs", "--leases", "--common-rate"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--plot", required=True)
    options = parser.parse_args()
    began = time.monotonic()
    benches, table = [], []
    databases = [Database(kind) for kind in DATABASES] if "LEASEMGR_DATABASES" in os.environ else [None]
    try:
        for family, database in itertools.product(sorted(set(options.families)), databases):
            bench = Bench(family, options, database)
            table += rows(bench, {kind: bench.measure(kind) for kind in ("kea", "ours")})
            benches.append(bench)
    except (Failure, OSError, subprocess.SubprocessError) as error:
        say(f"bench-server: {error}")
        sys.exit(1)
    place = "the databases of scripts/databases"
    if databases == [None]:
        place = "memfile written before the answer"
        pathlib.Path(options.plot).write_text(plot(benches))
    print(
        f"""
{os.cpu_count()} processors ({processor()}), Kea {kea_version()}, {THREADS} threads each, {place},
a pool of 2^18 addresses, {options.runs} x {options.seconds} s at each rate, in {time.monotonic() - began:.0f} s. An exchange is four messages.
The highest rate is that at which less than {DROPS:.0%} of the exchanges is dropped, in one of two trials. perfdhcp, which makes the load, uses the same
processors: rates and delays include its load, and processor time is the fairest figure.

| | | this | Kea | ratio |
|---|---|---|---|---|"""
    )
    print("\n".join(table))
    if databases == [None]:
        say(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
