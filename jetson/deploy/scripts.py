"""What runs on the board: POSIX shell, as Debian and Ubuntu have it. Arguments come as $1, $2, ...; nothing is pasted into a script.

PATH/current               -> versions/VERSION/NAME.finedge
PATH/versions/VERSION/     one folder a deploy that passed its golden frame
PATH/.incoming-DIGEST-N/   a bundle on its way; left by an interruption, continued or removed by the next deploy
PATH/.lock                 held by the connection of the deploy that runs
"""

from __future__ import annotations

BUSY = 75  # sysexits.h: try again later
PATIENCE_S = 3  # the lock of a deploy that was just interrupted goes a moment after it
LOCKED = "finedge-locked"
# Where a finedge may be that a shell without a login does not find.
ELSEWHERE = ("$HOME/.local/bin/finedge", "/opt/finedge/bin/finedge")

# $1 finedge. Prints name=value lines.
PROBE = f"""
for f in "$1" {" ".join(f'"{p}"' for p in ELSEWHERE)}; do found=$(command -v -- "$f") && break; done
printf 'home=%s\\nfinedge=%s\\nrsync=%s\\n' "$HOME" "$found" "$(command -v rsync)"
"""

# A unit of the user's own comes first; one of the system needs root, or sudo without a password.
_SYSTEMCTL = """
look=systemctl
if systemctl --user cat "$service" >/dev/null 2>&1; then look='systemctl --user'; act=$look
elif [ "$(id -u)" = 0 ]; then act=systemctl
else act='sudo -n systemctl'; fi
"""

# $1 unit. Whether it is there and this user may restart it: known before anything is copied.
SERVICE = f"""
service=$1
{_SYSTEMCTL}
$look cat "$service" >/dev/null || exit 1
case $act in sudo*) sudo -n -l systemctl restart "$service" >/dev/null || exit 1;; esac
echo "$act"
"""

# $1 path. Holds the lock until its input ends.
LOCK = f"""
umask 022
mkdir -p -- "$1" && exec 9>>"$1/.lock" || exit 1
flock -w {PATIENCE_S} -E {BUSY} 9 || exit $?
echo {LOCKED}
cat
"""

# $1 path, $2 incoming folder, $3 NAME.finedge, $4 the part of $2 that names the bytes. Prints the version that serves.
# What an interrupted deploy of the same bytes left is linked into a new folder: its rsync may still be alive and writes into the old one.
PREPARE = """
umask 022
cd -- "$1" || exit 1
if [ -e current ] && [ ! -L current ]; then echo "$1/current is no symbolic link: it was not made by finedge deploy" >&2; exit 1; fi
rm -rf -- .current.new
mkdir -p -- versions "$2/$3" || exit 1
for d in .incoming-*; do
    [ "$d" = "$2" ] && continue
    case $d in "$4"*) cp -alf -- "$d/$3"/[!.]* "$2/$3/" 2>/dev/null ;; esac
    rm -rf -- "$d"
done
readlink current || true
"""

# $1 folder; the input is `sha256  name` lines. Prints what differs.
DIGEST = 'cd -- "$1" && sha256sum -c --quiet - 2>&1'

# $1 path, $2 incoming/NAME.finedge. Engines of the version before: what they were built from is in their keys, so none is used wrongly.
ENGINES = """
cd -- "$1" || exit 1
if [ -d current/engines ] && [ ! -e "$2/engines" ]; then cp -al -- current/engines "$2/engines" 2>/dev/null || cp -a -- current/engines "$2/engines"; fi
"""

# $1 finedge, the rest its arguments.
FINEDGE = '"$@" </dev/null'

# $1 path, $2 incoming folder.
DISCARD = 'cd -- "$1" && rm -rf -- "$2"'

# $1 path, $2 incoming folder, $3 version, $4 NAME.finedge, $5 unit or nothing, $6 seconds the service must stay up.
# One transaction that ends well or takes itself back, also when the connection is lost meanwhile. Prints `step<tab>ok|failed<tab>detail`.
ACTIVATE = f"""
trap '' HUP PIPE
cd -- "$1" || exit 1
incoming=$2 version=$3 name=$4 service=$5 settle=$6
old=$(readlink current)
say() {{ printf '%s\\t%s\\t%s\\n' "$1" "$2" "$(printf '%s' "$3" | tr '\\n\\t' '  ')"; }}
point() {{ rm -rf -- .current.new && ln -s -- "$1" .current.new && mv -T -- .current.new current; }}
healthy() {{
    restarts=$($look show -p NRestarts "$service") i=0
    while [ "$i" -lt "$settle" ]; do
        state=$($look is-active "$service") || {{ echo "$service is $state"; $look status --no-pager --lines=5 "$service"; return 1; }}
        sleep 1
        i=$((i + 1))
    done
    [ "$($look show -p NRestarts "$service")" = "$restarts" ] || {{ echo "$service was restarted by systemd meanwhile"; return 1; }}
}}
take_back() {{
    if [ -n "$old" ]; then why=$(point "$old" 2>&1) && why=$($act restart "$service" 2>&1) && say rollback ok "$old serves again"
    else rm -f current && why=$($act stop "$service" 2>&1) && say rollback ok "there was no version before: $service is stopped"
    fi || say rollback failed "$why"
    [ "$(readlink current)" = "versions/$version/$name" ] || rm -rf -- "versions/$version" # where the link could not be set back it still serves
    exit 1
}}
chmod -R a+rX -- "$incoming" # a service may run as nobody's account
sync -f -- "$incoming" # a power failure must not leave names without bytes behind the link
why=$(mv -T -- "$incoming" "versions/$version" 2>&1) || {{ say swap failed "$why"; rm -rf -- "$incoming"; exit 1; }}
why=$(point "versions/$version/$name" 2>&1) || {{ say swap failed "$why"; rm -rf -- "versions/$version"; exit 1; }}
sync -f -- versions
say swap ok "$PWD/current, before: ${{old:-nothing}}"
[ -n "$service" ] || exit 0
{_SYSTEMCTL}
why=$($act restart "$service" 2>&1) || {{ say restart failed "$why"; take_back; }}
say restart ok "$act restart $service"
why=$(healthy 2>&1) || {{ say health failed "$why"; take_back; }}
say health ok "active for $settle s"
"""

# $1 path, $2 how many versions besides the one that serves. Prints what was removed.
TIDY = """
cd -- "$1/versions" || exit 1
live=$(readlink ../current) && live=${live#versions/} && live=${live%%/*} || exit 1
ls -1 | sort -r | grep -vxF -e "$live" | tail -n +"$(($2 + 1))" | while IFS= read -r old; do rm -rf -- "$old" && printf '%s\\n' "$old"; done
"""
