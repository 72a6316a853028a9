"""What package tools fetch in tests: an index, a registry, an archive and repositories, as plain files."""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

LARGE = b"a large file\n" * 1000
"""Content of the file that git-lfs fetches."""

WHEELS = ("requests", "httpx", "aiohttp", "uv")
_GUEST_PYTHON = "3.13"
_DOWNLOAD_S = 120
_IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "init.defaultBranch=main")


def write_packages(files: Path, hosts: list[str]) -> None:
    """Make everything below a directory that origins serve.

    Args:
        hosts: Names under which it is served; an npm registry's answers hold its own name.
    """
    _git(files / "repo.git", {"hello.txt": b"hello\n"})
    oid = hashlib.sha256(LARGE).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(LARGE)}\n".encode()
    _git(
        files / "large.git",
        {".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n", "big.bin": pointer},
    )
    objects = files / "large.git" / "lfs" / "objects"
    objects.mkdir(parents=True)
    (objects / oid).write_bytes(LARGE)
    _wheel(files / "simple" / "skerrydemo")
    for host in hosts:
        _npm(files / f"npm-{host}", f"https://{host}/static/npm-{host}")
    _apt(files / "apt")


def download_wheels(files: Path) -> bool:
    """Fetch real packages for the guest into the index; False where no index can be reached from here."""
    target = files / "wheels"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--dest",
        str(target),
        "--only-binary=:all:",
    ]
    command += ["--python-version", _GUEST_PYTHON, *_platforms(), *WHEELS]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_DOWNLOAD_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False
    for wheel in target.iterdir():
        project = files / "simple" / wheel.name.split("-")[0].lower().replace("_", "-")
        project.mkdir(exist_ok=True)
        wheel.rename(project / wheel.name)
        _index(project)
    return True


def _platforms() -> list[str]:
    machine = os.uname().machine
    return [
        word
        for tag in (f"manylinux_2_28_{machine}", f"manylinux_2_17_{machine}", f"manylinux2014_{machine}")
        for word in ("--platform", tag)
    ]


def _git(bare: Path, content: dict[str, bytes]) -> None:
    """A repository that a plain web server can serve (git-update-server-info(1))."""
    work = bare.with_suffix(".work")
    work.mkdir(parents=True)
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*words: str, cwd: Path = work) -> None:
        subprocess.run(
            ["git", *_IDENTITY, *words], cwd=cwd, check=True, capture_output=True, env=environment, timeout=60
        )

    git("init")
    for name, data in content.items():
        (work / name).write_bytes(data)
    git("add", ".")
    git("commit", "-m", "content")
    git("clone", "--bare", str(work), str(bare))
    git("update-server-info", cwd=bare)


def _wheel(project: Path) -> None:
    project.mkdir(parents=True)
    name = "skerrydemo-1.0-py3-none-any.whl"
    info = "skerrydemo-1.0.dist-info"
    with zipfile.ZipFile(project / name, "w") as wheel:
        wheel.writestr("skerrydemo.py", "print('skerrydemo works')\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: skerrydemo\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    _index(project)


def _index(project: Path) -> None:
    links = "".join(f'<a href="{file.name}">{file.name}</a>' for file in sorted(project.glob("*.whl")))
    (project / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


def _npm(registry: Path, url: str) -> None:
    registry.mkdir()
    description = {"name": "skerrydemo", "version": "1.0.0", "bin": {"skerrydemo": "run.js"}}
    archive = _tarball(
        {
            "package/package.json": json.dumps(description).encode(),
            "package/run.js": b"#!/usr/bin/env node\nconsole.log('skerrydemo works');\n",
        }
    )
    (registry / "skerrydemo-1.0.0.tgz").write_bytes(archive)
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    dist = {"tarball": f"{url}/skerrydemo-1.0.0.tgz", "integrity": integrity}
    packument = {
        "name": "skerrydemo",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": description | {"dist": dist}},
    }
    (registry / "skerrydemo").write_text(json.dumps(packument))


def _tarball(content: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return held.getvalue()


def _apt(repository: Path) -> None:
    """A flat repository (sources.list(5)) with one package."""
    tree = repository / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = (
        "Package: skerrydemo\nVersion: 1.0\nArchitecture: all\n"
        "Maintainer: test <test@example.invalid>\nDescription: demo\n"
    )
    (tree / "DEBIAN" / "control").write_text(control)
    (tree / "usr" / "bin").mkdir(parents=True)
    program = tree / "usr" / "bin" / "skerrydemo"
    program.write_text("#!/bin/sh\necho skerrydemo works\n")
    program.chmod(0o755)
    package = repository / "skerrydemo.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(package)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    data = package.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    index = f"{control}Filename: ./skerrydemo.deb\nSize: {len(data)}\nSHA256: {digest}\n"
    (repository / "Packages").write_text(index)
    digest = hashlib.sha256(index.encode()).hexdigest()
    (repository / "Release").write_text(f"Suite: ./\nSHA256:\n {digest} {len(index)} Packages\n")
