"""The real egressd, for tests: ``egressd_child.py ALLOWED_UID WORKER egressd --runtime-dir R``, started by
`skerry.daemon.launch.launch`.

With the worker ``stub`` its workers do what they are told in one line over the sandbox's connections, and
answer in JSON; with ``real`` they are real.
"""

import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec

from skerry.cli.places import RuntimeDir
from skerry.daemon import egressd_process
from skerry.daemon.data_dir import API_USER
from skerry.daemon.privileges import Account, system_account
from skerry.egress.messages import Adopted, Cut, FromWorker, Line, Rules, Stop, ToWorker, Used, Written

_to_worker = msgspec.msgpack.Decoder(ToWorker)
_encode = msgspec.msgpack.Encoder().encode


class StubWorker:
    """One life."""

    def __init__(self, control: int, tcp: int, udp: int) -> None:
        self.control = socket.socket(fileno=control)
        self.tcp = socket.socket(fileno=tcp)
        self.udp = socket.socket(fileno=udp)
        self.rules: Rules | None = None
        self.next_seq = 0
        self.deaf = False
        self.status: int | None = None

    def run(self) -> int:
        """Serve until told to stop."""
        ready = selectors.DefaultSelector()
        ready.register(self.control, selectors.EVENT_READ, self.obey)
        ready.register(self.tcp, selectors.EVENT_READ, self.serve)
        ready.register(self.udp, selectors.EVENT_READ, self.answer)
        while self.status is None:
            for key, _ in ready.select():
                key.data()
        return self.status

    def say(self, message: FromWorker) -> None:
        """Tell the broker."""
        self.control.send(_encode(message))

    def obey(self) -> Any:
        """Take one message of the broker."""
        data = self.control.recv(1 << 20)
        message = _to_worker.decode(data) if data else Stop()
        match message:
            case Rules():
                self.rules = message
                self.next_seq = self.next_seq or message.next_seq
                if not self.deaf:
                    self.say(Adopted(message.version))
            case Stop() if not self.deaf or not data:
                self.status = 0
        return message

    def serve(self) -> None:
        """Do what one connection says."""
        connection, _ = self.tcp.accept()
        with connection:
            connection.settimeout(10)
            word, _, rest = connection.makefile().readline().strip().partition(" ")
            answer = getattr(self, f"do_{word}")(rest)
            connection.sendall(json.dumps(answer).encode())

    def answer(self) -> None:
        """Answer one packet."""
        _, sender = self.udp.recvfrom(512)
        self.udp.sendto(b"answer", sender)

    def do_rules(self, _: str) -> Any:
        """What it goes by."""
        assert self.rules is not None
        return {
            "pid": os.getpid(),
            "version": self.rules.version,
            "secrets": {
                one.rule.name: [one.value.decode() if one.value else None, one.state, one.used]
                for one in self.rules.secrets
            },
            "authority": self.rules.authority.certificate_pem if self.rules.authority else None,
            "next_seq": self.rules.next_seq,
            "layers": [layer.name for layer in self.rules.layers],
            "settings": msgspec.to_builtins(self.rules.settings),
            "own": msgspec.to_builtins(self.rules.own),
        }

    def do_line(self, text: str) -> Any:
        """Write an audit line and wait for its confirmation."""
        seq, self.next_seq = self.next_seq, self.next_seq + 1
        self.say(Line(seq, json.dumps({"seq": seq, "text": text}).encode(), confirm=True))
        while True:
            self.control.setblocking(True)
            message = self.obey()
            if isinstance(message, Written) and message.seq >= seq:
                return seq

    def do_use(self, name: str) -> Any:
        """Say that a request carried a secret."""
        self.say(Used({name: 1}))
        return True

    def do_cut(self, name: str) -> Any:
        """Say that a placeholder strayed."""
        self.say(Cut(name))
        return True

    def do_crash(self, _: str) -> Any:
        """End badly."""
        os.kill(os.getpid(), signal.SIGSEGV)

    def do_raise(self, text: str) -> Any:
        """End by an exception that quotes a secret."""
        assert self.rules is not None
        raise ValueError(f"{text} {self.rules.secrets[0].value!r}")

    def do_deaf(self, _: str) -> Any:
        """Adopt no rules and obey no stop any more."""
        self.deaf = True
        return True

    def do_garbage(self, _: str) -> Any:
        """Break the rules between broker and worker."""
        self.control.send(b"garbage")
        return True

    def do_facts(self, _: str) -> Any:
        """What it can see of itself and others."""
        status = Path("/proc/self/status").read_text().splitlines()
        broker = next(
            line.split()[1]
            for line in Path(f"/proc/{os.getppid()}/status").read_text().splitlines()
            if line.startswith("PPid:")
        )
        return {
            "status": {name: value.split() for name, _, value in (line.partition(":") for line in status)},
            "fds": sorted(int(name) for name in os.listdir("/proc/self/fd")),
            "environment": sorted(os.environ),
            "broker's descriptors": _refused(lambda: os.listdir(f"/proc/{broker}/fd")),
            "broker's memory": _refused(lambda: os.open(f"/proc/{broker}/mem", os.O_RDONLY)),
            "root again": _refused(lambda: os.setuid(0)),
        }


def _refused(attempt: Any) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    return False


def main() -> int:
    """Run it."""
    allowed_uid, worker, runtime_dir = int(sys.argv[1]), sys.argv[2], Path(sys.argv[5])

    def account(name: str) -> Account:
        found = system_account(name)
        return Account(allowed_uid, found.gid) if name == API_USER else found

    egressd_process.system_account = account  # type: ignore[attr-defined]
    if worker == "stub":
        egressd_process.process.run = lambda *fds: StubWorker(*fds).run()  # type: ignore[attr-defined]
    return egressd_process.run(RuntimeDir(runtime_dir))


if __name__ == "__main__":
    sys.exit(main())
