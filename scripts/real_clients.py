#!/usr/bin/env python3
"""The Python part of real-clients, which runs servers and clients and checks the results.

Started by real-clients, which creates the namespaces and the working directory, and removes them.
"""

import json
import pathlib
import re
import signal
import subprocess
import sys
import time

from dhcp_servers import (
    CLIENT_INTERFACE,
    FIRST,
    HTTP_PORT,
    INTERFACE,
    LAST,
    SERVER_ADDRESS,
    Server,
    Setup,
    arguments,
    perfdhcp_command,
    perfdhcp_report,
)
from real_servers import Checks, Failure

# Maximum number of seconds that a client may take for one step, on a slow machine.
TIMEOUT = 300
RATE = 300
LOAD_SECONDS = 3
RENEWAL = {4: "REQUEST-ACK (renewal)", 6: "RENEW-REPLY"}
RELEASE = {4: "RELEASE", 6: "RELEASE-REPLY"}
# Minimum ratio of answers at this light load.
ANSWERED = 0.99
# No answer is too late, apart from those that come this many seconds after the last message.
LAST_ANSWERS = 5
LOAD_LIMITS = ("-p", str(LOAD_SECONDS), "-W", str(LAST_ANSWERS * 1_000_000), "-d", "60")
# Of the answers with pages.
PAGE = 100
CLIENT_POOLS = {4: "10.9.0.0-10.9.0.63", 6: "2001:db8:9::10-2001:db8:9::1f"}
LIFETIME = 3600
# T1 is half of it, and when it comes the other half is left. When a lease has been renewed, the server gives LIFETIME, so that
# what follows may take any time.
SHORT_LIFETIME = 40

# udhcpc and dhclient call this script to configure the address; dhcpcd configures it itself. While the file `refuse` exists, the
# script reports to dhclient that the address is in use, as dhclient's own script does after duplicate address detection.
HOOK = """#!/bin/sh
reason=${1:-$reason}
address=$ip$new_ip_address$new_ip6_address
echo "$reason $address$new_dhcp6_ia_na1_ia_addr1 $new_ip6_prefix$new_dhcp6_ia_pd1_prefix1" >>{directory}/events
case $reason in
bound | renew | BOUND | RENEW | REBIND | REBOOT)
    [ ! -e {directory}/refuse ] || exit 1
    ip addr replace "$address/8" dev "$interface"
    ;;
BOUND6 | RENEW6 | REBIND6)
    [ ! -e {directory}/refuse ] || exit 3
    [ -z "$address" ] || ip addr replace "$address/128" dev "$interface" nodad
    ;;
deconfig | RELEASE | EXPIRE | STOP) ip addr flush dev "$interface" to 10.9.0.0/16 ;;
RELEASE6 | EXPIRE6 | STOP6 | DEPREF6) [ -z "$old_ip6_address" ] || ip addr del "$old_ip6_address/128" dev "$interface" ;;
esac
exit 0
"""

# Without these options, dhcpcd waits for router advertisements.
DHCPCD_CONFIG = """duid
nodev
noipv6rs
ipv6only
nohook resolv.conf, hostname
interface cli0
ia_na 1
ia_pd 2 cli0/0
"""


class Client:
    """A DHCP client in the client's namespace, whose output is in its log."""

    def __init__(self, lab, name, *command):
        self.lab = lab
        self.command = ["ip", "netns", "exec", lab.options.client_ns, *command]
        self.log = lab.directory / f"{name}.log"
        self.log.unlink(missing_ok=True)
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.end()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def end(self):
        """Ends the client without a message to the server."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # The children of dhcpcd run a little longer, and keep its port.
        listing = ["ip", "netns", "pids", self.lab.options.client_ns]
        wait_for(lambda: not subprocess.run(listing, capture_output=True, check=True).stdout)

    def text(self):
        return self.log.read_text(errors="replace")

    def wait_for_output(self, pattern, times=1):
        """Waits until it has printed a number of matches. Returns the last one, or None."""
        return wait_for(lambda: nth(re.findall(pattern, self.text(), re.M), times))


def nth(found, times):
    return found[-1] if len(found) >= times else None


def wait_for(what):
    """Calls a function until it returns a true value, or the timeout is over."""
    end = time.monotonic() + TIMEOUT
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


class Lab:
    def __init__(self, family, options, checks):
        self.family = family
        self.options = options
        self.checks = checks
        self.directory = pathlib.Path(options.state) / f"clients{family}"
        self.directory.mkdir()
        self.hook = self.directory / "hook"
        self.hook.write_text(HOOK.replace("{directory}", str(self.directory)))
        self.hook.chmod(0o755)
        self.events = self.directory / "events"
        self.refuse = self.directory / "refuse"
        self.server = None
        self.setup = None

    def check(self, good, text, *logs):
        """Prints a line of the report; if the check failed, with the last log lines of clients and server."""
        details = []
        if not good:
            for log in [*(client.log for client in logs), self.server.log]:
                details += [f"{log.name}:", *log.read_text(errors="replace").splitlines()[-15:]]
            details += [f"{address} {row}" for address, row in list(self.rows().items())[-10:]]
        self.checks.check(good, text, details)
        return good

    def ip(self, namespace, *words):
        subprocess.run(["ip", "-n", namespace, *words], check=True, stdout=subprocess.DEVNULL)

    # Content of the files

    def rows(self):
        return self.server.leases()

    def row(self, address):
        return self.rows().get(address)

    def is_assigned(self, address):
        row = self.row(address)
        return row is not None and row.state == "assigned" and row.client and row.expire > time.time()

    def is_free(self, address):
        """Returns whether no client has it: it is deleted, released or reclaimed."""
        row = self.row(address)
        return row is None or row.state != "assigned" or row.expire <= time.time()

    def is_declined(self, address):
        """Returns whether it is declined and has no client."""
        if self.server.kind == "kea" and self.family == 6:
            # Kea 2.2 writes a DUID of one octet, which later versions do not read.
            return f"\n{address},00," in self.server.file.read_text()
        row = self.row(address)
        empty = row is not None and not row.client
        return empty and row.state == "declined" and row.expire > time.time()

    def is_prolonged(self, address, before):
        row = self.row(address)
        return row is not None and row.state == "assigned" and row.expire > before

    def event(self, pattern, times=1):
        """Waits until the hook was called with a number of matches. Returns the last one, or None."""

        def found():
            text = self.events.read_text() if self.events.exists() else ""
            return nth(re.findall(pattern, text, re.M), times)

        return wait_for(found)

    def forget_events(self):
        self.events.unlink(missing_ok=True)

    # perfdhcp

    def load(self, text, kinds="", options=(), first_client=0):
        """Runs a load that must be answered. Returns its exchanges, by kind."""
        command = perfdhcp_command(
            self.options.client_ns,
            self.family,
            RATE,
            RATE * LOAD_SECONDS * 2,
            first_client,
            kinds,
            (*LOAD_LIMITS, *options),
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return self.check_load(text, done.stdout, done.stderr)

    def check_load(self, text, output, errors):
        """Checks the report of a load. Returns its exchanges, by kind."""
        report = perfdhcp_report(output)
        counts = ", ".join(f"{kind} {e.received} of {e.sent}" for kind, e in report.items())
        # A DHCPRELEASE has no answer.
        good = [e.received >= e.sent * ANSWERED > 0 for kind, e in report.items() if kind != RELEASE[4]]
        # A tenth, because a busy machine sends less.
        least = RATE * LOAD_SECONDS // 10
        enough = report and next(iter(report.values())).sent >= least
        self.checks.check(
            bool(good) and all(good) and enough,
            f"{text}: {counts}",
            (output + errors).splitlines()[-40:] + [self.server.last_lines()],
        )
        return report

    def assigned_count(self):
        return sum(row.state == "assigned" and row.expire > time.time() for row in self.rows().values())

    def check_count(self, low, high, text):
        count = wait_for(lambda: (n := self.assigned_count()) and low <= n <= high and n) or self.assigned_count()
        self.check(low <= count <= high, f"{text}: {count} (from {low} to {high})")

    def perfdhcp(self):
        first, last = FIRST[self.family], LAST[self.family]
        with self.serve("load", Setup()):
            four = self.load("4-way exchanges")
            acked = four[last].received if last in four else 0
            self.check_count(acked, four[first].sent if first in four else 0, "leases in the file")
            before = self.assigned_count()
            six = self.load("with renewals and releases", "", ("-f", "80", "-F", "40"), 1 << 20)
            kinds = (RENEWAL[self.family], RELEASE[self.family])
            if self.checks.check(all(k in six for k in kinds), f"perfdhcp has sent {' and '.join(kinds)}"):
                released = six[RELEASE[self.family]].sent
                low, high = before + six[last].received - released, before + six[first].sent - int(released * ANSWERED)
                self.check_count(low, high, f"leases in the file after {released} releases")
            if self.family == 6:
                self.prefixes()

    def prefixes(self):
        before = self.assigned_count()
        report = self.load("prefixes alone", "prefix-only", (), 2 << 20)
        got = report[LAST[6]].received if LAST[6] in report else 0
        self.check_count(before + got, before + RATE * LOAD_SECONDS, "leases in the file, with prefixes")
        self.load("addresses and prefixes", "address-and-prefix", ("-f", "80", "-F", "40"), 3 << 20)

    # Commands

    def command(self, name, **arguments):
        """Returns result and arguments of the answer to a command."""
        answer = self.server.ask(name, **arguments)
        return answer["result"], answer.get("arguments", {})

    def lease_addresses(self):
        """Returns the addresses of leaseN-get-all. It is an error if one is there twice."""
        result, arguments = self.command(f"lease{self.family}-get-all")
        addresses = [lease["ip-address"] for lease in arguments.get("leases", ())]
        if result not in (0, 3) or len(set(addresses)) != len(addresses):
            raise Failure(f"lease{self.family}-get-all: result {result}, {len(addresses)} leases")
        return set(addresses)

    def pages(self):
        """Returns the addresses of all pages."""
        found, start = [], "start"
        while True:
            result, arguments = self.command(f"lease{self.family}-get-page", limit=PAGE, **{"from": start})
            leases = arguments.get("leases", ())
            if result not in (0, 3) or len(leases) > PAGE:
                raise Failure(f"lease{self.family}-get-page: result {result}, {len(leases)} leases")
            if not leases:
                return found
            found += [lease["ip-address"] for lease in leases]
            start = found[-1]

    def assigned_by_statistics(self):
        result, arguments = self.command(f"stat-lease{self.family}-get")
        if result != 0:
            return 0
        rows = arguments["result-set"]
        column = rows["columns"].index("assigned-addresses" if self.family == 4 else "assigned-nas")
        return rows["rows"][0][column]

    def by_http(self, name):
        """Returns the answers of curl and of kea-shell to a command."""
        within = ["ip", "netns", "exec", self.options.server_ns]
        request = ["-H", "Content-Type: application/json", "-d", json.dumps({"command": name})]
        curl = ["curl", "-sS", "-m", str(TIMEOUT), *request, f"http://{SERVER_ADDRESS}:{HTTP_PORT}/"]
        shell = ["kea-shell", "--host", SERVER_ADDRESS, "--port", str(HTTP_PORT), "--timeout", str(TIMEOUT), name]
        for command in (curl, shell):
            done = subprocess.run([*within, *command], input="", capture_output=True, text=True, check=False)
            try:
                yield json.loads(done.stdout)[0]
            except (ValueError, LookupError):
                raise Failure(f"{command[0]}: {done.stdout}{done.stderr}") from None

    def single(self, client):
        """Lets one client ask for an address. Returns its leases."""
        limits = ("-n", "1", "-p", "1", "-W", str(LAST_ANSWERS * 1_000_000))
        command = perfdhcp_command(self.options.client_ns, self.family, 1, 1, client, (), limits)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        report = perfdhcp_report(done.stdout)
        if FIRST[self.family] not in report or not report[FIRST[self.family]].sent:
            raise Failure(f"perfdhcp: {done.stdout}{done.stderr}")
        return self.leases_of(client)

    def leases_of(self, client):
        mac = ":".join(re.findall("..", f"{0x000C00000000 + client:012x}"))
        if self.family == 4:
            _, arguments = self.command("lease4-get-by-hw-address", hw_address=mac)
        else:
            _, arguments = self.command("lease6-get-by-duid", duid=f"00:03:00:01:{mac}")
        return {lease["ip-address"] for lease in arguments.get("leases", ())}

    def commands(self):
        family = self.family
        with self.serve("commands", Setup(commands=True)):
            last_client = RATE * LOAD_SECONDS * 2
            command = perfdhcp_command(self.options.client_ns, family, RATE, last_client, 0, (), LOAD_LIMITS)
            rounds, before, statistics = 0, set(), 0
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as load:
                good = True
                while load.poll() is None:
                    # Clients release nothing: each answer has the leases of the one before.
                    pages, now = self.pages(), self.lease_addresses()
                    assigned = self.assigned_by_statistics()
                    good = good and before <= set(pages) <= now and statistics <= assigned and len(now) <= assigned
                    rounds, before, statistics = rounds + 1, now, assigned
                output, errors = load.communicate()
            report = self.check_load("under commands", output, errors)
            self.check(good and rounds > 1, f"{rounds} times all leases, pages and statistics under load")
            acked = report[LAST[family]].received if LAST[family] in report else 0
            count = len(self.lease_addresses())
            self.check(count >= acked > 0, f"{count} leases for {acked} acknowledgements")
            self.check(count == self.assigned_by_statistics(), "statistics have as many")
            if self.server.kind == "ours":
                answers = list(self.by_http(f"lease{family}-get-all"))
                counts = [len(answer["arguments"]["leases"]) for answer in answers]
                self.check(counts == [count, count], f"curl and kea-shell show {counts} leases")

            client = 4 << 20
            addresses = wait_for(lambda: self.single(client)) or set()
            if self.check(addresses, f"a client gets {' '.join(addresses)}"):
                results = [self.command(f"lease{family}-del", ip_address=address)[0] for address in addresses]
                gone = results == [0] * len(results) and not self.leases_of(client)
                self.check(gone, f"lease{family}-del deletes it")
                self.check(wait_for(lambda: self.single(client)), "the client then gets an address again")

            self.check(self.command("dhcp-disable")[0] == 0, "dhcp-disable")
            self.check(not self.single(client + 1), "a client gets no address while the service is disabled")
            self.check(self.command("dhcp-enable")[0] == 0, "dhcp-enable")
            self.check(wait_for(lambda: self.single(client + 1)), "the client gets one when it is enabled")
            self.check(self.command("dhcp-disable", max_period=2)[0] == 0, "dhcp-disable for 2 seconds")
            self.check(wait_for(lambda: self.single(client + 2)), "a client gets an address after that")
            if self.server.kind == "ours":
                self.check(self.command("shutdown")[0] == 0, "shutdown")
                self.check(self.server.process.wait(TIMEOUT) == 0, "the server ends")

    # The server

    def serve(self, name, setup):
        self.setup = setup
        self.server = Server(self.options.server, self.family, f"server-{name}{self.family}", setup, self.options)
        return self.server

    def restart(self, with_kill):
        if with_kill:
            self.server.kill()
            self.server.start()
        else:
            status = self.server.stop()
            self.check(status == 0, f"the server ends after SIGTERM, exit status {status}")
            self.server.start()

    def restart_with_long_leases(self, addresses, client):
        """Kills the server, starts one that gives LIFETIME, and waits until these leases have it by a renewal: a client
        that is started after that, however late, finds them."""
        self.setup.valid_lifetime = LIFETIME
        self.server.kill()
        self.server.set_up(self.setup)
        self.server.start()
        least = time.time() + 2 * SHORT_LIFETIME
        good = wait_for(lambda: all(self.is_prolonged(address, least) for address in addresses))
        self.check(good, "dhclient renews with the server that was killed and restarted", client)

    # Clients, DHCPv4

    def udhcpc(self, *options):
        command = ["udhcpc", "-f", "-i", CLIENT_INTERFACE, "-s", str(self.hook), "-t", "10", "-T", "1", *options]
        return Client(self, "udhcpc", *command)

    def run_udhcpc(self):
        obtained = r"lease of (\S+) obtained"
        with self.udhcpc() as client:
            address = client.wait_for_output(obtained)
            good = address and wait_for(lambda: self.is_assigned(address))
            if not self.check(good, f"udhcpc gets {address}", client):
                return
            before = self.row(address).expire
            time.sleep(1.1)
            client.process.send_signal(signal.SIGUSR1)
            again = client.wait_for_output(obtained, 2)
            good = again == address and wait_for(lambda: self.is_prolonged(address, before))
            self.check(good, f"udhcpc renews {again}", client)
            client.process.send_signal(signal.SIGUSR2)
            good = wait_for(lambda: self.is_free(address))
            self.check(good, f"udhcpc releases {address}", client)

        # The host of the server answers ARP requests for all addresses of the pool.
        taken = ["local", "10.9.0.0/24", "dev", INTERFACE]
        self.ip(self.options.server_ns, "route", "add", *taken)
        with self.udhcpc("-a300", "-A", "1") as client:
            first = client.wait_for_output(obtained)
            good = client.wait_for_output("declin") and first and wait_for(lambda: self.is_declined(first))
            self.check(good, f"udhcpc declines {first}", client)
            self.ip(self.options.server_ns, "route", "del", *taken)
            self.event(r"^bound (\S+)", 2)
            bound = (re.findall(r"^bound (\S+)", self.events.read_text(), re.M) or [None])[-1]
            good = bound not in (None, first, address) or bound == address
            good = good and bound != first and self.is_assigned(bound)
            self.check(good, f"udhcpc then gets {bound}", client)
        for with_kill in (False, True):
            self.restart(with_kill)
            # The client itself stores no lease.
            with self.udhcpc() as client:
                again = client.wait_for_output(obtained)
                what = "was killed and" if with_kill else "was terminated and"
                good = again == bound and self.is_assigned(again)
                self.check(good, f"udhcpc gets {again} again after the server {what} restarted", client)
        with self.udhcpc("-r", "10.9.0.40", "-C", "-x", "0x3d:ff01020304") as client:
            other = client.wait_for_output(obtained)
            good = other == "10.9.0.40" and self.is_assigned(other)
            self.check(good, f"udhcpc with another client id asks for 10.9.0.40 and gets {other}", client)
            row = self.row(other) if other else None
            good = row is not None and "client-id ff:01:02:03:04" in row.client
            self.check(good, "its client id is in the lease file", client)

    def dhclient(self, name, *options):
        leases = self.directory / "dhclient.leases"
        leases.touch()
        command = ["dhclient", f"-{self.family}", "-sf", str(self.hook), "-cf", "/dev/null"]
        command += ["-lf", str(leases), "-pf", str(self.directory / "dhclient.pid"), *options, CLIENT_INTERFACE]
        return Client(self, name, *command)

    def run_dhclient4(self):
        self.forget_events()
        with self.dhclient("dhclient", "-d") as client:
            address = self.event(r"^BOUND (\S+)")
            good = address and wait_for(lambda: self.is_assigned(address))
            if not self.check(good, f"dhclient gets {address}", client):
                return
            before = self.row(address).expire
            again = self.event(r"^RENEW (\S+)")
            good = again == address and wait_for(lambda: self.is_prolonged(address, before))
            self.check(good, f"dhclient renews {again} after half of its lifetime", client)
            self.restart_with_long_leases([address], client)
        self.forget_events()
        with self.dhclient("dhclient", "-d") as client:
            before = self.row(address).expire
            again = self.event(r"^REBOOT (\S+)")
            good = again == address and wait_for(lambda: self.is_prolonged(address, before - 1))
            self.check(good, f"dhclient, restarted, keeps {again} (INIT-REBOOT)", client)
            release = self.dhclient("dhclient-r", "-r")
            release.start()
            release.process.wait(TIMEOUT)
            good = wait_for(lambda: self.is_free(address))
            self.check(good, f"dhclient releases {address}", client, release)
        (self.directory / "dhclient.leases").unlink()
        self.refuse.touch()
        self.forget_events()
        with self.dhclient("dhclient", "-d") as client:
            first = self.event(r"^BOUND (\S+)")
            good = client.wait_for_output("DHCPDECLINE") and first and wait_for(lambda: self.is_declined(first))
            self.check(good, f"dhclient declines {first}", client)
            self.refuse.unlink()
            bound = wait_for(lambda: self.last_other(r"^BOUND (\S+)", first))
            good = bound and wait_for(lambda: self.is_assigned(bound))
            self.check(good, f"dhclient then gets {bound}", client)

    def last_other(self, pattern, address):
        """Returns the last address of the hook, if it is assigned and not this one."""
        found = re.findall(pattern, self.events.read_text(), re.M)
        last = found[-1] if found else address
        return last if last != address and self.is_assigned(last) else None

    def run_dhcpcd_inform(self):
        command = ["dhcpcd", "-4", "-B", "-d", "--noarp", "--nodev", "--inform", "10.0.0.2/8", "-f", "/dev/null"]
        with self.dhcpcd(command) as client:
            good = client.wait_for_output(r"acknowledged|received approval|ACK") and "INFORM" in client.text()
            self.check(good, "dhcpcd gets its configuration (DHCPINFORM)", client)

    # Clients, DHCPv6

    def run_dhclient6(self):
        options = ["-N", "-P", "-D", "LL"]
        self.forget_events()
        with self.dhclient("dhclient", "-d", *options) as client:
            address = self.event(r"^BOUND6 (\S+) ")
            prefix = self.event(r"^BOUND6  (\S+)")
            good = address and prefix and wait_for(lambda: self.is_assigned(address) and self.is_assigned(prefix))
            if not self.check(good, f"dhclient gets {address} and {prefix}", client):
                return
            before = self.row(address).expire
            again = self.event(r"^RENEW6 (\S+) ")
            good = again == address and wait_for(
                lambda: self.is_prolonged(address, before) and self.is_prolonged(prefix, before)
            )
            self.check(good, f"dhclient renews {again} and {prefix} at T1", client)
            self.restart_with_long_leases([address, prefix], client)
        before = max(self.row(address).expire, self.row(prefix).expire)
        time.sleep(1.1)
        self.forget_events()
        with self.dhclient("dhclient", "-d", *options) as client:
            good = client.wait_for_output(r"XMT: Forming Rebind") and client.wait_for_output(r"RCV: Reply")
            good = good and wait_for(lambda: self.is_prolonged(address, before) and self.is_prolonged(prefix, before))
            self.check(good, f"dhclient, restarted, rebinds {address} and {prefix}", client)
            release = self.dhclient("dhclient-r", "-r", *options)
            release.start()
            release.process.wait(TIMEOUT)
            good = wait_for(lambda: self.is_free(address) and self.is_free(prefix))
            self.check(good, f"dhclient releases {address} and {prefix}", client, release)
        (self.directory / "dhclient.leases").unlink()
        self.forget_events()
        with self.dhclient("dhclient", "-d", "-N", "-D", "LL") as client:
            address = self.event(r"^BOUND6 (\S+)")
            self.check(address and self.is_assigned(address), f"dhclient gets {address}", client)
        self.forget_events()
        with self.dhclient("dhclient", "-d", "-N", "-D", "LL") as client:
            good = client.wait_for_output(r"XMT: Forming Confirm") and client.wait_for_output(r"RCV: Reply")
            good = good and self.event(r"^(?:REBIND6|REBOOT6|BOUND6) (\S+)") == address
            self.check(good, f"dhclient, restarted, has {address} confirmed", client)
            release = self.dhclient("dhclient-r", "-r", "-N", "-D", "LL")
            release.start()
            release.process.wait(TIMEOUT)
        (self.directory / "dhclient.leases").unlink()
        self.refuse.touch()
        self.forget_events()
        with self.dhclient("dhclient", "-d", "-N", "-D", "LL") as client:
            first = self.event(r"^BOUND6 (\S+)")
            good = client.wait_for_output("Forming Decline") and first and wait_for(lambda: self.is_declined(first))
            self.check(good, f"dhclient declines {first}", client)
            self.refuse.unlink()
            bound = wait_for(lambda: self.last_other(r"^BOUND6 (\S+)", first))
            self.check(bound, f"dhclient then gets {bound}", client)

    def dhcpcd(self, command):
        """Returns dhcpcd with private directories in place of the machine's. It keeps its DUID, but no lease."""
        own = self.directory / "dhcpcd"
        own.mkdir(exist_ok=True)
        for lease in own.glob("*.lease*"):
            lease.unlink()
        mounts = f"mount -t tmpfs none /run && mount --bind {own} /var/lib/dhcpcd"
        return Client(
            self, "dhcpcd", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command, "-c", str(self.hook), CLIENT_INTERFACE
        )

    def dhcpcd6(self, config=DHCPCD_CONFIG):
        path = self.directory / "dhcpcd.conf"
        path.write_text(config)
        return self.dhcpcd(["dhcpcd", "-6", "-B", "-d", "-f", str(path)])

    def run_dhcpcd6(self):
        self.forget_events()
        bound = r"^BOUND6 (\S+) (\S+)$"
        with self.dhcpcd6() as client:
            address, prefix = self.event(bound) or (None, None)
            prefix = self.with_length(prefix)
            good = prefix and wait_for(lambda: self.is_assigned(address) and self.is_assigned(prefix))
            if not self.check(good, f"dhcpcd gets {address} and {prefix}", client):
                return
            before = self.row(address).expire
            time.sleep(1.1)
            client.process.send_signal(signal.SIGUSR1)
            good = client.wait_for_output("RENEW6") and wait_for(
                lambda: self.is_prolonged(address, before) and self.is_prolonged(prefix, before)
            )
            self.check(good, f"dhcpcd renews {address} and {prefix}", client)
        for with_kill in (False, True):
            self.restart(with_kill)
            self.forget_events()
            with self.dhcpcd6() as client:
                again = self.event(bound) or (None, None)
                good = (again[0], self.with_length(again[1])) == (address, prefix)
                what = "was killed and" if with_kill else "was terminated and"
                self.check(good, f"dhcpcd gets {again[0]} and {self.with_length(again[1])} again after the server {what} restarted", client)
                if with_kill:
                    client.process.send_signal(signal.SIGALRM)
                    good = wait_for(lambda: self.is_free(address) and self.is_free(prefix))
                    self.check(good, f"dhcpcd releases {address} and {prefix}", client)

        # perfdhcp 2.2 cannot do this, nor dhcpcd if it asks for a prefix.
        self.forget_events()
        with self.dhcpcd6("option rapid_commit\n" + DHCPCD_CONFIG.replace("ia_pd 2 cli0/0\n", "")) as client:
            got = self.event(r"^BOUND6 (\S+)")
            good = got and self.is_assigned(got) and "REQUEST6" not in client.text()
            self.check(good, f"dhcpcd gets {got} with rapid commit, in two messages", client)

    @staticmethod
    def with_length(prefix):
        return prefix and f"{prefix}/56"

    # All checks

    def clients(self):
        setup = Setup(CLIENT_POOLS[self.family], "2001:db8:8000::/48/56", LIFETIME, raw=True)
        with self.serve("clients", setup):
            if self.family == 4:
                self.run_udhcpc()
                self.run_dhcpcd_inform()
            else:
                self.run_dhcpcd6()
        setup.valid_lifetime = SHORT_LIFETIME
        with self.serve("short", setup):
            if self.family == 4:
                self.run_dhclient4()
            else:
                self.run_dhclient6()

    def run(self):
        for part in (self.perfdhcp, self.commands, self.clients):
            try:
                print(f"DHCPv{self.family}, {part.__name__}", flush=True)
                part()
            except (Failure, OSError, ValueError, subprocess.SubprocessError) as error:
                self.checks.check(False, f"{part.__name__} was completed", str(error).splitlines())


def main():
    parser = arguments()
    parser.add_argument("--server", choices=("ours", "kea"), required=True)
    options = parser.parse_args()
    checks = Checks()
    began = time.monotonic()
    for family in sorted(set(options.families)):
        Lab(family, options, checks).run()
    print(f"{checks.passed} passed, {checks.failed} failed, in {time.monotonic() - began:.0f} seconds")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
