"""The checkout's own environments: `.venv` for Python, `tests/js/node_modules` for the JavaScript SDK, and
one for what Skerry is measured beside.
"""

import sys
from pathlib import Path

from setup.cache import fingerprint, remove_tree
from setup.commands import output, run, say
from setup.places import MITMPROXY, REPOSITORY, VENV
from setup.toolchains import Toolchain
from setup.wheels import create_environment, install_locked

_LOCK = REPOSITORY / "requirements.lock"
_PROJECT = REPOSITORY / "pyproject.toml"
_MITMPROXY_LOCK = REPOSITORY / "setup" / "locks" / "mitmproxy.lock"
JS_TESTS = REPOSITORY / "tests" / "js"


def _is_stamped(directory: Path, key: str) -> bool:
    stamp = directory / ".skerry-setup"
    return stamp.is_file() and stamp.read_text() == key


def ensure_venv() -> None:
    """Have `.venv` hold what `requirements.lock` names, and this checkout in editable form."""
    key = fingerprint([_LOCK, _PROJECT, sys.version, str(VENV)])
    if _is_stamped(VENV, key):
        return
    say("installing the Python environment .venv")
    python = VENV / "bin" / "python"
    if output([python, "-c", "import sys; print(sys.version)"]) != f"{sys.version}\n":
        create_environment(VENV)
    install_locked(python, _LOCK)
    # Whatever builds the package is in the lock, so that nothing is fetched unchecked.
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "-q"]
    run([*pip, "install", "--no-deps", "--no-build-isolation", "-e", REPOSITORY], timeout_s=600)
    # As root, Skerry writes no compiled files among the sources of another user.
    run([python, "-m", "compileall", "-q", REPOSITORY / "src"], timeout_s=120)
    (VENV / ".skerry-setup").write_text(key)


def ensure_mitmproxy() -> None:
    """Have mitmproxy in an environment of its own."""
    key = fingerprint([_MITMPROXY_LOCK, sys.version, str(MITMPROXY)])
    if _is_stamped(MITMPROXY, key):
        return
    say("installing mitmproxy, to measure beside it")
    create_environment(MITMPROXY)
    install_locked(MITMPROXY / "bin" / "python", _MITMPROXY_LOCK)
    (MITMPROXY / ".skerry-setup").write_text(key)


def ensure_js(node: Toolchain) -> None:
    """Have `tests/js/node_modules` hold what its lock file names."""
    modules = JS_TESTS / "node_modules"
    key = fingerprint([JS_TESTS / "package-lock.json", node.version])
    if _is_stamped(modules, key):
        return
    say("installing the JavaScript SDK for the tests")
    remove_tree(modules)
    npm = node.directory / "npm"
    run(
        [npm if npm.exists() else "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=JS_TESTS,
        environment={"PATH": node.search_path()},
        quiet=True,
        timeout_s=600,
    )
    (modules / ".skerry-setup").write_text(key)
