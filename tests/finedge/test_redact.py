"""No secret of a source reaches a stream, a log record or an error, in any form of an address."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from finedge import redact
from finedge.cli import main
from finedge.errors import UsageError
from finedge.redact import learn, mask, mask_text

S = "S3CRET"
FORMS = [
    "rtsp://bob:S3CRET@127.0.0.1:1/x",
    "RTSP://bob:S3CRET@127.0.0.1:1/x",
    "rtsps://bob:S3CRET@127.0.0.1:1/x",
    " rtsp://bob:S3CRET@127.0.0.1:1/x",
    "rtsp://me@mail.org:S3CRET@127.0.0.1:1/x",
    "rtsp://me%40mail.org:S3CRET@127.0.0.1:1/x",
    "rtsp://bob:a S3CRET@127.0.0.1:1/x",
    "rtsp://bob:S3CRET y@127.0.0.1:1/x",
    "rtsp://bob smith:S3CRET@127.0.0.1:1/x",
    "rtsp://bob:12 S3CRET@127.0.0.1:1/x",
    "rtsp://bob:S3CRET/a@127.0.0.1:1/x",
    "rtsp://bob:a/S3CRET@127.0.0.1:1/x",
    "rtsp://bob:12/S3CRET@127.0.0.1:1/x",
    "rtsp://bob:S3CRET#a@127.0.0.1:1/x",
    "rtsp://bob:12#S3CRET@127.0.0.1:1/x",
    "rtsp://bob:a?S3CRET@127.0.0.1:1/x",
    "rtsp://bob:12?S3CRET@127.0.0.1:1/x",
    "rtsp://bob:S3CRET%@127.0.0.1:1/x",
    "rtsp://bob:a:S3CRET@127.0.0.1:1/x",
    "rtsp://bob:a@b:S3CRET@127.0.0.1:1/x",
    "rtsp://bob:a@S3CRET@127.0.0.1:1/x",
    "rtsp://bob:a'\"S3CRET@127.0.0.1:1/x",
    "rtsp://bob:a!S3CRET@127.0.0.1:1/x",
    "rtsp://bob:a ! S3CRET@127.0.0.1:1/x",
    "rtsp://bob:[S3CRET]@127.0.0.1:1/x",
    "rtsp://bob:\\S3CRET\\@127.0.0.1:1/x",
    "rtsp://:S3CRET@127.0.0.1:1/x",
    "rtsp://bob%3AS3CRET@127.0.0.1:1/x",
    "rtsp://bob:S3CRET%40127.0.0.1:1/x",
    "rtsp://bob:S3CRET",
    "rtsp://bob:S3CRET/x",
    "rtsp://127.0.0.1:S3CRET/x",
    "rtsp://bob:S3CRET@[::1]:1/x",
    "rtsp://bob:S3CRET@[::1/x",
    "rtsp://bob:S3CRET@127.0.0.1:99999/x",
    "rtsp://bob:S3CRET@127.0.0.1:1/bob/S3CRET/x",
    "rtsp://bob:%53%33CRET@127.0.0.1:1/S3CRET",
    "rtsp://127.0.0.1:1/user=admin&password=S3CRET&channel=1",
    "rtsp://127.0.0.1:1/user=admin_password=S3CRET_channel=1_stream=0.sdp",
    "rtsp://127.0.0.1:1/live/bob/S3CRET/1",
    "rtsp://127.0.0.1:1/x;auth=S3CRET",
    "rtsp:/bob:S3CRET@127.0.0.1/x",
    "rtsp:bob:S3CRET@127.0.0.1/x",
    "//bob:S3CRET@127.0.0.1:1/x",
    "rtsp ://bob:S3CRET@127.0.0.1:1/x",
    "rtsp;//bob:S3CRET@127.0.0.1:1/x",
    "http://S3CRET99@127.0.0.1:1/x",
    "http://bob:S3CRET@127.0.0.1:1/v",
    "http://127.0.0.1:1/v?u=a&p=S3CRET",
    "http://127.0.0.1:1/v?S3CRET",
    "http://127.0.0.1:1/v?a=S3CRET;b=2",
    "http://127.0.0.1:1/v?user=S3CRET=x",
    "http://127.0.0.1:1/v?stream=http://bob:S3CRET@cam/x",
    "http://127.0.0.1:1/v?user=me@mail.org&pwd=S3CRET",
    "http://127.0.0.1:1/v?%70wd=S3CRET",
    "http://127.0.0.1:1/v?usr[pwd]=S3CRET",
    "http://127.0.0.1:1/v#S3CRET",
    "http://127.0.0.1:1/v#token=S3CRET",
    "http://127.0.0.1:1/live/bob/S3CRET/1.ts",
    "http://127.0.0.1:1/live/bob/S3CRET.m3u8",
    "http://127.0.0.1:1/movie/bob/S3CRET/7.mkv",
    "http://127.0.0.1:1/bob/S3CRET/7.ts",
    "http://127.0.0.1:1/get.php?username=bob&password=S3CRET&type=m3u",
    "http://127.0.0.1:1/token/S3CRET/v",
    "http://127.0.0.1:1/S3CRET-S3CRET-S3CRET-S3CRET-S3CRET/v",
    "http://127.0.0.1:1/a:S3CRET@v/x",
    "http://bob:S3CRET@/v",
    "http://bob:S3CRET@bad host/v",
    "https://127.0.0.1:1/hls/x.m3u8?token=S3CRET",
    "bob:S3CRET@127.0.0.1/stream",
    "me@mail.org:S3CRET@127.0.0.1/stream",
    "bob:a S3CRET@127.0.0.1/stream",
    "bob:S3CRET@127.0.0.1/x.jpg",
    "bob:S3CRET@127.0.0.1/x.mp4",
    "rtmp://127.0.0.1/live/S3CRET",
    "rtmp://bob:S3CRET@127.0.0.1/live",
    "srt://127.0.0.1:1?passphrase=S3CRET&mode=caller",
    "srt://127.0.0.1:1?streamid=#!::u=bob,r=S3CRET",
    "wss://bob:S3CRET@127.0.0.1:1/x",
    "webrtc://127.0.0.1:1/x?access_token=S3CRET",
    "csi://bob:S3CRET@0",
    "v4l2:///dev/bob:S3CRET@0",
    "test://bob:S3CRET@0",
    'souphttpsrc cookies="a=S3CRET" ! appsink',
    "souphttpsrc cookies=a=S3CRET ! appsink",
    'souphttpsrc user-id=bob user-pw="a S3CRET" ! appsink',
    "souphttpsrc user-pw = S3CRET ! appsink",
    "souphttpsrc user-pw=(string)S3CRET ! appsink",
    "souphttpsrc proxy-id=bob proxy-pw=S3CRET ! appsink",
    "souphttpsrc user-pw='a S3CRET' ! appsink",
    'souphttpsrc user-pw="a S3CRET ! appsink',
    'souphttpsrc extra-headers="h,Authorization=(string)\\"Basic S3CRET\\"" ! appsink',
    "rtspsrc location=rtsp://bob:S3CRET@127.0.0.1/x ! appsink",
    'rtspsrc location="rtsp://bob:a S3CRET@127.0.0.1/x" ! appsink',
    "uridecodebin uri=http://127.0.0.1/v?p=S3CRET ! appsink",
    'uridecodebin uri="http://127.0.0.1/v?p=S3CRET" ! appsink',
    "srtsrc uri=srt://127.0.0.1:1 passphrase=S3CRET ! appsink",
]
TOLD = [
    "Could not open resource for reading: rtsp://bob:S3CRET@cam/x (gstrtspsrc.c)",
    "[hls @ 0x5] Error when loading first segment 'http://cam/v?t=S3CRET'",
    "Opening http://bob:a@S3CRET@cam/x, then another",
    "two: rtsp://a:S3CRET@one/x rtsp://b:S3CRET@two/x",
    "no: rtsp://bob:a S3CRET@cam/x.",
    "for bob:S3CRET@cam/x",
    "Authorization: Basic S3CRETS3CRET=",
    "WWW said: Proxy-Authorization: Digest username=bob, response=S3CRET",
    "Cookie: a=S3CRET; b=S3CRET",
    "Set-Cookie: S3CRET",
    "header Bearer S3CRET.S3CRET",
    "password=S3CRET, and passphrase='a S3CRET'",
    "--token=S3CRET",
]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known from an earlier case."""
    monkeypatch.setattr(redact, "_learned", {})


@pytest.mark.parametrize("source", FORMS)
def test_a_secret_is_masked_and_masking_again_changes_nothing(source: str) -> None:
    shown = mask(source)
    assert "CRET" not in shown
    assert mask(shown) == shown


@pytest.mark.parametrize("source", FORMS)
def test_classify_never_says_a_secret(
    source: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINEDGE_LOG", "DEBUG")
    assert main(["classify", "examples/birds.finedge", source]) in (2, 3, 4)
    assert "CRET" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("source", FORMS[::4])
def test_a_usage_error_repeats_no_secret(source: str, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["build", "b.finedge", source],
        ["classify", "b", source, "--topk", source, "--bogus", source],
    ):
        assert main(words) == 2
    assert "CRET" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("words", [("--token", S * 3), (f"--token={S * 3}",)])
def test_a_token_is_not_repeated(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "b", "test://", *words, "--topk", S * 3]) == 2
    assert S not in "".join(capfd.readouterr())


@pytest.mark.parametrize("text", TOLD)
def test_what_libraries_and_servers_repeat_is_masked(text: str) -> None:
    assert S not in mask_text(text)
    assert mask_text(mask_text(text)) == mask_text(text)


def test_what_was_hidden_once_is_hidden_wherever_it_is_repeated() -> None:
    learn("rtsp://bob:a b/S3CRET@cam/x?q=tok3n")
    for said in ("no user bob with a b/S3CRET here", quote("a b/S3CRET", safe=""), "(tok3n)"):
        assert "***" in mask_text(said)
    assert "S3CRET" not in str(UsageError("the server said: a b/S3CRET"))
    assert mask_text("atok3nb") == "a***b"  # a server may glue it to what it says
    assert mask_text("bob%3Atok3n%40cam, 'bob\\ntok3n'") == "bob%3A***%40cam, 'bob\\n***'"


@pytest.mark.parametrize(("password", "other"), [("port", "transport"), ("1234", "12345 frames")])
def test_a_password_that_is_a_word_or_a_number_stands_alone(password: str, other: str) -> None:
    learn(f"rtsp://bob:{password}@cam/x")
    assert mask_text(other) == other
    said = f"no {password}; bob%3A{password}%40cam; 'bob\\n{password}'"
    assert mask_text(said) == "no ***; bob%3A***%40cam; 'bob\\n***'"


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://cam:554/Streaming/Channels/101?transportmode=unicast&profile=Profile_1",
        "rtsp://nvr/cam/realmonitor?channel=1&subtype=0",
        "rtsp://me@cam:554/x",
        "rtsp://[fe80::1%eth0]:554/x",
        "http://cam/axis-cgi/mjpg/video.cgi?resolution=640x480&fps=5&camera=2",
        "http://cam/v?id=12",
        "http://cam/v.m3u8",
        "videotestsrc pattern=ball num-buffers=5 ! video/x-raw,format=(string)RGB ! appsink",
        "photos/a:b.jpg",
        "photos/*.jpg",
        "/dev/video0",
        "0",
        "test://",
        "C:\\photos\\a@b.jpg",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert mask(text) == text
    assert mask_text(f"cannot read '{text}' now") == f"cannot read '{text}' now"


@pytest.mark.parametrize(
    "text",
    [
        "an address is rtsp://user:password@host:554/path",
        "live page: http://127.0.0.1:8080/?token=***",
        "HOST:PORT, like 127.0.0.1:8080 or [::1]:8080",
        "user@board:/srv/finedge and 12:30:45",
        "Basic authentication failed",
        "FFmpeg's h264 @ 0x55 said: key=3, ok",
    ],
)
def test_our_own_words_are_left_alone(text: str) -> None:
    assert mask_text(text) == text


def test_twenty_thousand_characters_take_no_time_to_mask() -> None:
    for unit in (
        "a",
        "a:",
        "@",
        "a=",
        "://",
        "a://",
        "'",
        '\\"',
        "a-",
        " ! ",
        "%40",
        "<",
        "key",
        "b:c@",
    ):
        text = unit * (20_000 // len(unit))
        assert len(mask(text)) + len(mask_text(text)) > 0
