#!/usr/bin/env python3
"""Records the DHCP leases that a server acknowledges, as seen on an interface.

usage: ack-recorder.py 4|6 INTERFACE FILE

One event a line in FILE, in the order of the packets:

    ack TIME TYPE ADDRESS CLIENT REQUEST-TIME   the server granted the lease
    release TIME TYPE ADDRESS CLIENT            a client asked for its release
    released TIME TYPE ADDRESS CLIENT           the server confirmed it (v6)
    end PACKETS DROPPED                         the kernel's counts

TIME is the monotonic clock. TYPE is V4, NA or PD; CLIENT is the hardware
address (v4) or DUID/IAID (v6). SIGTERM ends the program, after the packets that
are waiting in the socket.
"""

import ipaddress
import signal
import socket
import struct
import sys
import time

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_STATISTICS = 6
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 128 << 20

COOKIE = b"\x63\x82\x53\x63"
V4_REQUEST, V4_ACK, V4_RELEASE = 3, 5, 7
V6_REQUEST, V6_RENEW, V6_REBIND, V6_REPLY, V6_RELEASE = 3, 5, 6, 7, 8
V6_RELAY_FORWARD, V6_RELAY_REPLY = 12, 13
OPT_CLIENTID, OPT_IA_NA, OPT_IAADDR, OPT_RELAY_MSG = 1, 3, 5, 9
OPT_STATUS, OPT_IA_PD, OPT_IAPREFIX = 13, 25, 26


def udp_payload(frame):
    """Returns the payload of a UDP datagram in an Ethernet frame, or None."""
    kind = frame[12:14]
    if kind == b"\x08\x00":
        if frame[23] != socket.IPPROTO_UDP:
            return None
        start = 14 + (frame[14] & 15) * 4
    elif kind == b"\x86\xdd":
        if frame[20] != socket.IPPROTO_UDP:
            return None
        start = 54
    else:
        return None
    length = int.from_bytes(frame[start + 4 : start + 6], "big")
    return frame[start + 8 : start + length]


class V4:
    def __init__(self, out):
        self.out = out
        self.requests = {}

    def packet(self, now, data):
        if data[236:240] != COOKIE:
            return
        kind = self.message_type(data)
        xid = data[4:8]
        if kind == V4_REQUEST:
            self.requests[xid] = now
        elif kind == V4_ACK:
            address = data[16:20]
            if address != b"\0\0\0\0":
                asked = self.requests.pop(xid, now)
                self.write("ack", now, address, data, f" {asked:.6f}")
        elif kind == V4_RELEASE:
            self.write("release", now, data[12:16], data, "")

    @staticmethod
    def message_type(data):
        at, end = 240, len(data)
        while at + 2 < end:
            code = data[at]
            if code == 53:
                return data[at + 2]
            if code == 255:
                return None
            at += 1 if code == 0 else 2 + data[at + 1]
        return None

    def write(self, event, now, address, data, rest):
        client = data[28 : 28 + min(data[2], 16)].hex(":")
        self.out.write(f"{event} {now:.6f} V4 {socket.inet_ntoa(address)} {client}{rest}\n")


def v6_options(data, at):
    """Yields the options from an offset on, as pairs of code and value."""
    end = len(data)
    while at + 4 <= end:
        code, length = struct.unpack_from("!HH", data, at)
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + length


class V6:
    def __init__(self, out):
        self.out = out
        self.requests = {}

    def packet(self, now, data):
        while data and data[0] in (V6_RELAY_FORWARD, V6_RELAY_REPLY):
            data = next((v for c, v in v6_options(data, 34) if c == OPT_RELAY_MSG), b"")
        if len(data) < 4:
            return
        kind, xid = data[0], data[1:4]
        if kind in (V6_REQUEST, V6_RENEW, V6_REBIND):
            self.requests[xid] = (now, None)
        elif kind == V6_RELEASE:
            leases, _, _ = self.leases(data)
            self.requests[xid] = (now, leases)
            self.write("release", now, leases, "")
        elif kind == V6_REPLY:
            asked, released = self.requests.pop(xid, (now, None))
            leases, accepted, complete = self.leases(data)
            if released is None and accepted:
                # A lifetime of 0 ends a lease.
                granted = [entry[1:] for entry in leases if entry[0]]
                self.write("ack", now, granted, f" {asked:.6f}")
            elif released is not None and accepted and complete:
                self.write("released", now, released, "")

    @staticmethod
    def leases(data):
        """Returns the leases of the IAs without an error status, whether the
        message has no error status, and whether no IA has one."""
        duid, found, accepted, complete = "", [], True, True
        for code, value in v6_options(data, 4):
            if code == OPT_CLIENTID:
                duid = value.hex(":")
            elif code == OPT_STATUS:
                accepted = value[:2] == b"\0\0"
            elif code in (OPT_IA_NA, OPT_IA_PD):
                iaid = int.from_bytes(value[:4], "big")
                inside, good = [], True
                for sub, content in v6_options(value, 12):
                    if sub == OPT_STATUS:
                        good = content[:2] == b"\0\0"
                    elif sub == OPT_IAADDR and code == OPT_IA_NA:
                        lifetime = int.from_bytes(content[20:24], "big")
                        inside.append((lifetime, "NA", content[:16], iaid))
                    elif sub == OPT_IAPREFIX and code == OPT_IA_PD:
                        lifetime = int.from_bytes(content[4:8], "big")
                        inside.append((lifetime, "PD", content[9:25], iaid))
                if good:
                    found += inside
                else:
                    complete = False
        leases = [(v, t, ipaddress.IPv6Address(a), f"{duid}/{i}") for v, t, a, i in found]
        return leases, accepted, complete

    def write(self, event, now, leases, rest):
        for *_, kind, address, client in leases:
            self.out.write(f"{event} {now:.6f} {kind} {address} {client}{rest}\n")


def main():
    family, interface, name = sys.argv[1:]
    stop = False

    def on_term(_signal, _frame):
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_term)
    # All protocols: only such sockets also receive outgoing packets.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    sock.bind((interface, ETH_P_ALL))
    sock.settimeout(0.2)

    with open(name, "w", encoding="ascii") as out:
        handler = {"4": V4, "6": V6}[family](out)
        print("ready", flush=True)
        while True:
            try:
                frame = sock.recv(65536)
            except socket.timeout:
                if stop:
                    break
                continue
            payload = udp_payload(frame)
            if payload:
                try:
                    handler.packet(time.monotonic(), payload)
                except (IndexError, struct.error, ValueError) as error:
                    print(f"invalid packet: {error}", file=sys.stderr)
        packets, dropped = struct.unpack("=II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        out.write(f"end {packets} {dropped}\n")


if __name__ == "__main__":
    main()
