"""DHCP servers in the network namespaces of dhcp_lab.sh, and load on them."""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

from real_servers import Failure

INTERFACE = "srv0"
SERVER_ADDRESS = "10.0.0.1"
CLIENT_INTERFACE = "cli0"
THREADS = 2
SUBNETS = {4: "10.0.0.0/8", 6: "2001:db8::/32"}
# 2^18 addresses or prefixes each.
POOLS = {4: "10.64.0.0-10.67.255.255", 6: "2001:db8:0:1::-2001:db8:0:1::3:ffff"}
PD_POOL = "2001:db8:8000::/46/64"
PORTS = {4: 67, 6: 547}
# Where the example servers answer commands by HTTP.
HTTP_PORT = 8000
START_LIMIT = 300
STOP_LIMIT = 300
COMMAND_LIMIT = 300


def arguments():
    """Returns a parser of the arguments that dhcp_lab.sh passes to its programs."""
    parser = argparse.ArgumentParser()
    for name in ("--state", "--examples", "--server-ns", "--client-ns"):
        parser.add_argument(name, required=True)
    parser.add_argument("families", nargs="+", type=int, choices=(4, 6))
    return parser


@dataclasses.dataclass
class Setup:
    """The settings of both servers."""

    pool: str = ""
    pd_pool: str = PD_POOL
    valid_lifetime: int = 3600
    # Seconds; 0 means never.
    lfc_interval: int = 0
    # kea-dhcp4 only: sockets that also receive broadcasts of clients without an address.
    raw: bool = False
    # The keywords of a database, with its type; None for a lease file.
    database: dict | None = None
    # Commands are answered on a UNIX socket and, by the example servers, by HTTP.
    commands: bool = False


def lease_file(directory, family):
    return pathlib.Path(directory) / f"leases{family}.csv"


def control_socket(directory):
    # A short name, as the path of a socket has at most 107 bytes.
    return pathlib.Path(directory) / "ctl"


def ours_command(family, directory, setup, examples):
    connection = f"type=memfile name={lease_file(directory, family)} lfc-interval={setup.lfc_interval}"
    if setup.database:
        connection = " ".join(f"{keyword}={value}" for keyword, value in setup.database.items())
    command = [str(pathlib.Path(examples) / f"dhcp{family}_server"), connection]
    command += ["--bind", f"{'0.0.0.0' if family == 4 else '[::]'}:{PORTS[family]}"]
    command += ["--interface", INTERFACE, "--subnet", SUBNETS[family], "--pool", setup.pool or POOLS[family]]
    command += ["--valid-lifetime", str(setup.valid_lifetime), "--threads", str(THREADS)]
    if setup.commands:
        command += ["--control-socket", str(control_socket(directory))]
        command += ["--control-http", f"{SERVER_ADDRESS}:{HTTP_PORT}"]
    if family == 6:
        command += ["--pd-pool", setup.pd_pool]
        if setup.database:
            command += ["--server-id", "00:02:00:00:09:bf:01:02:03:04:06"]
    return command


def kea_command(family, directory, setup):
    """Writes an equivalent configuration of Debian's server. Returns its command."""
    directory = pathlib.Path(directory)
    subnet = {
        "id": 1,
        "subnet": SUBNETS[family],
        "pools": [{"pool": (setup.pool or POOLS[family]).replace("-", " - ")}],
    }
    config = {
        "lease-database": {
            "type": "memfile",
            "persist": True,
            "name": str(lease_file(directory, family)),
            "lfc-interval": setup.lfc_interval,
        },
        "multi-threading": {"enable-multi-threading": True, "thread-pool-size": THREADS},
        "interfaces-config": {"interfaces": [INTERFACE]},
        "valid-lifetime": setup.valid_lifetime,
        "loggers": [
            {
                "name": f"kea-dhcp{family}",
                "severity": "WARN",
                "output_options": [{"output": str(directory / "kea.log"), "maxsize": 0}],
            }
        ],
    }
    if setup.commands:
        hooks = [next(pathlib.Path("/usr/lib").glob(f"*/kea/hooks/libdhcp_{name}_cmds.so")) for name in ("lease", "stat")]
        config["hooks-libraries"] = [{"library": str(hook)} for hook in hooks]
        config["control-socket"] = {"socket-type": "unix", "socket-name": str(control_socket(directory))}
    if setup.database:
        config["lease-database"] = {**setup.database, "port": int(setup.database["port"])}
    if family == 4:
        config["interfaces-config"]["dhcp-socket-type"] = "raw" if setup.raw else "udp"
    else:
        prefix, length, delegated = setup.pd_pool.split("/")
        subnet["interface"] = INTERFACE
        subnet["rapid-commit"] = True
        subnet["pd-pools"] = [
            {"prefix": prefix, "prefix-len": int(length), "delegated-len": int(delegated)}
        ]
        config["preferred-lifetime"] = setup.valid_lifetime * 5 // 8
        # The same identifier after a restart, without a file for it.
        config["server-id"] = {
            "type": "EN",
            "enterprise-id": 2495,
            "identifier": "0102030405",
            "persist": False,
        }
    config[f"subnet{family}"] = [subnet]
    path = directory / "kea.json"
    path.write_text(json.dumps({f"Dhcp{family}": config}, indent=1))
    return [f"/usr/sbin/kea-dhcp{family}", "-c", str(path)]


def environment(directory):
    return dict(
        os.environ,
        KEA_PIDFILE_DIR=str(directory),
        KEA_LOCKFILE_DIR="none",
        KEA_LOGGER_DESTINATION=str(pathlib.Path(directory) / "kea-early.log"),
        KEA_DHCP_DATA_DIR=str(directory),
    )


def server_command(kind, family, directory, setup, examples):
    if kind == "kea":
        return kea_command(family, directory, setup)
    return ours_command(family, directory, setup, examples)


@dataclasses.dataclass
class Row:
    """A lease as list_leases prints it."""

    state: str
    client: str
    expire: int


class Server:
    """A server in a network namespace, with a directory for its files and its log."""

    def __init__(self, kind, family, name, setup, options):
        self.kind = kind
        self.family = family
        self.directory = pathlib.Path(options.state) / name
        self.directory.mkdir()
        self.file = lease_file(self.directory, family)
        self.log = self.directory / "server.log"
        self.namespace = options.server_ns
        self.examples = pathlib.Path(options.examples)
        self.set_up(setup)
        self.process = None
        self.log_start = 0

    def set_up(self, setup):
        """What it does when it is started the next time."""
        self.command = server_command(self.kind, self.family, self.directory, setup, self.examples)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        with open(self.log, "ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *self.command],
                env=environment(self.directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end and self.process.poll() is None:
            if self.is_listening():
                return
            time.sleep(0.02)
        raise Failure(f"{self.command[0]} did not start: {self.last_lines()}")

    def is_listening(self):
        """Returns whether its port is bound in its namespace, and the example server, which binds it first, has its leases."""
        if self.kind == "ours" and b"listening on" not in self.log.read_bytes()[self.log_start :]:
            return False
        port = f":{PORTS[self.family]:04X}"
        table = "udp6" if self.family == 6 else "udp"
        try:
            rows = pathlib.Path(f"/proc/{self.process.pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            return False
        return any(row.split()[1].endswith(port) for row in rows)

    def last_lines(self):
        lines = []
        for name in ("server.log", "kea-early.log", "kea.log"):
            path = self.directory / name
            if path.exists():
                lines += path.read_text(errors="replace").splitlines()[-5:]
        return "\n".join(lines) or "it logged nothing"

    def stop(self):
        """Terminates the server. Returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.command[0]} does not end after SIGTERM") from None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def leases(self):
        """Returns the leases that list_leases reads from its files: for each address, or prefix with its length, state, client
        and expiry in seconds since the epoch."""
        command = [str(self.examples / "list_leases"), str(self.family), str(self.file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or (done.stderr and self.kind == "ours"):
            raise Failure(f"list_leases: {done.stderr.strip()}")
        found = {}
        for line in done.stdout.splitlines():
            address, state, client, end = line.split("\t")
            when = datetime.datetime.fromisoformat(end.split()[1].replace("Z", "+00:00"))
            found[address] = Row(state, client, int(when.timestamp()))
        return found

    def ask(self, name, **arguments):
        """Returns the answer to a command by the UNIX socket."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(COMMAND_LIMIT)
            link.connect(str(control_socket(self.directory)))
            request = {"command": name}
            if arguments:
                request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
            link.sendall(json.dumps(request).encode())
            # So the server does not wait for another request.
            link.shutdown(socket.SHUT_WR)
            parts = []
            while part := link.recv(1 << 20):
                parts.append(part)
        return json.loads(b"".join(parts))

    def cpu_seconds(self):
        """Returns the processor time of all its threads, in user and in system mode."""
        # The fields after the name, which may contain blanks.
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", text, re.M)[1]) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def perfdhcp_command(namespace, family, rate, clients, first_client=0, kinds=(), options=()):
    """Returns the command of perfdhcp as a relay that takes a number of clients in turn, the first with a given number."""
    number = f"{0x000C00000000 + first_client:012x}"
    command = ["ip", "netns", "exec", namespace, "perfdhcp", f"-{family}", "-r", str(rate), "-R", str(clients)]
    command += ["-b", "mac=" + ":".join(re.findall("..", number))]
    if family == 6:
        # Without this option the DUID contains a time.
        command += ["-A1", "-b", f"duid=00030001{number}"]
        if kinds:
            command += ["-e", kinds]
    command += ["-l", CLIENT_INTERFACE, *options]
    return [*command, SERVER_ADDRESS if family == 4 else "all"]


@dataclasses.dataclass
class Exchange:
    """The numbers of one kind of exchange from the report of perfdhcp."""

    sent: int
    received: int


def perfdhcp_report(text):
    """Returns the numbers of exchanges of each kind, such as DISCOVER-OFFER."""
    exchanges = {}
    for kind, part in re.findall(r"\*\*\*Statistics for: ([^*]+?)\*\*\*\s+(.*?)(?=\*\*\*Stat|\Z)", text, re.S):
        found = [re.search(rf"^{word} packets: (\d+)", part, re.M) for word in ("sent", "received")]
        if all(found):
            exchanges[kind] = Exchange(*(int(f[1]) for f in found))
    return exchanges


FIRST = {4: "DISCOVER-OFFER", 6: "SOLICIT-ADVERTISE"}
LAST = {4: "REQUEST-ACK", 6: "REQUEST-REPLY"}
