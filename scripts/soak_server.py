#!/usr/bin/env python3
"""The Python part of soak-server, which runs the servers and checks the results.

Started by soak-server, which creates the namespaces and the working directory, and removes them.
"""

import bisect
import dataclasses
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

from dhcp_servers import CLIENT_INTERFACE, Server, Setup, arguments, perfdhcp_command, perfdhcp_report
from real_servers import ORDER_UNKNOWN, Checks, Failure

# Seconds. A client returns some time after its lease has expired.
LIFETIME = 30
LFC_INTERVAL = 5
# Fewer addresses than clients, and more than leases at one time: addresses change their clients.
ADDRESSES = 1 << 14
CLIENTS = 24_000
SETUPS = {
    4: Setup("10.64.0.0-10.64.63.255", valid_lifetime=LIFETIME, lfc_interval=LFC_INTERVAL),
    6: Setup("2001:db8:0:1::-2001:db8:0:1::3fff", "2001:db8:8000::/42/56", LIFETIME, LFC_INTERVAL),
}
SAMPLE_INTERVAL = 1
SNAPSHOT_INTERVAL = 13
# Leases are granted in whole seconds of the server's clock.
SECOND = 1
# Seconds in which the tables still grow.
WARM_UP = 120
# Maximum ratio of the highest memory in the second half after the warm-up to that in the first half.
GROWTH = 1.05


@dataclasses.dataclass
class Grant:
    """A lease as its client has it."""

    client: str
    asked: float
    acked: float

    @property
    def sure_end(self):
        """The time until which it is valid, whenever in between the server has read its clock."""
        return self.asked + LIFETIME - SECOND


@dataclasses.dataclass
class Snapshot:
    """The content of the lease files at a time between begin and end."""

    begin: float
    end: float
    rows: dict


class Soak:
    def __init__(self, family, options, checks):
        self.family = family
        self.options = options
        self.checks = checks
        self.server = Server("ours", family, f"server{family}", SETUPS[family], options)
        self.events_file = self.server.directory / "events"
        self.load_file = self.server.directory / "perfdhcp"
        self.samples = []
        self.snapshots = []
        self.cleanups = set()
        self.load = self.recorder = None
        self.figures = {"family": f"DHCPv{family}"}

    # Running

    def start(self):
        self.server.start()
        here = pathlib.Path(__file__).resolve().parent
        self.recorder = subprocess.Popen(
            ["ip", "netns", "exec", self.options.client_ns, sys.executable, str(here / "ack-recorder.py")]
            + [str(self.family), CLIENT_INTERFACE, str(self.events_file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        if self.recorder.stdout.readline() != b"ready\n":
            raise Failure("the recorder did not start")
        rate, seconds = self.options.rate, self.options.seconds
        options = ["-f", str(rate // 4), "-F", str(rate // 8), "-p", str(seconds), "-W", "500000"]
        kinds = "address-and-prefix" if self.family == 6 else ""
        command = perfdhcp_command(self.options.client_ns, self.family, rate, CLIENTS, 0, kinds, options)
        with open(self.load_file, "wb") as out:
            self.load = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def sample(self):
        if self.server.process.poll() is not None:
            raise Failure(f"the server of DHCPv{self.family} has ended: {self.server.last_lines()}")
        now = time.monotonic()
        self.samples.append((now, self.server.resident_bytes(), self.server.descriptors()))
        try:
            # A cleanup creates a new file, which may reuse the inode of an old one.
            status = os.stat(f"{self.server.file}.2")
            self.cleanups.add((status.st_ino, status.st_mtime_ns))
        except FileNotFoundError:
            pass

    def snapshot(self):
        begin = time.monotonic()
        rows = {}
        for address, row in self.server.leases().items():
            if self.family == 4:
                key = "V4", address
                client = re.match(r"hwaddr (\S+)", row.client)
                rows[key] = client[1] if client else "", row.state, row.expire
            else:
                key = ("PD", address.split("/")[0]) if "/" in address else ("NA", address)
                client = re.match(r"duid (\S+) iaid (\d+)", row.client)
                rows[key] = f"{client[1]}/{client[2]}" if client else "", row.state, row.expire
        self.snapshots.append(Snapshot(begin, time.monotonic(), rows))

    def stop(self):
        """Ends load, recorder and server, and takes a last snapshot of the files."""
        try:
            self.load.wait(30)
        except subprocess.TimeoutExpired:
            self.load.kill()
            self.load.wait()
        self.recorder.send_signal(signal.SIGTERM)
        self.recorder.wait(60)
        cpu = self.server.cpu_seconds()
        status = self.server.stop()
        self.checks.check(status == 0, f"DHCPv{self.family}: the server ends after SIGTERM, exit status {status}")
        self.snapshot()
        self.figures["processor time of the server (s)"] = f"{cpu:.1f}"

    def kill(self):
        for process in (self.load, self.recorder, self.server.process):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    # Checking

    def check(self):
        check = self.checks.check
        name = f"DHCPv{self.family}"
        wrong = [l for l in self.server.log.read_text().splitlines() if re.search("error|fail|panic", l, re.I)]
        check(not wrong, f"{name}: {len(wrong)} errors in the server's log", wrong[:10])
        report = perfdhcp_report(self.load_file.read_text(errors="replace"))
        for kind, exchange in report.items():
            print(f"         {kind}: {exchange.sent} sent, {exchange.received} answered")
        events, dropped = self.events()
        check(dropped == 0, f"{name}: the recorder missed {dropped} packets")
        self.replay(events)
        self.flat()
        least = self.options.seconds // LFC_INTERVAL // 2
        check(len(self.cleanups) >= least, f"{name}: {len(self.cleanups)} cleanups (at least {least})")
        self.figures |= {
            "cleanups": len(self.cleanups),
            "log lines of the server": len(self.server.log.read_text().splitlines()),
        }

    def events(self):
        """Returns all events in order, as (time, event, key, client, time of the request)."""
        events, dropped = [], None
        with open(self.events_file, encoding="ascii") as lines:
            for line in lines:
                event, *fields = line.split()
                if event == "end":
                    dropped = int(fields[1])
                elif event in ("ack", "release"):
                    at = float(fields[0])
                    asked = float(fields[4]) if event == "ack" else at
                    events.append((at, event, (fields[1], fields[2]), fields[3], asked))
        return events, dropped

    def replay(self, events):
        held, released, addresses, clients = {}, {}, set(), {}
        twice, lost = [], []
        searched = acks = releases = moved = 0
        times = [event[0] for event in events]
        # The server may read its clock in one second, and the client in the next.
        offset = time.time() - time.monotonic()
        waiting = list(self.snapshots)

        def compare(snapshot):
            nonlocal searched
            # Leases that are released while the files are read may be in them or not.
            until = bisect.bisect_right(times, snapshot.end + ORDER_UNKNOWN)
            since = bisect.bisect_left(times, snapshot.begin)
            uncertain = {e[2] for e in events[since:until] if e[1] == "release"}
            for key, grant in held.items():
                if key in uncertain or grant.sure_end <= snapshot.end + SECOND:
                    continue
                searched += 1
                client, state, expire = snapshot.rows.get(key, ("no client", "no lease", 0))
                end = int(grant.asked + offset) + LIFETIME
                # The clocks of the kernel may differ by some milliseconds.
                if client != grant.client or state != "assigned" or expire < end - SECOND:
                    lost.append(f"{key[1]} of {grant.client} until {end}: {state} of {client} until {expire}")

        for at, event, key, client, asked in events:
            while waiting and waiting[0].begin < at:
                compare(waiting.pop(0))
            if event == "release":
                releases += 1
                if key in held and held[key].client == client:
                    del held[key]
                    released[key] = client, at
                continue
            acks += 1
            addresses.add(key)
            if clients.get(key, client) != client:
                moved += 1
            clients[key] = client
            before = held.get(key)
            if before is not None and before.client != client and at < before.sure_end:
                twice.append(f"{key[1]}: {before.client} until {before.sure_end:.1f}, at {at:.1f} {client}")
            if released.get(key, ("", 0))[0] == client and asked < released[key][1] + ORDER_UNKNOWN:
                # The server may have processed the renewal before the release.
                continue
            released.pop(key, None)
            held[key] = Grant(client, asked, at)
        for snapshot in waiting:
            compare(snapshot)

        name = f"DHCPv{self.family}"
        self.checks.check(acks > 0 and searched > 0, f"{name}: {acks} acknowledgements, {releases} releases")
        self.checks.check(moved > 0, f"{name}: {moved} times an address was given to another client")
        self.checks.check(not twice, f"{name}: {len(twice)} addresses given to a second client while valid", twice[:10])
        text = f"{name}: {len(lost)} of {searched} leases lost, searched in the files at {len(self.snapshots)} times"
        self.checks.check(not lost, text, lost[:10])
        self.figures |= {
            "acknowledgements": acks,
            "releases": releases,
            "addresses used": len(addresses),
            "addresses given to another client": moved,
            "searched in the files": searched,
            "lost": len(lost),
            "given twice": len(twice),
        }

    def flat(self):
        """Checks that memory and descriptors do not grow once all addresses have been used."""
        began = self.samples[0][0]
        steady = [s for s in self.samples if s[0] - began >= WARM_UP]
        half = len(steady) // 2
        memory = [s[1] for s in self.samples]
        self.figures |= {
            "memory, first (MB)": f"{memory[0] / 1e6:.1f}",
            "memory, median (MB)": f"{statistics.median(memory) / 1e6:.1f}",
            "memory, highest (MB)": f"{max(memory) / 1e6:.1f}",
            "memory, last (MB)": f"{memory[-1] / 1e6:.1f}",
            "descriptors, highest": max(s[2] for s in self.samples),
            "descriptors, last": self.samples[-1][2],
        }
        if half < 30:
            print(f"         too short to check whether memory grows: at least {WARM_UP + 60} seconds")
            return
        name = f"DHCPv{self.family}"
        # The maximum: a cleanup takes some memory for a short time.
        first, second = (max(s[1] for s in part) for part in (steady[:half], steady[half:]))
        self.checks.check(
            second <= first * GROWTH, f"{name}: memory {first / 1e6:.1f} MB at most, later {second / 1e6:.1f} MB"
        )
        # The median: a cleanup opens a few for a short time, and only some samples are taken then.
        first, second = (statistics.median_high(s[2] for s in part) for part in (steady[:half], steady[half:]))
        self.checks.check(second <= first, f"{name}: {first} descriptors (median), later {second}")


def main():
    parser = arguments()
    for name in ("--seconds", "--rate"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    checks = Checks()
    soaks = [Soak(family, options, checks) for family in sorted(set(options.families))]
    try:
        for soak in soaks:
            soak.start()
        began = time.monotonic()
        next_snapshot = began + SNAPSHOT_INTERVAL
        while (now := time.monotonic()) < began + options.seconds:
            for soak in soaks:
                soak.sample()
                if now >= next_snapshot:
                    soak.snapshot()
            if now >= next_snapshot:
                next_snapshot += SNAPSHOT_INTERVAL
            time.sleep(SAMPLE_INTERVAL)
        for soak in soaks:
            soak.stop()
        for soak in soaks:
            soak.check()
    except (Failure, OSError, ValueError, subprocess.SubprocessError) as error:
        checks.check(False, "the soak was completed", str(error).splitlines())
    finally:
        for soak in soaks:
            soak.kill()

    print()
    print(f"{options.seconds} seconds, {options.rate} new exchanges a second of each family, {CLIENTS} clients, leases of")
    print(f"{LIFETIME} seconds, {ADDRESSES} addresses (and as many prefixes), a cleanup every {LFC_INTERVAL} seconds")
    for key in soaks[0].figures:
        print(f"{key:<38}" + "".join(f"{soak.figures.get(key, ''):>12}" for soak in soaks))
    print(f"{checks.passed} passed, {checks.failed} failed")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
