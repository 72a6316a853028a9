"""Undoes what the set-up did: to the host, to the user's cache, to this checkout."""

from setup import host_changes
from setup.cache import remove_tree
from setup.commands import say
from setup.elevation import Root
from setup.environment import JS_TESTS
from setup.places import BUILD, REPOSITORY, VENV, cache_directory

_CACHED = ("agent", "images", "runsc", "tools")


def uninstall() -> None:
    """Remove everything that the set-up brought, and nothing that was there before.

    Raises:
        SetupError: Something is still in use; what could be removed is.
    """
    changes = host_changes.recorded()
    if changes.users or changes.packages:
        say("This removes from the host what the set-up brought:")
        say(f"  * system users: {' '.join(changes.users) or 'none'}")
        say(f"  * Debian packages: {' '.join(changes.packages) or 'none'}")
        with Root() as root:
            root.do("undo")
    cache = cache_directory()
    for kind in _CACHED:
        remove_tree(cache / kind)
    if cache.is_dir() and not any(cache.iterdir()):
        cache.rmdir()
    for directory in (VENV, BUILD, JS_TESTS / "node_modules", REPOSITORY / "guest" / "target"):
        remove_tree(directory)
    say(f"Removed {cache} and what was built in this checkout. Data directories of `skerry up` stay.")
