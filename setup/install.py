"""Makes the machine ready for a purpose: says what will change, then changes what is missing."""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from setup import host_changes, image, needs, runsc, toolchains
from setup.agent import build_agent
from setup.commands import SetupError, say
from setup.elevation import Root
from setup.environment import ensure_js, ensure_mitmproxy, ensure_venv
from setup.places import BUILD, ENVIRONMENT, HOST_CHANGES, MANIFEST, VENV, cache_directory


class Purpose(StrEnum):
    """What the machine is to be ready for."""

    RUN = "run"
    LINT = "lint"
    TEST = "test"
    BENCH = "bench"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is missing.

    Attributes:
        packages: Debian packages to install.
        rust: Programs of the Rust toolchain to install from Debian's packages.
        users: System users to create.
        image: The root image has to be built.
        runs: Sandboxes are to run: agent, runsc, image and users are needed.
        uses_js: The JavaScript SDK is needed.
        compares: What Skerry is measured beside is needed.
    """

    packages: list[str]
    rust: Sequence[str]
    users: list[str]
    image: bool
    runs: bool
    uses_js: bool
    compares: bool

    @property
    def needs_root(self) -> bool:
        """Whether a step needs root."""
        return bool(self.packages or self.rust or self.users or self.image)


def make_plan(purpose: Purpose) -> Plan:
    """Look at the machine; changes nothing."""
    runs = purpose is not Purpose.LINT
    wanted = [*needs.PYTHON]
    if runs:
        wanted += [*needs.RUNTIME, *needs.BUILD]
    else:
        wanted += needs.COMPILER
    if purpose is Purpose.BENCH:
        wanted += needs.BENCH
    programs = toolchains.RUST_BUILDERS if runs else (*toolchains.RUST_BUILDERS, *toolchains.RUST_LINTERS)
    return Plan(
        packages=needs.missing(wanted),
        rust=() if toolchains.rust(programs) else programs,
        users=host_changes.missing_users() if runs else [],
        image=runs and not image.is_built(),
        runs=runs,
        uses_js=purpose in (Purpose.TEST, Purpose.BENCH),
        compares=purpose is Purpose.BENCH,
    )


def announce(plan: Plan) -> None:
    """Say what will change on the host, before anything does."""
    if not plan.needs_root:
        return
    say("Skerry's set-up will change this host:")
    if plan.packages:
        say(f"  * Debian packages: {' '.join(plan.packages)}, and what they depend on")
    if plan.rust:
        say(f"  * Debian packages with Rust: {' '.join(plan.rust)}")
    if plan.users:
        say(f"  * system users without home, shell or password: {' '.join(plan.users)}")
    if plan.packages or plan.rust or plan.users:
        say(f"  * {HOST_CHANGES}: a record of this, so that `make uninstall` can undo it")
    if plan.image:
        say("It also needs root to build the base image; that leaves nothing on the host.")
    say(f"For you alone: {cache_directory()}, and {VENV.name}/ and {BUILD.name}/ in this checkout.")


def install(purpose: Purpose) -> None:
    """Install what is missing for a purpose. What is done already is left; can be interrupted at any time.

    Raises:
        SetupError: Something cannot be had; says what to do.
    """
    plan = make_plan(purpose)
    announce(plan)
    BUILD.mkdir(exist_ok=True)
    with Root() as root:
        if plan.packages or plan.rust:
            root.do("update_package_lists")
            root.do("install_packages", packages=[*plan.packages, *toolchains.rust_packages(plan.rust)])
        if plan.users:
            root.do("create_users")
        ensure_venv()
        if plan.compares:
            ensure_mitmproxy()
        rust = toolchains.rust()
        if rust is None:
            raise SetupError("Rust was installed, but does not run")
        paths = [rust.directory]
        if plan.uses_js:
            node = toolchains.node()
            paths.append(node.directory)
            ensure_js(node)
        if plan.runs:
            _build(root, rust)
    on_path = os.environ.get("PATH", "").split(":")
    exports = [f"{shlex.quote(str(path))}:" for path in paths if str(path) not in on_path]
    ENVIRONMENT.write_text(f'export PATH={"".join(exports)}"$PATH"\n')


def _build(root: Root, rust: toolchains.Toolchain) -> None:
    built = image.build_image(root)
    manifest = {
        "agent": str(build_agent(rust)),
        "runsc": str(runsc.existing_runsc() or runsc.build_runsc()),
        "images": {image.NAME: {"digest": built.digest, "path": str(built.path)}},
    }
    MANIFEST.write_text(json.dumps(manifest, indent=1) + "\n")
