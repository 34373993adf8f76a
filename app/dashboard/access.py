"""Who may reach the dashboard, and what they may do: decided here, carried out in server.py."""

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from awqscope.mixedprec.errors import InputError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
OWN_SITES = ("same-origin", "none", None)


@dataclass(frozen=True)
class Access:
    """How the server is bound. token: what a visitor must show, if anything; trusted: the host
    names a request may be for (against DNS rebinding); read_only: whether nothing can be started.
    """

    host: str
    token: str | None
    trusted: tuple[str, ...] | None
    read_only: bool


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def decide_access(
    host: str, *, allow_remote: bool, token: str | None, names: tuple[str, ...], read_only: bool
) -> Access:
    """The access policy for what was asked. InputError for a host that others can reach without
    the explicit flag. Reached by others without a token, the dashboard is read-only."""
    if token == "":
        raise InputError("the token is empty", "give one, or leave --token out")
    known = tuple(name.lower() for name in (*LOOPBACK_NAMES, host, *names))
    if is_loopback(host):
        return Access(host, token, known, read_only)
    if not allow_remote:
        raise InputError(
            f"host {host} can be reached from other machines",
            "add --allow-remote to mean it, and --token so that not everyone gets in",
        )
    # Bound to every address, the names it goes by are not known: only given ones can be checked.
    trusted = known if names or host not in ("0.0.0.0", "::") else None
    return Access(host, token, trusted, read_only or token is None)


def is_trusted(access: Access, header: str) -> bool:
    """Whether a request's Host header names this server (werkzeug's own check knows no IPv6)."""
    if access.trusted is None:
        return True
    try:
        return urlsplit(f"//{header}").hostname in access.trusted
    except ValueError:
        return False


def is_admitted(access: Access, shown: str | None) -> bool:
    """Whether a visitor who shows this token may come in; takes as long whatever is shown."""
    if access.token is None:
        return True
    return hmac.compare_digest(
        access.token.encode(errors="surrogatepass"), (shown or "").encode(errors="surrogatepass")
    )


def is_own_request(host: str, origin: str | None, fetch_site: str | None) -> bool:
    """Whether a request that may change something comes from the dashboard's own pages, or from no
    browser, and not from another site that a visitor has open. origin, fetch_site: the headers."""
    if fetch_site not in OWN_SITES:
        return False
    return origin is None or origin.partition("://")[2] == host
