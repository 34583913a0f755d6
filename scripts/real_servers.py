#!/usr/bin/env python3
"""The Python part of real-servers, which runs the servers and checks the results.

Started by real-servers, which creates the namespaces and the working
directory, and removes them.
"""

import argparse
import csv
import datetime
import ipaddress
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import time

# The server's threads may process messages of one client that are this close
# together (in seconds) in another order than they were sent in.
ORDER_UNKNOWN = 0.5
LOAD_AFTER_KILL = 3
START_LIMIT = 120
CLEANUP_LIMIT = 120
LFC_INTERVAL = 2
CLIENTS = 200_000

ROUNDS = (
    ("server", "server killed during a cleanup, kea-lfc left to finish"),
    ("both", "server and kea-lfc killed during a cleanup"),
    ("between", "server killed between two cleanups"),
)

COLUMNS = {
    4: "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname",
    6: "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,"
    "fqdn_fwd,fqdn_rev,hostname",
}

# Options that fill the columns with escapes: relay information and a host
# name. The relay messages for v6 come from perfdhcp itself.
OPTIONS = {
    4: ["-o", "82,0104636c6930020472656d31", "-o", "12,486f73742d61"],
    6: ["-o", "39,0006486f73742d610474657374076578616d706c6500"],
}

# Kea 2.2's servers leave F.pid to kea-lfc, so the wrapper can stay its parent
# and get its exit status. It does not get the server's environment.
WRAPPER = r"""#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin KEA_LOCKFILE_DIR=none
cd {directory} || exit 1
order=-
# A server starts the next cleanup even if the last one takes longer than the
# interval; kea-lfc then ends without a cleanup.
others=$(compgen -G 'running.*')
: >running.$$
begin=$EPOCHREALTIME
{lfc} "$@" 2>>lfc.stderr &
child=$!
if [ -z "$others" ] && mv strike strike.$$ 2>/dev/null; then
    read -r order delay server <strike.$$
    [ "$delay" = 0 ] || sleep "$delay"
    case $order in
    server) kill -KILL "$server" ;;
    both) kill -KILL "$server" "$child" ;;
    esac
fi
wait "$child" 2>/dev/null
status=$?
for other in $others; do
    [ ! -e "$other" ] || order=second
done
echo "$child $begin $EPOCHREALTIME $status $order" >>cleanups
rm -f running.$$
exit "$status"
"""


class Failure(Exception):
    pass


class Checks:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def check(self, good, text, details=()):
        if good:
            self.passed += 1
        else:
            self.failed += 1
        print(f"  {'ok    ' if good else 'FAILED'} {text}", flush=True)
        if not good:
            for line in details:
                print(f"           {line}", flush=True)
        return good


class Journal:
    """The leases that the clients hold, from the recorder's events in order."""

    def __init__(self):
        self.held = {}  # (type, address) -> client
        self.unsure = {}  # (type, address) -> (client, time of the release)
        self.released = {}  # (type, address) -> time of the confirmation
        self.last_ack = {}
        self.acked = set()
        self.acks = 0
        self.releases = 0
        self.twice = []

    def read(self, name):
        """Reads a file. Returns the kernel's packet and drop counts."""
        counts = None
        with open(name, encoding="ascii") as lines:
            for line in lines:
                event, *fields = line.split()
                if event == "end":
                    counts = tuple(map(int, fields))
                    continue
                now, kind, address, client = float(fields[0]), *fields[1:4]
                key = (kind, address)
                if event == "ack":
                    self.ack(key, client, now, float(fields[4]))
                elif event == "release":
                    self.releases += 1
                    if self.held.get(key) == client:
                        del self.held[key]
                        self.unsure[key] = (client, now)
                elif self.unsure.get(key, ("",))[0] == client:
                    asked = self.unsure[key][1]
                    if asked - self.last_ack.get(key, 0) > ORDER_UNKNOWN:
                        self.released[key] = now
        return counts

    def confirm(self, releases):
        """Adds confirmations that were not sent over the network."""
        for key, now in releases.items():
            since = self.unsure.get(key, ("", now + 1))[1]
            if since - 0.01 <= now and since - self.last_ack.get(key, 0) > ORDER_UNKNOWN:
                self.released[key] = now

    def ack(self, key, client, now, asked):
        self.acks += 1
        self.acked.add(key)
        self.last_ack[key] = now
        self.released.pop(key, None)
        owner, since = self.unsure.get(key, (None, 0))
        if owner == client and asked < since + ORDER_UNKNOWN:
            return
        self.unsure.pop(key, None)
        holder = self.held.get(key, client)
        if holder != client:
            self.twice.append(f"{key[1]}: {holder}, then {client}")
        self.held[key] = client


class Family:
    def __init__(self, number, options, checks):
        self.number = number
        self.options = options
        self.checks = checks
        self.directory = pathlib.Path(options.state) / f"v{number}"
        self.directory.mkdir()
        self.file = self.directory / f"leases{number}.csv"
        self.log = self.directory / "server.log"
        # A short name, as the path of a socket has at most 107 bytes.
        self.socket = self.directory / "ctl"
        self.environment = dict(
            os.environ,
            TZ="UTC",
            KEA_LFC_EXECUTABLE=str(self.directory / "lfc-wrapper"),
            KEA_PIDFILE_DIR=str(self.directory),
            KEA_LOCKFILE_DIR="none",
            KEA_LOGGER_DESTINATION=str(self.directory / "early.log"),
            KEA_DHCP_DATA_DIR=str(self.directory),
        )
        self.server = None
        self.journal = Journal()
        self.asked = self.sent = self.answered = 0
        self.found = self.missing = self.restarts = 0
        self.missing_list = []

    # The server

    def configure(self):
        hooks = sorted(pathlib.Path("/usr/lib").glob("*/kea/hooks/libdhcp_lease_cmds.so"))
        if not hooks:
            raise Failure("libdhcp_lease_cmds.so was not found")
        common = {
            "lease-database": {
                "type": "memfile",
                "persist": True,
                "name": str(self.file),
                "lfc-interval": LFC_INTERVAL,
            },
            "multi-threading": {
                "enable-multi-threading": True,
                "thread-pool-size": 2,
                "packet-queue-size": 64,
            },
            "control-socket": {"socket-type": "unix", "socket-name": str(self.socket)},
            "hooks-libraries": [{"library": str(hooks[0])}],
            "valid-lifetime": 4000,
            # Relay information gives the rows a user context.
            "store-extended-info": True,
            "loggers": [
                {
                    "name": f"kea-dhcp{self.number}",
                    "severity": "INFO",
                    "output_options": [
                        {"output": str(self.log), "flush": True, "maxsize": 0}
                    ],
                }
            ],
        }
        if self.number == 4:
            config = {
                "interfaces-config": {"interfaces": ["srv0"], "dhcp-socket-type": "udp"},
                "subnet4": [
                    {
                        "id": 1,
                        "subnet": "10.0.0.0/8",
                        "pools": [{"pool": "10.1.0.0 - 10.16.255.255"}],
                    }
                ],
            }
        else:
            config = {
                "interfaces-config": {"interfaces": ["srv0"]},
                "preferred-lifetime": 3000,
                # The same identifier after a restart, without a file for it.
                "server-id": {
                    "type": "EN",
                    "enterprise-id": 2495,
                    "identifier": "0102030405",
                    "persist": False,
                },
                "subnet6": [
                    {
                        "id": 1,
                        "subnet": "2001:db8::/64",
                        "interface": "srv0",
                        "pools": [{"pool": "2001:db8::1:0:0:0/80"}],
                        "pd-pools": [
                            {
                                "prefix": "2001:db8:8000::",
                                "prefix-len": 33,
                                "delegated-len": 64,
                            }
                        ],
                    }
                ],
            }
        config.update(common)
        path = self.directory / "server.json"
        path.write_text(json.dumps({f"Dhcp{self.number}": config}, indent=1))
        wrapper = self.directory / "lfc-wrapper"
        wrapper.write_text(
            WRAPPER.replace("{directory}", quoted(self.directory)).replace("{lfc}", quoted(self.options.lfc))
        )
        wrapper.chmod(0o755)

    def start(self):
        with open(self.directory / "server.out", "ab") as out:
            self.server = subprocess.Popen(
                ["ip", "netns", "exec", self.options.server_ns]
                + [f"kea-dhcp{self.number}", "-c", str(self.directory / "server.json")],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end:
            if self.server.poll() is not None:
                break
            try:
                if self.command("status-get", 5)["result"] == 0:
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.05)
        raise Failure(f"kea-dhcp{self.number} did not start: {self.last_lines()}")

    def last_lines(self):
        lines = []
        for name in ("server.out", "early.log", "server.log"):
            try:
                lines += (self.directory / name).read_text(errors="replace").splitlines()[-5:]
            except FileNotFoundError:
                pass
        return "\n".join([""] + lines)

    def command(self, name, limit):
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(limit)
            link.connect(str(self.socket))
            link.sendall(json.dumps({"command": name}).encode())
            parts = []
            while part := link.recv(1 << 20):
                parts.append(part)
        return json.loads(b"".join(parts))

    def leases(self):
        """Returns all leases of the server: (type, address) -> client."""
        answer = self.command(f"lease{self.number}-get-all", 120)
        if answer["result"] not in (0, 3):
            raise Failure(f"lease{self.number}-get-all: {answer.get('text')}")
        found = {}
        for lease in answer.get("arguments", {}).get("leases", ()):
            if self.number == 4:
                found["V4", lease["ip-address"]] = lease["hw-address"]
            else:
                kind = {"IA_NA": "NA", "IA_PD": "PD"}.get(lease["type"], lease["type"])
                key = kind, str(ipaddress.IPv6Address(lease["ip-address"]))
                found[key] = f"{lease['duid']}/{lease['iaid']}"
        return found

    # Cleanups

    def cleanups(self):
        """Returns PID, begin, end, exit status and order of every ended cleanup."""
        try:
            lines = (self.directory / "cleanups").read_text().splitlines()
        except FileNotFoundError:
            return []
        rows = [line.split() for line in lines]
        return [(int(r[0]), float(r[1]), float(r[2]), int(r[3]), r[4]) for r in rows]

    def cleanup_runs(self):
        return any(self.directory.glob("running.*"))

    def wait_for_cleanups(self, count):
        end = time.monotonic() + CLEANUP_LIMIT
        while len(self.cleanups()) < count or self.cleanup_runs():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    # Rounds

    def load(self, number):
        rate = self.options.rate
        family = ["-4"] if self.number == 4 else ["-6", "-A1", "-e", "address-and-prefix"]
        command = ["ip", "netns", "exec", self.options.client_ns, "perfdhcp", *family]
        command += OPTIONS[self.number]
        command += ["-r", str(rate), "-f", str(rate // 5), "-F", str(rate // 10)]
        command += ["-R", str(CLIENTS), "-W", "500000"]
        # perfdhcp numbers clients from a base: new ones in the second round,
        # those of the first round again in the third.
        base = "000c0001" if number == 2 else "000c0002"
        command += ["-b", "mac=" + ":".join(re.findall("..", base + "0000"))]
        if self.number == 6:
            # Without this option the DUID contains a time.
            command += ["-b", f"duid=00030001{base}0000"]
        # It is interrupted some time after the server has ended.
        command += ["-p", str(self.options.seconds + CLEANUP_LIMIT + 60), "-l", "cli0"]
        command += ["10.0.0.1"] if self.number == 4 else ["all"]
        out = open(self.directory / f"perfdhcp.{number}", "wb")
        with out:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    def record(self, number):
        name = self.directory / f"events.{number}"
        here = pathlib.Path(__file__).resolve().parent
        recorder = subprocess.Popen(
            ["ip", "netns", "exec", self.options.client_ns, sys.executable]
            + [str(here / "ack-recorder.py"), str(self.number), "cli0", str(name)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        if recorder.stdout.readline() != b"ready\n":
            raise Failure("the recorder did not start")
        return recorder, name

    def kill(self, order):
        """Kills the server as ordered. Returns the number of cleanups before, and the time."""
        before = len(self.cleanups())
        if order == "between":
            # On a slow machine there may be no time without a cleanup.
            end = time.monotonic() + 20
            while self.cleanup_runs() and time.monotonic() < end:
                time.sleep(0.001)
            self.server.send_signal(signal.SIGKILL)
        else:
            took = [end - begin for _, begin, end, _, what in self.cleanups() if what != "second"]
            took = took[-4:]
            # Half of a cleanup, less the time that the wrapper needs to start a sleep.
            delay = statistics.median(took) / 2 - 0.003 if took else 0
            delay = f"{delay:.6f}" if delay > 0 else "0"
            draft = self.directory / "strike.new"
            draft.write_text(f"{order} {delay} {self.server.pid}\n")
            draft.rename(self.directory / "strike")
        try:
            self.server.wait(CLEANUP_LIMIT)
        except subprocess.TimeoutExpired:
            raise Failure("no cleanup was started in which to kill the server") from None
        at = time.monotonic()
        (self.directory / "strike").unlink(missing_ok=True)
        return before, at

    def round(self, number, order, text):
        print(f"DHCPv{self.number}, round {number}: {text}", flush=True)
        recorder, events = self.record(number)
        load = self.load(number)
        began = time.monotonic()
        try:
            time.sleep(self.options.seconds)
            if load.poll() is not None:
                output = (self.directory / f"perfdhcp.{number}").read_text(errors="replace")
                raise Failure(f"perfdhcp ended too early:\n{output[-1000:]}")
            if self.server.poll() is not None:
                raise Failure(f"the server ended by itself: {self.last_lines()}")
            before, killed = self.kill(order)
            in_load = load.poll() is None
            self.asked += int((killed - began) * self.options.rate)
            if in_load:
                time.sleep(LOAD_AFTER_KILL)
                load.send_signal(signal.SIGINT)
            load.wait(60)
            if not self.wait_for_cleanups(before):
                raise Failure("a cleanup did not end after the server was killed")
        finally:
            if load.poll() is None:
                load.kill()
            load.wait()
            recorder.send_signal(signal.SIGTERM)
            try:
                recorder.wait(60)
            except subprocess.TimeoutExpired:
                recorder.kill()
                recorder.wait()
        struck = [c for c in self.cleanups()[before:] if c[4] == order]
        if order != "between":
            ended = "killed" if struck and struck[-1][3] == 137 else "was completed"
            print(f"         the cleanup {ended}", flush=True)
        files = ", ".join(
            f"{p.name} {p.stat().st_size}" for p in sorted(self.directory.glob(self.file.name + "*"))
        )
        print(f"         files left: {files}", flush=True)

        acked_before = self.journal.acks
        counts = self.journal.read(events)
        if self.number == 4:
            self.journal.confirm(self.releases_in_log())
        acks = self.journal.acks - acked_before
        sent, answered = self.report(number)
        self.sent += sent
        self.answered += answered
        # A quarter only, as the machine may be busy.
        least = self.options.rate * self.options.seconds // 4
        self.checks.check(in_load, "the server was killed under load")
        self.checks.check(acks >= least, f"{acks} acknowledgements (at least {least})")
        if counts is None:
            self.checks.check(False, "the recorder ended properly")
        else:
            packets, drops = counts
            self.checks.check(drops == 0, f"the recorder missed {drops} of {packets} packets")

        began = time.monotonic()
        self.start()
        print(f"         answers {time.monotonic() - began:.1f} s after its start", flush=True)
        self.restarts += 1
        self.compare(self.leases(), killed)

    def compare(self, leases, killed):
        held = self.journal.held
        lost = []
        for key, client in held.items():
            there = leases.get(key)
            if there != client:
                lost.append(f"{key[0]} {key[1]} of {client}: " + (there or "no lease"))
        self.found += len(held) - len(lost)
        self.missing += len(lost)
        self.missing_list += lost
        self.checks.check(
            not lost,
            f"{len(held) - len(lost)} of {len(held)} acknowledged leases found "
            f"({len(leases)} in the server)",
            lost[:10],
        )
        sure = [k for k, at in self.journal.released.items() if at < killed - ORDER_UNKNOWN]
        back = [f"{k[0]} {k[1]}" for k in sure if k in leases]
        self.checks.check(
            not back, f"{len(back)} of {len(sure)} released leases came back", back[:10]
        )
        twice = self.journal.twice
        self.checks.check(not twice, f"{len(twice)} addresses given to two clients", twice[:10])
        twice.clear()

    def releases_in_log(self):
        """Returns the last time at which the v4 server released each address.
        A DHCPRELEASE has no answer."""
        offset = time.monotonic() - time.time()
        form = re.compile(r"(\S+ \S+?) +INFO .*\bDHCP4_RELEASE\b.*address (\S+) was released")
        found = {}
        with open(self.log, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if match := form.match(line):
                    at = datetime.datetime.fromisoformat(match[1] + "+00:00")
                    found["V4", match[2]] = at.timestamp() + offset
        return found

    def report(self, number):
        """Returns the numbers of exchanges begun and finished, from the report of perfdhcp."""
        text = (self.directory / f"perfdhcp.{number}").read_text(errors="replace")
        kinds_seen = {}
        kinds = re.finditer(r"\*\*\*Statistics for: (\S+)\*\*\*\s+(.*?)(?=\*\*\*|\Z)", text, re.S)
        for kind in kinds:
            found = [
                re.search(rf"^{word} packets: (\d+)", kind[2], re.M) for word in ("sent", "received")
            ]
            if all(found):
                kinds_seen[kind[1]] = tuple(int(f[1]) for f in found)
        for kind, (sent, received) in kinds_seen.items():
            print(f"         {kind}: {sent} sent, {received} answered", flush=True)
        first = kinds_seen.get("DISCOVER-OFFER", kinds_seen.get("SOLICIT-ADVERTISE", (0, 0)))
        last = kinds_seen.get("REQUEST-ACK", kinds_seen.get("REQUEST-REPLY", (0, 0)))
        return first[0], last[1]

    # The end

    def rows(self, path):
        """Returns the leases of a cleaned-up file. Raises a Failure if it is invalid."""
        found = {}
        with open(path, encoding="ascii", newline="") as lines:
            text = lines.read()
        if text and not text.endswith("\n"):
            raise Failure("the last row has no newline")
        rows = csv.DictReader(text.splitlines())
        if not ",".join(rows.fieldnames or ()).startswith(COLUMNS[self.number]):
            raise Failure(f"not the known columns: {rows.fieldnames}")
        for row in rows:
            where = f"line {rows.line_num}"
            if None in row or None in row.values():
                raise Failure(f"{where}: number of fields differs from the header")
            try:
                if self.number == 4:
                    key, client = ("V4", str(ipaddress.IPv4Address(row["address"]))), row["hwaddr"]
                else:
                    kind = {"0": "NA", "2": "PD"}[row["lease_type"]]
                    key = kind, str(ipaddress.IPv6Address(row["address"]))
                    client = f"{row['duid']}/{int(row['iaid'])}"
                int(row["expire"])
                if int(row["valid_lifetime"]) == 0:
                    raise Failure(f"{where}: a removed lease")
            except (ValueError, KeyError) as error:
                raise Failure(f"{where}: {error}") from None
            if key in found:
                raise Failure(f"{where}: {key[1]} has two rows")
            found[key] = client
        return found

    def finish(self):
        print(f"DHCPv{self.number}, after the load", flush=True)
        check = self.checks.check
        # One may have begun before the load's last row, and one may do nothing.
        ended = self.wait_for_cleanups(len(self.cleanups()) + 3)
        check(ended, "cleanups continue")
        leases = self.leases()
        self.server.terminate()
        try:
            self.server.wait(30)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
        # The server may have started another cleanup just before it ended.
        time.sleep(0.5)
        self.wait_for_cleanups(0)
        names = {p.name for p in self.directory.glob(self.file.name + "*")}
        extra = sorted(names - {self.file.name, self.file.name + ".2"})
        check(not extra, "only the lease file and the previous file are left", extra)
        try:
            rows = self.rows(f"{self.file}.2")
            check(True, f"the previous file can be read: {len(rows)} rows")
            wrong = [k for k in rows.keys() | leases.keys() if rows.get(k) != leases.get(k)]
            lines = [f"{k}: file {rows.get(k)}, server {leases.get(k)}" for k in wrong[:10]]
            check(not wrong, f"{len(wrong)} differences of previous file and server", lines)
        except (Failure, OSError) as error:
            check(False, "the previous file can be read", [str(error)])

        cleanups = self.cleanups()
        good = [c for c in cleanups if c[3] == 0 and c[4] != "second"]
        check(len(good) >= 3, f"{len(good)} cleanups succeeded (at least 3)")
        failed = self.failed_cleanups()
        lines = [f"PID {c[0]}: exit status {c[3]}" for c in failed]
        check(not failed, f"{len(failed)} cleanups failed", lines[:10] + self.lfc_errors())
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if re.search(r"\b(ERROR|FATAL)\b", line)]
        about = [e for e in errors if re.search(r"MEMFILE|LFC|CSV|lease file", e) or self.file.name in e]
        check(not about, f"{len(about)} errors about lease files in the server's log", about[:10])
        rest = len(errors) - len(about)
        if rest:
            print(f"         {rest} other errors in the server's log, the first:", flush=True)
            print(f"         {next(e for e in errors if e not in about)}", flush=True)

    def lfc_errors(self):
        path = self.directory / "lfc.stderr"
        return path.read_text(errors="replace").splitlines()[:10] if path.exists() else []

    def failed_cleanups(self):
        """Returns the cleanups that failed, except the one that was killed on purpose."""
        return [c for c in self.cleanups() if c[3] != 0 and (c[3], c[4]) != (137, "both")]

    def run(self):
        try:
            self.configure()
            self.start()
            for number, (order, text) in enumerate(ROUNDS, 1):
                self.round(number, order, text)
            self.finish()
        except (Failure, OSError, ValueError, subprocess.SubprocessError) as error:
            self.checks.check(False, f"DHCPv{self.number} was completed", str(error).splitlines())
        finally:
            if self.server is not None and self.server.poll() is None:
                self.server.kill()
                self.server.wait()

    def summary(self):
        cleanups = self.cleanups()
        longest = max((end - begin for _, begin, end, _, _ in cleanups), default=0)
        second = sum(c[4] == "second" for c in cleanups)
        killed = sum((c[3], c[4]) == (137, "both") for c in cleanups)
        return {
            "family": f"DHCPv{self.number}",
            "exchanges requested until the kills": self.asked,
            "exchanges sent, including later ones": self.sent,
            "exchanges answered": self.answered,
            "acknowledgements": self.journal.acks,
            "distinct leases acknowledged": len(self.journal.acked),
            "releases": self.journal.releases,
            "restarts": self.restarts,
            "searched after restarts": self.found + self.missing,
            "found after restarts": self.found,
            "missing": self.missing,
            "cleanups run": len(cleanups) - second,
            "started while another one ran": second,
            "cleanups killed on purpose": killed,
            "cleanups failed": len(self.failed_cleanups()),
            "longest cleanup (s)": f"{longest:.3f}",
        }


def quoted(path):
    return "'" + str(path).replace("'", "'\\''") + "'"


def main():
    parser = argparse.ArgumentParser()
    for name in ("--lfc", "--server-ns", "--client-ns", "--state"):
        parser.add_argument(name, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("families", nargs="+", type=int, choices=(4, 6))
    options = parser.parse_args()

    print(f"kea-lfc: {options.lfc}", flush=True)
    checks = Checks()
    families = []
    for number in sorted(set(options.families)):
        families.append(Family(number, options, checks))
        families[-1].run()

    print()
    columns = [family.summary() for family in families]
    for key in columns[0]:
        print(f"{key:<34}" + "".join(f"{column[key]:>12}" for column in columns))
    for family in families:
        for line in family.missing_list[:10]:
            print(f"missing: {line}")
    print(f"{checks.passed} passed, {checks.failed} failed")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
