"""What attack tests use inside the sandbox: a few lines of Python, as text."""

GUEST_TOOLS = r'''
import base64, http.client, json, os, socket, ssl, struct, sys, time, urllib.error, urllib.request


def attempt(function, *args):
    """What came of it: the value, or the name of the error; and how long it took."""
    start = time.monotonic()
    try:
        value = function(*args)
    except OSError as error:
        value = type(error).__name__
    return {"value": value, "s": time.monotonic() - start}


def tcp(host, port, data=b"", timeout=5.0, read=True):
    """Connect, send, and read once: the answer as Latin-1, or the name of the error."""
    with socket.create_connection((host, port), timeout=timeout) as connection:
        connection.sendall(data)
        return connection.recv(65536).decode("latin-1") if read else "connected"


def udp(host, port, data=b"x" * 64, timeout=3.0):
    """Send, and read once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((host, port))
        sock.send(data)
        return sock.recv(65536).hex()


def dns_query(name, kind=1, cls=1, opcode=0, extra=b"", questions=1):
    """A query as bytes."""
    labels = b"".join(bytes([len(part)]) + part for part in name.encode("latin-1").split(b".") if part)
    question = labels + b"\0" + struct.pack(">HH", kind, cls)
    head = struct.pack(">HHHHHH", 0x1234, 0x0100 | opcode << 11, questions, 0, 0, 1 if extra else 0)
    return head + question * questions + extra


def dns(name, kind=1, server="198.18.0.1", over_tcp=False, **more):
    """Ask: response code, addresses of A answers, number of answers."""
    query = dns_query(name, kind, **more)
    if over_tcp:
        with socket.create_connection((server, 53), timeout=5) as connection:
            connection.sendall(struct.pack(">H", len(query)) + query)
            answer = connection.recv(65536)[2:]
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.sendto(query, (server, 53))
            answer = sock.recv(65536)
    count = struct.unpack(">H", answer[6:8])[0]
    address = socket.inet_ntoa(answer[-4:]) if count and kind == 1 else None
    return {"rcode": answer[3] & 15, "answers": count, "address": address}


def request(url, method="GET", headers=(), body=None, timeout=20.0):
    """An HTTP request through urllib with the trust that the sandbox has: status, headers, body."""
    made = urllib.request.Request(url, data=body.encode() if body is not None else None, method=method)
    for name, value in headers:
        made.add_header(name, value)
    try:
        with urllib.request.urlopen(made, timeout=timeout) as answer:
            return [answer.status, answer.getheaders(), answer.read().decode("latin-1")]
    except urllib.error.HTTPError as error:
        return [error.code, list(error.headers.items()), error.read().decode("latin-1")]


def tls(host, data, server_name=None, port=443, timeout=10.0, address=None):
    """Send bytes through TLS and read to the end, or until nothing more comes."""
    context = ssl.create_default_context()
    with socket.create_connection((address or host, port), timeout=timeout) as connection:
        with context.wrap_socket(connection, server_hostname=server_name or host) as secure:
            secure.sendall(data)
            secure.settimeout(3)
            answer = b""
            try:
                while piece := secure.recv(65536):
                    answer += piece
            except (TimeoutError, ssl.SSLError, ConnectionError):
                pass
            return answer.decode("latin-1")


def hello(name, alpn=None):
    """The first flight of a TLS client."""
    context = ssl.create_default_context()
    if alpn:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()
'''
