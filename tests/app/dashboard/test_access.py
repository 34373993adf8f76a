"""Who may reach the dashboard: this machine by default, others only when it is meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.app.dashboard.access import (
    Access,
    decide_access,
    is_admitted,
    is_loopback,
    is_trusted,
)
from awqscope.mixedprec.errors import InputError


def decide(host: str, **changes: object) -> Access:
    asked = {"allow_remote": False, "token": None, "names": (), "read_only": False, **changes}
    return decide_access(host, **asked)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine_alone(host: str) -> None:
    assert is_loopback(host)
    access = decide(host)
    assert not access.read_only
    assert access.token is None
    written = f"[{host}]" if ":" in host else host
    assert is_trusted(access, written)
    assert is_trusted(access, f"{written}:8050")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "box.lan", "", "127.0.0.1.lan"])
def test_other_machines_only_when_meant(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(InputError, match="--allow-remote"):
        decide(host)
    assert decide(host, allow_remote=True).read_only
    assert not decide(host, allow_remote=True, token="t").read_only
    assert decide(host, allow_remote=True, token="t", read_only=True).read_only


def test_read_only_can_be_asked_for_at_home() -> None:
    assert decide("localhost", read_only=True).read_only


def test_an_empty_token_is_no_token() -> None:
    """As from `--token "$UNSET"`: it would let everyone in who shows nothing."""
    for host in ("localhost", "0.0.0.0"):
        with pytest.raises(InputError, match="token is empty"):
            decide(host, allow_remote=True, token="")


@pytest.mark.parametrize("header", ["evil.example", "localhost.evil.example", "", "[::1", "a:b:c"])
def test_other_names_are_not_trusted(header: str) -> None:
    assert not is_trusted(decide("127.0.0.1"), header)


def test_given_names_are_trusted() -> None:
    access = decide("0.0.0.0", allow_remote=True, names=("Box.lan",))
    assert is_trusted(access, "box.LAN:80")
    assert is_trusted(access, "localhost")
    assert not is_trusted(access, "192.168.1.4")
    assert is_trusted(decide("192.168.1.4", allow_remote=True), "192.168.1.4:8050")
    # Its names are not known: every one is taken.
    assert is_trusted(decide("0.0.0.0", allow_remote=True), "whatever")


@given(token=st.text(min_size=1), shown=st.text() | st.none())
def test_only_the_token_admits(token: str, shown: str | None) -> None:
    access = Access("0.0.0.0", token, None, False)
    assert is_admitted(access, token)
    assert is_admitted(access, shown) == (shown == token)
    assert is_admitted(Access("localhost", None, None, False), shown)
