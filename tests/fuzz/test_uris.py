"""Addresses as anybody may type them: a typed error or a source, no secret shown, no crash."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finedge.errors import FinedgeError
from finedge.redact import mask, mask_text
from finedge.runtime.sources import SOURCES, CaptureOptions, Source, gst_text, open_source
from finedge.runtime.sources.address import port_of, split

SECRET = "S3CRET"
CHARACTERS = st.characters(codec=None)
JUNK = st.text(CHARACTERS, max_size=30) | st.text("aA1:/@?#&=;%.[]! \\\"'\n\t\0", max_size=30)
SCHEMES = st.sampled_from(
    [
        "rtsp://",
        "RTSP://",
        "rtsps://",
        "http://",
        "https://",
        "rtmp://",
        "srt://",
        "ws://",
        "x-y+z.1://",
    ]
)
# A password as typed: anything around the secret. User and host are plain: where all is ambiguous,
# no rule can tell.
AROUND = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8
)
USERS = st.sampled_from(["bob", "me@mail.org", "bob smith", "", "a.b-c", "DOMAIN\\bob"])
HOSTS = st.sampled_from(["cam", "10.0.0.1", "cam.local:554", "[::1]:554", "127.0.0.1:1"])
TAILS = st.sampled_from(["", "/", "/x", "/live/1?channel=2", "?a=b", "#f", "/a%20b"])
KEYS = st.sampled_from(["p", "pwd", "k", "token", "%70wd", "a[b]", "u", "é", "x-y", "auth"])


VALUES = st.text("aB1-_.~%2F", max_size=6).map(lambda before: before + SECRET)
# Sources that carry the secret somewhere.
WITH_SECRET = st.one_of(
    st.builds("{}{}:{}S3CRET{}@{}{}".format, SCHEMES, USERS, AROUND, AROUND, HOSTS, TAILS),
    st.builds("{}{}/v?{}={}".format, SCHEMES, HOSTS, KEYS, VALUES),
    st.builds("{}{}/v?channel=1&{}={}&subtype=0".format, SCHEMES, HOSTS, KEYS, VALUES),
    st.builds("{}{}/v#{}".format, SCHEMES, HOSTS, VALUES),
    st.builds("{}{}/v?{}".format, SCHEMES, HOSTS, VALUES),
    st.builds("http://{}/live/bob/{}/1.ts".format, HOSTS, VALUES),
    st.builds("{}:{}@{}{}".format, USERS.filter(bool), VALUES, HOSTS, TAILS),
    st.builds("rtspsrc location={}bob:{}@{}{} ! appsink".format, SCHEMES, VALUES, HOSTS, TAILS),
    st.builds('souphttpsrc user-pw="{}" ! appsink'.format, VALUES),
)


MUTANTS = st.builds(
    lambda text, at, junk: text[: at % (len(text) + 1)] + junk + text[at % (len(text) + 1) :],
    WITH_SECRET,
    st.integers(0, 200),
    JUNK,
)


@pytest.mark.parametrize("examples", [300, pytest.param(8_000, marks=pytest.mark.slow)])
def test_no_mask_shows_the_secret(examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(WITH_SECRET)
    def check(source: str) -> None:
        masked = mask(source)
        assert SECRET not in masked
        assert SECRET not in mask(masked)

    check()


@pytest.mark.parametrize("examples", [300, pytest.param(8_000, marks=pytest.mark.slow)])
def test_no_address_raises_an_untyped_error(examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(JUNK | MUTANTS | st.builds(lambda s, j: s + j, SCHEMES, JUNK))
    def check(source: str) -> None:
        assert isinstance(mask(source) + mask_text(source), str)
        with contextlib.suppress(FinedgeError):
            parts = split(source)
            assert parts.scheme not in ("rtsp", "http") or 0 < port_of(parts) < 65536
            gst_text.rtsp(source, CaptureOptions(), jetson=False)

    check()


@pytest.mark.parametrize("examples", [200, pytest.param(5_000, marks=pytest.mark.slow)])
def test_every_address_is_opened_or_refused_with_a_typed_error(
    examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kinds do not open anything: the test ends where one of them is chosen.
    def refuse(uri: str, capture: CaptureOptions | None = None) -> Source:
        raise FinedgeError(uri)

    for name, kind in SOURCES.items():
        monkeypatch.setitem(SOURCES, name, replace(kind, open=refuse))

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(JUNK | MUTANTS | WITH_SECRET)
    def check(source: str) -> None:
        with pytest.raises(FinedgeError) as error:
            open_source(source)
        if source.count(SECRET) == 1 and mask(source).count(SECRET) == 0:
            assert SECRET not in str(error.value)

    check()


UNSENDABLE = [
    "rtsp://cam/\0",
    "rtsp://cam/a\nb",
    "rtsp://c\ud800am/",
    "http://cam/" + "a" * 100_000,
]


@pytest.mark.parametrize("source", [*UNSENDABLE, "\0", "a\0.jpg", "http://\0", "a" * 100_000])
def test_an_address_that_nothing_can_take_is_a_typed_error(source: str) -> None:
    with pytest.raises(FinedgeError) as error:
        open_source(source)
    assert len(str(error.value).splitlines()[0]) < 1000 or not source.startswith("http")
