"""What runs on the board: POSIX shell, as Debian and Ubuntu have it.

Arguments come as $1, $2, ...; no text is pasted into a script. The folders on the board:

PATH/current               -> versions/VERSION/NAME.finedge
PATH/versions/VERSION/     one folder for each deployment that passed its golden frame
PATH/.incoming-DIGEST-N/   a bundle on its way. After an interruption it stays; the next deployment
                           continues or removes it.
PATH/.lock                 locked by the connection of the deployment that runs
"""

from __future__ import annotations

BUSY = 75  # sysexits.h: try again later
LOCK_WAIT_S = 3  # after an interruption, the lock of that deployment stays for a moment
LOCKED = "finedge-locked"
# Where finedge may be installed and a shell without a login does not look.
OTHER_PLACES = ("$HOME/.local/bin/finedge", "/opt/finedge/bin/finedge")

# $1 finedge. Prints name=value lines.
PROBE = f"""
for f in "$1" {" ".join(f'"{place}"' for place in OTHER_PLACES)}; do
    command=$(command -v -- "$f") && break
done
printf 'home=%s\\nfinedge=%s\\nrsync=%s\\n' "$HOME" "$command" "$(command -v rsync)"
"""

# A unit of the user comes first. A unit of the system needs root, or sudo without a password.
_SYSTEMCTL = """
look=systemctl
if systemctl --user cat "$service" >/dev/null 2>&1; then
    look='systemctl --user'
    act=$look
elif [ "$(id -u)" = 0 ]; then act=systemctl
else act='sudo -n systemctl'; fi
"""

# $1 unit. Fails where there is no such unit, or where this user may not restart it.
# It runs before anything is copied.
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
flock -w {LOCK_WAIT_S} -E {BUSY} 9 || exit $?
echo {LOCKED}
cat
"""

# $1 path, $2 incoming folder, $3 NAME.finedge, $4 the part of $2 that names the bytes.
# Prints the version that serves.
# The files of an interrupted deployment of the same bytes are linked into a new folder. Its rsync
# may still be alive, and it writes into the old folder.
PREPARE = """
umask 022
cd -- "$1" || exit 1
if [ -e current ] && [ ! -L current ]; then
    echo "$1/current is not a symbolic link: finedge deploy did not make it" >&2
    exit 1
fi
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

# $1 path, $2 incoming/NAME.finedge. Copies the engines of the version that serves.
# Each engine has a key of the files it was built from, so none is used for other files.
ENGINES = """
cd -- "$1" || exit 1
if [ -d current/engines ] && [ ! -e "$2/engines" ]; then
    cp -al -- current/engines "$2/engines" 2>/dev/null || cp -a -- current/engines "$2/engines"
fi
"""

# $1 finedge, the rest its arguments.
FINEDGE = '"$@" </dev/null'

# $1 path, $2 incoming folder.
DISCARD = 'cd -- "$1" && rm -rf -- "$2"'

# $1 path, $2 incoming folder, $3 version, $4 NAME.finedge, $5 unit or nothing,
# $6 seconds for which the service must stay up.
# One transaction: it succeeds, or it restores what was before, even after the connection is lost.
# Prints `step<tab>ok|failed<tab>detail`.
# `chmod`: a service may run under another account. `sync`: after a power failure, no link may lead
# to names without bytes.
ACTIVATE = f"""
trap '' HUP PIPE
cd -- "$1" || exit 1
incoming=$2 version=$3 name=$4 service=$5 settle=$6
old=$(readlink current)
report() {{ printf '%s\\t%s\\t%s\\n' "$1" "$2" "$(printf '%s' "$3" | tr '\\n\\t' '  ')"; }}
point() {{ rm -rf -- .current.new && ln -s -- "$1" .current.new && mv -T -- .current.new current; }}
healthy() {{
    restarts=$($look show -p NRestarts "$service") i=0
    while [ "$i" -lt "$settle" ]; do
        state=$($look is-active "$service") || {{
            echo "$service is $state"
            $look status --no-pager --lines=5 "$service"
            return 1
        }}
        sleep 1
        i=$((i + 1))
    done
    [ "$($look show -p NRestarts "$service")" = "$restarts" ] || {{
        echo "$service was restarted by systemd in these $settle s"
        return 1
    }}
}}
roll_back() {{
    if [ -n "$old" ]; then
        reason=$(point "$old" 2>&1) && reason=$($act restart "$service" 2>&1) &&
            report rollback ok "$old serves again"
    else
        rm -f current && reason=$($act stop "$service" 2>&1) &&
            report rollback ok "there was no version before: $service is stopped"
    fi || report rollback failed "$reason"
    # Where the link could not be set back, the new version still serves.
    [ "$(readlink current)" = "versions/$version/$name" ] || rm -rf -- "versions/$version"
    exit 1
}}
chmod -R a+rX -- "$incoming"
sync -f -- "$incoming"
reason=$(mv -T -- "$incoming" "versions/$version" 2>&1) || {{
    report swap failed "$reason"
    rm -rf -- "$incoming"
    exit 1
}}
reason=$(point "versions/$version/$name" 2>&1) || {{
    report swap failed "$reason"
    rm -rf -- "versions/$version"
    exit 1
}}
sync -f -- versions
report swap ok "$PWD/current, before: ${{old:-nothing}}"
[ -n "$service" ] || exit 0
{_SYSTEMCTL}
reason=$($act restart "$service" 2>&1) || {{ report restart failed "$reason"; roll_back; }}
report restart ok "$act restart $service"
reason=$(healthy 2>&1) || {{ report health failed "$reason"; roll_back; }}
report health ok "active for $settle s"
"""

# $1 path, $2 how many versions stay besides the one that serves. Prints the ones it removed.
TIDY = """
cd -- "$1/versions" || exit 1
live=$(readlink ../current) && live=${live#versions/} && live=${live%%/*} || exit 1
ls -1 | sort -r | grep -vxF -e "$live" | tail -n +"$(($2 + 1))" |
    while IFS= read -r old; do rm -rf -- "$old" && printf '%s\\n' "$old"; done
"""
