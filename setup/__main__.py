"""The set-up's command line; the Makefile calls it."""

import argparse
import os
import sys

MIN_PYTHON = (3, 11)


def main() -> int:
    """Run one verb.

    Returns:
        The exit status: 0, or 1 with a text on standard error.
    """
    if sys.version_info < MIN_PYTHON:
        print("Python 3.11 or newer is needed: `make PYTHON=python3.11 …`", file=sys.stderr)
        return 1
    from setup.commands import SetupError
    from setup.install import Purpose, install
    from setup.uninstall import uninstall

    parser = argparse.ArgumentParser(prog="python3 -m setup", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("install", help="install what is missing").add_argument(
        "purpose", type=Purpose, choices=list(Purpose)
    )
    verbs.add_parser("uninstall", help="undo what install did")
    chosen = parser.parse_args()
    owner = os.stat(__file__).st_uid
    if os.geteuid() == 0 != owner and os.environ.get("SUDO_UID") == str(owner):
        print(
            "set-up: run it without sudo: it asks when it needs root, and the rest stays yours",
            file=sys.stderr,
        )
        return 1
    os.umask(0o022)
    try:
        if chosen.verb == "install":
            install(chosen.purpose)
        else:
            uninstall()
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
