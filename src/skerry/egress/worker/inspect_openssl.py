"""Gives TLS contexts certificates that are in memory.

The standard library reads them from files only, and a worker can open none (`skerry.egress.worker.seccomp`).
So OpenSSL is called directly, on the context that Python's object holds; reading the key once for all
certificates also makes it three times as quick. Where OpenSSL cannot be called, because Python is linked
with it statically, a file in memory is opened; such a worker must be allowed to open it: see `OPENS_FILES`.

Source: SSL_CTX_use_certificate(3), d2i_PrivateKey(3); CPython, Modules/_ssl.c: `PySSLContext` begins with the
object's header and the pointer to its SSL_CTX.
"""

import _ssl
import base64
import ctypes
import os
import ssl
from typing import Protocol

_EVP_PKEY_EC = 408
_POINTER_AT = object.__basicsize__


class LeafKey(Protocol):
    """A private key that many certificates have."""

    def give(self, context: ssl.SSLContext, certificate: bytes) -> None:
        """Have a server's context show a certificate.

        Args:
            certificate: DER.
        Raises:
            ssl.SSLError: They do not fit.
        """
        ...


class _NativeKey:
    """A key that OpenSSL has read. It lives as long as the process."""

    def __init__(self, library: ctypes.CDLL, key: bytes) -> None:
        data = ctypes.create_string_buffer(key, len(key))
        begin = ctypes.c_void_p(ctypes.addressof(data))
        self._library = library
        self._key = library.d2i_PrivateKey(_EVP_PKEY_EC, None, ctypes.byref(begin), len(key))
        if not self._key:
            raise ssl.SSLError("not a key of an elliptic curve")

    def give(self, context: ssl.SSLContext, certificate: bytes) -> None:
        """See `LeafKey.give`."""
        pointer = _pointer(context)
        library = self._library
        if (
            library.SSL_CTX_use_certificate_ASN1(pointer, len(certificate), certificate) != 1
            or library.SSL_CTX_use_PrivateKey(pointer, self._key) != 1
        ):
            raise ssl.SSLError("the certificate does not fit the key")


class _FileKey:
    """A key that is written down anew for each certificate, in a file that has no name."""

    def __init__(self, key: bytes) -> None:
        text = base64.encodebytes(key).decode()
        self._text = f"-----BEGIN PRIVATE KEY-----\n{text}-----END PRIVATE KEY-----\n"

    def give(self, context: ssl.SSLContext, certificate: bytes) -> None:
        """See `LeafKey.give`."""
        fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
        try:
            os.write(fd, (ssl.DER_cert_to_PEM_cert(certificate) + self._text).encode())
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)


def _bind() -> ctypes.CDLL | None:
    """The OpenSSL that Python's `ssl` uses; None when its functions cannot be found."""
    pointer = ctypes.c_void_p
    try:
        # The extension module; what it depends on is searched too.
        library = ctypes.CDLL(_ssl.__file__)
        library.d2i_PrivateKey.restype = pointer
        library.d2i_PrivateKey.argtypes = [ctypes.c_int, pointer, pointer, ctypes.c_long]
        library.SSL_CTX_use_certificate_ASN1.argtypes = [pointer, ctypes.c_int, ctypes.c_char_p]
        library.SSL_CTX_use_PrivateKey.argtypes = [pointer, pointer]
        library.SSL_CTX_get_options.restype = ctypes.c_uint64
        library.SSL_CTX_get_options.argtypes = [pointer]
    except (AttributeError, OSError):
        return None
    # Should Python keep the pointer elsewhere one day, this must not be found out with a certificate.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    fits = library.SSL_CTX_get_options(_pointer(context)) == int(context.options)
    return library if fits else None


def _pointer(context: ssl.SSLContext) -> ctypes.c_void_p:
    return ctypes.c_void_p.from_address(id(context) + _POINTER_AT)


_library = _bind()

OPENS_FILES = _library is None
"""New certificates need openat(2) and memfd_create(2)."""


def native_key(key: bytes) -> LeafKey | None:
    """A key (PKCS #8, DER) that OpenSSL reads directly; None when it cannot be called."""
    return None if _library is None else _NativeKey(_library, key)


def file_key(key: bytes) -> LeafKey:
    """A key (PKCS #8, DER) that is given in files."""
    return _FileKey(key)


def leaf_key(key: bytes) -> LeafKey:
    """A key (PKCS #8, DER), given in the best way there is."""
    return native_key(key) or file_key(key)
