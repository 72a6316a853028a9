"""How programs in a sandbox are told what to trust: the variables that they look at.

The agent's `install_trust` puts what is added into the system's own bundle too, which is what most programs
read; the variables are for those which carry a list of their own.

Source: the documentation of each tool; requirement G60.
"""

TRUST_BUNDLE = "/etc/skerry/ca-bundle.pem"
"""The system's authorities and what was added; ``guest/agent/src/trust.rs`` writes it, and the next one."""

TRUST_CERTIFICATE = "/etc/skerry/ca.pem"
"""Only what was added."""

ADDING = {
    "NODE_EXTRA_CA_CERTS": TRUST_CERTIFICATE,
    "DENO_CERT": TRUST_CERTIFICATE,
    "DENO_TLS_CA_STORE": "system,mozilla",
}
"""Variables whose file is added to a program's own list."""

_REPLACING = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "npm_config_cafile",
)
"""Variables whose file takes the place of a program's own list: it must hold the system's authorities too."""

TRUST_VARIABLES = ADDING | dict.fromkeys(_REPLACING, TRUST_BUNDLE)
"""Defaults for every process: what a client sets itself is left alone."""
