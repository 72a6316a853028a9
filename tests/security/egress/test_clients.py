"""What must keep working from the default image, inspected and spliced (G60): one matrix."""

from collections.abc import Iterator

import pytest

from tests.conftest import Built
from tests.harness.origins.network import PASSWORD, Internet
from tests.harness.origins.packages import download_wheels, write_packages
from tests.security.egress.conftest import Create, Guest

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(300)]

MODES = {"inspect": "api.test", "splice": "other.test"}
VENV = "/tmp/venv-$MODE"

CLIENTS = {
    "curl": "curl -fsS $SITE/repo.git/HEAD",
    "curl, upload": "head -c 3000000 /dev/zero | curl -fsS -T - https://$HOST/status/204 && echo works",
    "wget": "wget -qO- $SITE/repo.git/HEAD",
    "git clone": "git clone -q $SITE/repo.git $DIR && cat $DIR/hello.txt",
    "git clone, token in Basic": "git clone -q https://user:$TOKEN@$HOST/private/repo.git $DIR"
    " && cat $DIR/hello.txt",
    "git clone, LFS": "git clone -q $SITE/large.git $DIR && wc -c < $DIR/big.bin | grep 13000",
    "pip": f"python3 -m venv {VENV} && {VENV}/bin/pip install -q --index-url $SITE/simple/ skerrydemo"
    f" && {VENV}/bin/python -m skerrydemo",
    "npm": "mkdir $DIR && cd $DIR && npm install --silent --registry $SITE/npm-$HOST/ skerrydemo"
    " && node_modules/.bin/skerrydemo",
    "npx": "cd /tmp && npm_config_cache=$DIR npx --yes --registry $SITE/npm-$HOST/ skerrydemo",
    "node fetch": "node -e \"fetch('https://$HOST/echo').then(r => r.text()).then(t => console.log(t))\"",
    "deno fetch": "deno eval \"console.log((await (await fetch('https://$HOST/echo')).json()).method)\"",
    "python urllib": "python3 -c \"import urllib.request as u; print(u.urlopen('https://$HOST/echo').status)\"",
    "openssl s_client": "printf 'GET /echo HTTP/1.1\\r\\nHost: '$HOST'\\r\\nConnection: close\\r\\n\\r\\n' |"
    " openssl s_client -quiet -verify_return_error -servername $HOST -connect $HOST:443 2>/dev/null"
    " | grep method",
    "apt": 'echo "deb [trusted=yes] $SITE/apt ./" | sudo tee /etc/apt/sources.list > /dev/null'
    " && sudo rm -rf /etc/apt/sources.list.d && sudo apt-get -qq update"
    " && sudo apt-get -qq remove skerrydemo; sudo apt-get -qq install skerrydemo > /dev/null && skerrydemo",
}

PYTHON_CLIENTS = {
    "requests": "import requests; print(requests.get('https://$HOST/echo').status_code)",
    "httpx": "import httpx; print(httpx.get('https://$HOST/echo').status_code)",
    "aiohttp": "import aiohttp, asyncio\n"
    "async def main():\n"
    "    async with aiohttp.ClientSession() as session, session.get('https://$HOST/echo') as answer:\n"
    "        print(answer.status)\n"
    "asyncio.run(main())",
}


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], bool]]:
    """What works; printed as a table at the end."""
    found: dict[tuple[str, str], bool] = {}
    yield found
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line("")
        for client in sorted({client for client, _ in found}):
            row = "  ".join(f"{mode} {'works' if found.get((client, mode)) else 'FAILS':6}" for mode in MODES)
            reporter.write_line(f"{client:28} {row}")


@pytest.fixture(scope="module")
def guest(net: Internet, create: Create, built: Built) -> Iterator[Guest]:
    """A sandbox in which one host is inspected and the other spliced, and packages for it."""
    write_packages(net.files, list(MODES.values()))
    with create(
        allow_net=list(MODES.values()),
        secrets={"TOKEN": {"hosts": ["api.test"], "value": PASSWORD}},
        memory_mb=2048,
    ) as made:
        yield made


@pytest.fixture(scope="module")
def wheels(net: Internet, guest: Guest) -> None:
    """Real packages in the index."""
    if not download_wheels(net.files):
        pytest.skip("no package index can be reached from here")


def run(guest: Guest, mode: str, client: str, command: str) -> tuple[int, str]:
    """Run one command with the mode's host."""
    directory = f"/tmp/{client.replace(' ', '-').replace(',', '')}-{mode}"
    token = "" if mode == "inspect" else f"TOKEN={PASSWORD}; "
    host = MODES[mode]
    setting = f"{token}export HOST={host} MODE={mode} SITE=https://{host}/static DIR={directory}"
    return guest.shell(f"{setting}; {command}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("client", CLIENTS)
def test_client(guest: Guest, outcomes: dict[tuple[str, str], bool], client: str, mode: str) -> None:
    code, printed = run(guest, mode, client, CLIENTS[client])
    outcomes[client, mode] = code == 0
    assert (code, printed.strip() != "") == (0, True), printed[-2000:]


@pytest.mark.parametrize("mode", MODES)
def test_python_packages(
    guest: Guest, wheels: None, outcomes: dict[tuple[str, str], bool], mode: str
) -> None:
    """pip installs real packages, which then fetch something themselves; and so does uv."""
    names = " ".join([*PYTHON_CLIENTS, "uv"])
    place = f"/tmp/packages-{mode}"
    code, printed = run(
        guest,
        mode,
        "pip",
        f"python3 -m venv {place} && {place}/bin/pip install -q --index-url $SITE/simple/ {names}",
    )
    outcomes["pip, real packages", mode] = code == 0
    assert code == 0, printed
    guest.sandbox.fs.write_text_file(
        f"{place}/uv.sh",
        f"{place}/bin/uv pip install -q --python {place} --index-url $SITE/simple/ skerrydemo",
    )
    for client, program in PYTHON_CLIENTS.items():
        guest.sandbox.fs.write_text_file(f"{place}/{client}_client.py", program.replace("$HOST", MODES[mode]))
    commands = {client: f"{place}/bin/python {place}/{client}_client.py" for client in PYTHON_CLIENTS}
    commands["uv"] = f"HOST=$HOST sh {place}/uv.sh && echo works"
    failed = {}
    for client, command in commands.items():
        code, printed = run(guest, mode, client, command)
        outcomes[client, mode] = code == 0
        if code != 0:
            failed[client] = printed[-1500:]
    assert failed == {}
