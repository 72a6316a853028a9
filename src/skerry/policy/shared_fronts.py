"""Providers whose servers answer for the names of many customers. Pure.

What the TLS hello names and what the request names may differ there, so they are inspected and not spliced
(R14, R15).

Short on purpose: generic suffixes only. A company's own name that points to such a provider cannot be told
by its name, and is spliced; `tls: inspect` in a rule is for that.
"""

SUFFIXES = frozenset(
    (
        "akamaiedge.net",
        "akamaihd.net",
        "akamaized.net",
        "amazonaws.com",
        "appspot.com",
        "azureedge.net",
        "azurefd.net",
        "azurewebsites.net",
        "b-cdn.net",
        "cdn77.org",
        "cloudapp.net",
        "cloudflare.net",
        "cloudflarestorage.com",
        "cloudfront.net",
        "digitaloceanspaces.com",
        "edgekey.net",
        "edgesuite.net",
        "fastly.net",
        "fastlylb.net",
        "firebaseapp.com",
        "fly.dev",
        "github.io",
        "gitlab.io",
        "googleapis.com",
        "googleusercontent.com",
        "herokuapp.com",
        "netlify.app",
        "onrender.com",
        "pages.dev",
        "r2.dev",
        "run.app",
        "vercel.app",
        "web.app",
        "windows.net",
        "workers.dev",
    )
)


def is_shared_front(name: str) -> bool:
    """Whether a canonical name is, or is below, one of the list."""
    at = -1
    while True:
        if name[at + 1 :] in SUFFIXES:
            return True
        at = name.find(".", at + 1)
        if at < 0:
            return False
