"""Hides passwords, tokens and keys of addresses, by the structure of the address.

An address is what users type: scheme://USER:PASSWORD@HOST:PORT/PATH?QUERY#FRAGMENT. The password
may hold raw @ : / # ? or blanks. The scheme may be missing, and the address may be a property of a
GStreamer pipeline. In doubt more is hidden, never less.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

HIDDEN = "***"
# Characters. A shorter secret is a part of too many words, so other texts are not searched for it.
MIN_SECRET = 4
MAX_LEARNED = 1000
EXAMPLE = "user:password"  # the login that finedge's own texts show as an example

# Parameters that tell streams apart and unlock nothing.
_HARMLESS = """
action angle audio av bitrate cam camera ch chan channel channelno cmd codec compression date delay
device duration encoding end endtime ext fmt format fps framerate h height index input lang lat
latency lens lon mode model name page path port pos position preset profile proto protocol quality
rate res resolution rotate rotation size start starttime stream streamno streamtype subtype time
timeout track transport transportmode type unicast user username usr ver version video videocodec
view w width x y
"""
HARMLESS = frozenset(_HARMLESS.split())
SECRET_WORDS = r"pw|pwd|psw|pas|pass\w{0,20}|token|secret|key|auth|sig|signature|credentials?"
# Path segments of IPTV servers before USER/PASSWORD, and of others before one secret.
BEFORE_LOGIN = frozenset({"live", "movie", "movies", "series", "timeshift", "streaming"})
_BEFORE_SECRET = "auth key pass passwd password pwd pw secret sid token"
BEFORE_SECRET = frozenset(_BEFORE_SECRET.split())

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,30}:/{2,4}"
_WITH_SCHEME = re.compile(rf"[\s\x00-\x20]*{_SCHEME}")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%\w-]*\]|[^\s:@/?#&=\[\]\\]*)(?::\d{0,5})?")
_PLAIN_KEY = re.compile(r"[\w.\-\[\]]{1,40}")
_BARE = re.compile(
    r"([^\s/:!=\"']{1,200}(?: [^\s/:!=\"']{1,200}){0,3}):(?![/\\]{2})(.*)@(.*)",
    re.DOTALL,
)
# The scheme may be mistyped or missing: the login must be hidden all the same.
_SLASHED = re.compile(r"([^@]{0,60}?//)([^@]*:.*@.*)", re.DOTALL)
_TOKEN_USER = re.compile(r"(?=.*\d)(?=.*[A-Za-z]).{8,}", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:\\")
_TOKEN = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[\w.~=+%-]{24,}|[0-9a-fA-F-]{16,}|eyJ[\w.=-]+")
_VIDEO_ID = re.compile(r"\d+(?:\.\w{1,5})?")
_VALUE = (
    r"(?:\\?\"(?:\\.|[^\"\\])*(?:\"|$)|'(?:\\.|[^'\\])*(?:'|$)|<[^>]*(?:>|$)|(?:\\.|[^\s\"'&;])+)"
)
_PROPERTY = re.compile(
    rf"(?i)(?<![\w-])([\w:-]{{0,40}}?(?:{SECRET_WORDS}|cookies?|user-id|proxy-id|extra-headers))"
    rf"(\s*=\s*(?:\([\w/]{{1,20}}\)\s*)?)({_VALUE})"
)
_LOCATION = re.compile(r"(?<![\w-])([\w:-]{1,40}\s*=\s*)(\"(?:\\.|[^\"\\])*\"|'[^']*')")
_NAMED_SECRET = re.compile(
    r"(?i)\b((?:pass(?:word|wd|phrase)?|pwd|user-pw|proxy-pw|(?:\w{1,20}[_-])?token|secret|api[_-]?key)=)"
    rf"({_VALUE})"
)
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-auth-token)(\s*[:=]\s*)([^\r\n\"']+)"
)
_BEARER = re.compile(r"\b(Bearer|Basic)(\s+)(?=[^\s]*[\d=])([\w+/=.~-]{8,})")
# Up to the next blank. If that holds no @, and no port follows the colon, up to the next word with
# an @.
_IN_TEXT = re.compile(
    rf"(?<![\w])({_SCHEME})([^\s\"'<>]*@\S*|[^\s:/@]*:(?!\d{{1,5}}(?!\w))[^\n@]{{0,200}}@\S*|\S*)"
)
_BARE_IN_TEXT = re.compile(
    r"(?<![\w/:.*])(?![A-Za-z]:\\)([^\s/:@\"'(=,]{1,80}(?:@[\w.-]{1,80})?):(?!/)([^\s@]{1,200}|[^\s]{1,200})@(?=[\w.\[*])"
)
# A text that quotes an address may encode what comes before a secret: bob%3ASECRET, bob\\nSECRET.
_BEFORE = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[abfnrtv0]))"
_TAIL = re.compile(r"[\"')\]>,;:.!]*$")

_learned: dict[str, str] = {}


@dataclass(frozen=True)
class Masked:
    """An address without its secrets, and the secrets that were hidden."""

    text: str
    secrets: tuple[str, ...]


def mask(source: str) -> str:
    """Return a source of the command line without secrets: an address, a pipeline or a file name.

    Examples:
        >>> mask("rtsp://admin:12345@camera.local/stream1")
        'rtsp://admin:***@camera.local/stream1'
    """
    return _mask(source).text


def mask_text(text: str) -> str:
    """Return a text without secrets: addresses are masked, learned secrets are hidden."""
    return _IN_TEXT.sub(_in_text, _BARE_IN_TEXT.sub(_bare_in_text, _plain(_without_learned(text))))


def learn(source: str) -> None:
    """Remember the secrets of a source, so that `mask_text` hides them in other texts."""
    masked = _mask(source)
    if masked.secrets:
        # Where the complete source is repeated, it is replaced as one.
        _remember(source, masked.text)
    for secret in masked.secrets:
        learn_secret(secret)


def learn_secret(secret: str) -> None:
    """Remember a secret, plain and percent-encoded."""
    plain = unquote(secret) if _encodable(secret) else secret
    coded = quote(plain, safe="") if _encodable(plain) else secret
    for form in (secret, plain, coded):
        if len(form) >= MIN_SECRET and form != HIDDEN:
            _remember(form, HIDDEN)


def _remember(text: str, masked: str) -> None:
    _learned[text] = masked
    while len(_learned) > MAX_LEARNED:
        _learned.pop(next(iter(_learned)), None)


def _encodable(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _without_learned(text: str) -> str:
    for secret in sorted((s for s in tuple(_learned) if s in text), key=len, reverse=True):
        masked = _learned.get(secret, HIDDEN).replace("\\", r"\\")
        text = re.sub(_pattern_of(secret), masked, text)
    return text


def _pattern_of(secret: str) -> str:
    """Return the pattern that finds a secret in a text.

    A word or a number must stand alone: the secret `port` is not hidden in `transport`.
    """
    common = secret.isalpha() or secret.isdigit()
    return rf"{_BEFORE}{re.escape(secret)}(?![A-Za-z0-9])" if common else re.escape(secret)


def _mask(source: str) -> Masked:
    scheme = _WITH_SCHEME.match(source)
    if scheme:
        return _address(source[scheme.end() :], head=scheme[0])
    bare = (
        None
        if "!" in source or _DRIVE.match(source) or "://" in source
        else _BARE.fullmatch(source)
    )
    if bare:
        after = _address(bare[3], head="")
        return Masked(f"{bare[1]}:{HIDDEN}@{after.text}", (bare[2], *after.secrets))
    slashed = None if "!" in source else _SLASHED.fullmatch(source)
    if slashed:
        return _address(slashed[2], head=slashed[1])
    secrets: list[str] = []
    return Masked(_pipeline(source, secrets), tuple(secrets))


def _pipeline(text: str, secrets: list[str]) -> str:
    """Mask the properties of a pipeline: secrets, and the addresses in the others."""

    def secret(match: re.Match[str]) -> str:
        secrets.append(match[3].strip("\\\"'"))
        return f"{match[1]}{match[2]}{HIDDEN}"

    def quoted(match: re.Match[str]) -> str:
        mark, inner = match[2][0], match[2][1:-1]
        scheme = _WITH_SCHEME.match(inner)
        if scheme is None:
            return match[0]
        masked = _address(inner[scheme.end() :], head=scheme[0])
        secrets.extend(masked.secrets)
        return f"{match[1]}{mark}{masked.text}{mark}"

    def plain(match: re.Match[str]) -> str:
        masked = _address(match[2], head=match[1])
        secrets.extend(masked.secrets)
        return masked.text

    text = _HEADER.sub(rf"\1\2{HIDDEN}", _PROPERTY.sub(secret, _LOCATION.sub(quoted, text)))
    return _BARE_IN_TEXT.sub(_bare_in_text, _IN_TEXT.sub(plain, text))


def _plain(text: str) -> str:
    """Mask headers and parameters whose names leave no doubt."""
    text = _HEADER.sub(rf"\1\2{HIDDEN}", _BEARER.sub(rf"\1\2{HIDDEN}", text))
    return _NAMED_SECRET.sub(rf"\1{HIDDEN}", text)


def _in_text(match: re.Match[str]) -> str:
    tail = _TAIL.search(match[2])
    end = tail.start() if tail else len(match[2])
    return _address(match[2][:end], head=match[1]).text + match[2][end:]


def _bare_in_text(match: re.Match[str]) -> str:
    text = match[0].removesuffix("@")
    return match[0] if text == EXAMPLE else f"{match[1]}:{HIDDEN}@"


def _address(rest: str, *, head: str) -> Masked:
    """Mask an address after its scheme."""
    scheme = head.strip().partition(":")[0].lower()
    user, password, place = _split_login(rest)
    secrets = [password] if password and f"{user}:{password}" != EXAMPLE else []
    if password is None and user and _TOKEN_USER.fullmatch(user):
        secrets, user = [user], HIDDEN
    login = (
        f"{user}:{HIDDEN if secrets else password}@"
        if password is not None
        else f"{user}@"
        if user is not None
        else ""
    )
    cut = re.search(r"[/?#;]", place)
    host, tail = (place[: cut.start()], place[cut.start() :]) if cut else (place, "")
    if not _HOST.fullmatch(host):
        if re.fullmatch(r"[\w.-]*:(?:port|PORT)", host):  # the example in finedge's own texts
            return Masked(head + login + host + tail, tuple(secrets))
        name = host.partition(":")[0] if ":" in host and not host.startswith("[") else ""
        name = name if _HOST.fullmatch(name) else ""
        return Masked(
            f"{head}{login}{name}:{HIDDEN}" if name else f"{head}{login}{HIDDEN}",
            (*secrets, *filter(None, [host[len(name) + 1 :] + tail])),
        )
    return Masked(head + login + host + _tail(tail, scheme=scheme, secrets=secrets), tuple(secrets))


def _split_login(rest: str) -> tuple[str | None, str | None, str]:
    """Return (user, password, rest of the address); user and password may be None."""
    at, width = rest.rfind("@"), 1
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if at < 0 and re.search(r"(?i)%40", authority):
        at, width = max(authority.rfind("%40"), 0), 3
    # after the first / ? or #: of the password, or of the path or query
    elif at >= len(authority):
        path = re.split(r"[?#]", rest, maxsplit=1)[0]
        plain = _HOST.fullmatch(authority) is not None
        if (
            plain
            and (":" not in authority or (len(authority) < len(path) <= at))
            and "@" not in authority
        ):
            at = -1
    if at < 0:
        return None, None, rest
    user, colon, password = _split_colon(rest[:at])
    return user, password if colon else None, rest[at + width :]


def _split_colon(login: str) -> tuple[str, str, str]:
    user, colon, password = login.partition(":")
    if not colon and re.search(r"(?i)%3a", login):
        user, colon, password = re.split(r"((?i:%3a))", login, maxsplit=1)
    return user, colon, password


def _tail(tail: str, *, scheme: str, secrets: list[str]) -> str:
    """Mask path, query and fragment; hidden texts are added to `secrets`."""
    path, mark, fragment = tail.partition("#")
    path, question, query = path.partition("?")
    masked = "".join(_path(path, scheme=scheme, secrets=secrets))
    if question:
        masked += "?" + "".join(_parameter(p, secrets) for p in re.split(r"([&;])", query))
    return masked + (mark + (_hidden(fragment, secrets) if fragment else ""))


def _path(path: str, *, scheme: str, secrets: list[str]) -> Iterator[str]:
    login_secrets = {s for secret in secrets for s in (secret, unquote(secret)) if s}
    segments = path.split("/")
    hidden = set(_login_segments(segments, scheme=scheme))
    for number, segment in enumerate(segments):
        yield "/" if number else ""
        if number in hidden or login_secrets & {segment, unquote(segment)}:
            yield _hidden(segment, secrets)
        elif "=" in segment:
            yield "".join(_parameter(p, secrets) for p in re.split(r"([&;,])", segment))
        elif (":" in segment and "@" in segment) or _TOKEN.fullmatch(segment):
            yield _hidden(segment, secrets)
        else:
            yield segment


def _login_segments(segments: list[str], *, scheme: str) -> Iterator[int]:
    """Yield the numbers of the segments that hold secrets.

    /live/USER/SECRET/1.ts, /USER/SECRET/1.ts, /token/SECRET, and rtmp's /app/SECRET.
    """
    names = [unquote(s).lower() for s in segments] if all(map(_encodable, segments)) else segments
    web = scheme in ("http", "https")
    for number, name in enumerate(names[:-1]):
        if name in BEFORE_SECRET and names[number + 1]:
            yield number + 1
        if name in BEFORE_LOGIN and number + 2 < len(names) and (web or number + 3 < len(names)):
            yield number + 2
    if web and len(names) >= 4 and _VIDEO_ID.fullmatch(names[-1]):
        yield len(names) - 2
    if scheme.startswith("rtmp"):
        yield from range(2, len(names))


def _parameter(text: str, secrets: list[str]) -> str:
    key, equals, value = text.partition("=")
    if text in ("", "&", ";", ",") or (equals and not value):
        return text
    if not equals:
        return text if text.lower() in HARMLESS or _small(text) else _hidden(text, secrets)
    if not _PLAIN_KEY.fullmatch(key):
        return _hidden(text, secrets)
    secret = re.search(rf"(?i)(?:{SECRET_WORDS})$", key) is not None
    harmless = key.lower() in HARMLESS and not re.search(r"[=@:]|%3[ad]|%40", value, re.IGNORECASE)
    if harmless or (_small(value) and not secret):
        return text
    return f"{key}={_hidden(value, secrets)}"


def _small(text: str) -> bool:
    """Tell whether the text is a number of one or two digits: it names a stream, not a secret."""
    return text.isascii() and text.isdigit() and len(text) <= 2


def _hidden(text: str, secrets: list[str]) -> str:
    if text and text != HIDDEN:
        secrets.append(text)
    return HIDDEN if text else ""


def basic(user: str, password: str) -> str:
    """Return the Basic credentials (HTTP, RTSP) of a login, and hide them in later texts."""
    coded = base64.b64encode(f"{user}:{password}".encode(errors="replace")).decode()
    learn_secret(coded)
    return coded
