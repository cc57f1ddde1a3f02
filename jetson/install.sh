#!/usr/bin/env bash
# Installs finedge on a Jetson. It uses JetPack's packages and never replaces one of them.
# `install.sh --help` lists its options.
set -euo pipefail
umask 022 # the service runs under another account and must read what root installs

# A wheel in a user's ~/.local must neither count as installed nor shadow JetPack's package.
export PYTHONNOUSERSITE=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

readonly USAGE=2 BOARD=3 STEP=4 CHECK=5
# What a wheel is made of.
readonly CHECKOUT=(pyproject.toml README.md LICENSE calib export finedge jetson runtime train)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${FINEDGE_ROOT:-}
prefix=$root/opt/finedge
from=$(dirname "$here")
dry_run='' service=''

usage() {
    cat <<'TEXT'
usage: install.sh [--prefix DIR] [--from SOURCE] [--service] [--dry-run]

Makes a virtual environment that sees JetPack's TensorRT, OpenCV and numpy, and installs finedge
into it. pip fails rather than replaces one of them. It runs on JetPack 6.1 or newer and on
JetPack 7. A second run with nothing new does nothing.

  --prefix DIR    the folder of the installation (default /opt/finedge); DIR/bin/finedge is the
                  command
  --from SOURCE   a checkout or a wheel of finedge (default: the checkout of this script)
  --service       also install the systemd unit finedge.service, with its settings in
                  /etc/finedge/finedge.env; needs root
  --dry-run       examine the board and print what would be done

Exit codes:
  0  done, or nothing to do
  2  wrong options
  3  this board cannot run finedge; the text says what to do
  4  a step failed; the installation before it is still there
  5  the new installation does not pass its check; the one before is still there
TEXT
}

say() { printf '%-8s %s\n' "$1" "$2"; }

fail() { # code, what is wrong, what to do
    printf 'install.sh: %s\n  to do: %s\n' "$2" "$3" >&2
    exit "$1"
}

act() { # $1 what it does, the rest is the command
    if [ -n "$dry_run" ]; then say would "$1"; return; fi
    say doing "$1"
    "${@:2}" || fail $STEP "failed: $1" \
        "read the lines above and run it again; the installation before is unchanged"
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            --prefix | --from)
                [ -n "${2:-}" ] || fail $USAGE "$1 needs a value" "install.sh --help"
                if [ "$1" = --prefix ]; then
                    prefix=$(realpath -m -- "$2")
                else
                    from=$(realpath -m -- "$2")
                fi
                shift
                ;;
            --service) service=yes ;;
            --dry-run) dry_run=yes ;;
            --help | -h) usage; exit 0 ;;
            *) fail $USAGE "unknown option '$1'" "install.sh --help" ;;
        esac
        shift
    done
    [[ $prefix =~ ^[A-Za-z0-9/._+-]+$ ]] || fail $USAGE "--prefix '$prefix'" \
        "give a folder without spaces or other characters that scripts and units interpret"
    [ -f "$from" ] || [ -f "$from/pyproject.toml" ] || fail $USAGE \
        "--from '$from' is neither a checkout nor a wheel" "give a checkout or a wheel of finedge"
    if [ -n "$service" ] && [ -z "$dry_run" ] && [ "$(id -u)" != 0 ]; then
        fail $USAGE "--service needs root" "sudo $0 --service"
    fi
}

# --- the board ----------------------------------------------------------------------------------

find_board() { # sets l4t, jetpack, python, constraints, and binding: the Python package of CUDA
    local line=''
    [ ! -r "$root/etc/nv_tegra_release" ] || read -r line <"$root/etc/nv_tegra_release" || true
    [ -n "$line" ] || fail $BOARD "there is no /etc/nv_tegra_release: this is not a Jetson" \
        "on other machines: python3 -m venv .venv && .venv/bin/pip install '$from'"
    [[ $line =~ R([0-9]+)\ \(release\),\ REVISION:\ ([0-9.]+) ]] || fail $BOARD \
        "/etc/nv_tegra_release says '$line'" "expected 'R36 (release), REVISION: 4.3'"
    l4t=${BASH_REMATCH[1]}.${BASH_REMATCH[2]}
    case ${BASH_REMATCH[1]} in
        36) jetpack=6 python=$root/usr/bin/python3.10 ;;
        38 | 39) jetpack=7 python=$root/usr/bin/python3.12 ;;
        *) fail $BOARD "L4T $l4t is not supported" \
            "install JetPack 6.1 or newer (Orin) or JetPack 7 (Orin, Thor)" ;;
    esac
    constraints=$here/constraints-jetpack$jetpack.txt
    binding=$(tail -n 1 "$constraints")
    [ -x "$python" ] || fail $BOARD "JetPack $jetpack has no ${python#"$root"} here" \
        "sudo apt-get install $(basename "$python")"
    say found "L4T $l4t: JetPack $jetpack, $(basename "$python")"
}

packages() { # prints NAME=VERSION FILE for each package of JetPack's Python, NAME= if it is missing
    "$python" - <<'PYTHON'
import importlib

def package(name):
    try:
        module = importlib.import_module(name)
    except Exception:
        return ""
    return f"{getattr(module, '__version__', '')} {module.__file__}"

for name in ("tensorrt", "cv2", "numpy", "venv", "ensurepip"):
    print(f"{name}={package(name)}")
if package("cv2"):
    import cv2
    lines = [line.split() for line in cv2.getBuildInformation().splitlines()]
    words = next((line for line in lines if line[:1] == ["GStreamer:"]), [])
    print("gstreamer=yes" if "YES" in words else "gstreamer=")
PYTHON
}

has() { sed -n "s/^$1=//p" <<<"$installed"; }

missing_packages() {
    [ -n "$(has tensorrt)" ] || echo python3-libnvinfer
    [ -n "$(has cv2)" ] || echo nvidia-opencv
    if [ -z "$(has venv)" ] || [ -z "$(has ensurepip)" ]; then echo "$(basename "$python")-venv"; fi
}

find_packages() {
    local -a missing
    installed=$(packages) || fail $BOARD "$python does not run" "reinstall it with apt-get"
    mapfile -t missing < <(missing_packages)
    if [ ${#missing[@]} -gt 0 ]; then
        say missing "${missing[*]}"
        [ -n "$dry_run" ] || [ "$(id -u)" = 0 ] || fail $BOARD \
            "Debian packages are missing: ${missing[*]}" "sudo apt-get install ${missing[*]}"
        act "apt-get install ${missing[*]}" \
            apt-get install -y --no-install-recommends "${missing[@]}"
        [ -n "$dry_run" ] || installed=$(packages)
    fi
    for name in tensorrt cv2 numpy; do say found "$name $(has $name)"; done
    # A dry run installs nothing, so there is nothing to check.
    if [ -z "$dry_run" ] || [ ${#missing[@]} = 0 ]; then check_packages; fi
}

check_packages() {
    local trt=''
    trt=$(has tensorrt)
    [ -n "$trt" ] || fail $BOARD "$(basename "$python") cannot import tensorrt" \
        "sudo apt-get install nvidia-jetpack"
    [ "${trt%%.*}" -ge 10 ] || fail $BOARD "TensorRT ${trt%% *} is too old" \
        "install JetPack 6.1 or newer, which has 10.3"
    [ -n "$(has cv2)" ] || fail $BOARD "$(basename "$python") cannot import cv2" \
        "sudo apt-get install nvidia-opencv"
    [ -n "$(has gstreamer)" ] || say warning "this OpenCV has no GStreamer (no CSI camera): \
remove wheels with sudo pip3 uninstall opencv-python, then apt-get install nvidia-opencv"
}

# --- the installation ---------------------------------------------------------------------------

content_of() { # a digest of what would be installed
    if [ -d "$1" ]; then
        (cd "$1" && find "${CHECKOUT[@]}" -type f ! -path '*/__pycache__/*' -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum)
    else
        sha256sum <"$1"
    fi | sha256sum | cut -c1-12
}

version_name() { # the same for the same sources on the same board
    { content_of "$from"; cat "$constraints"; echo "$l4t $binding $installed"; } |
        sha256sum | cut -c1-12
}

lock() { # two at once would remove each other's folders; the lock ends with this process
    if ! { mkdir -p -- "$prefix/versions" && exec 9>>"$prefix/.lock"; }; then
        fail $USAGE "cannot write to $prefix" "sudo $0, or another --prefix"
    fi
    flock -n 9 || fail $STEP "another install.sh is at work in $prefix" "wait for its end"
}

# $1 folder. pip builds in the folder of the source, and files of an older build there would get
# into the wheel. So it builds in a copy.
copy_source() {
    if [ -f "$from" ]; then source=$from; return; fi
    source=$1
    if ! { mkdir -- "$1" && cp -a -- "${CHECKOUT[@]/#/$from/}" "$1"; }; then
        fail $STEP "cannot copy $from" "is the checkout complete? is the disk full?"
    fi
}

# $1 folder. An environment cannot be moved, so it is made where it stays. `current` points to it
# after it passed its check.
make_version() {
    trap 'rm -rf -- "$new" "$new.source"' EXIT
    rm -rf -- "$1" "$1.source"
    copy_source "$1.source"
    # The extra [events] brings MQTT, and what the live page needs: about 1 MB of pure Python.
    act "a virtual environment in $1" "$python" -m venv --system-site-packages "$1"
    act "pip install finedge from $from and $binding, constrained by $(basename "$constraints")" \
        "$1/bin/python" -m pip install --no-input --progress-bar off --only-binary :all: \
        --constraint "$constraints" "${source}[events]" "$binding"
    check_version "$1"
    rm -rf -- "$1.source"
    # installed.txt says that the version is complete, and that must hold after a power failure too.
    sync -f -- "$1" || fail $STEP "$1 could not be written to the disk" "df -h; dmesg"
    { date -u +%FT%TZ; echo "from $from"; echo "L4T $l4t"; echo "$installed"; } >"$1/installed.txt"
    trap - EXIT
}

check_version() { # $1 folder
    local fix="read the lines above; the installation before is still there"
    say doing "check that it imports JetPack's packages, and run finedge doctor"
    "$1/bin/python" - <<'PYTHON' ||
import sys

import cv2
import tensorrt

shadowed = [m.__name__ for m in (cv2, tensorrt) if m.__file__.startswith(sys.prefix + "/")]
if shadowed:
    sys.exit(f"{shadowed} came from pip")
PYTHON
        fail $CHECK "a package of JetPack is shadowed or cannot be imported" "$fix"
    "$1/bin/finedge" doctor >"$1/doctor.json" ||
        fail $CHECK "finedge doctor finds no backend that can run" "$fix"
}

point() { # $1 version; in one step, so that there is always a finedge
    ln -sfn -- "versions/$1" "$prefix/.current.new" &&
        mv -T -- "$prefix/.current.new" "$prefix/current"
}

remove_others() { # removes all versions but these two
    local folder
    for folder in "$prefix/versions"/*/; do
        folder=$(basename "$folder")
        [ "$folder" = "$1" ] || [ "$folder" = "$2" ] || rm -rf -- "${prefix:?}/versions/$folder"
    done
}

# Tells whether something is new that the running service does not have. It is a file, so that the
# next run completes a run that was interrupted.
changed() { [ -e "$prefix/.changed" ]; }

put() { # $1 file, $2 mode, $3 content; written under another name and renamed, if it differs
    [ "$(cat -- "$1" 2>/dev/null)" != "$3" ] || return 0
    mkdir -p -- "$(dirname "$1")"
    touch -- "$prefix/.changed"
    if ! { (umask 077 && printf '%s\n' "$3" >"$1.new") && chmod "$2" -- "$1.new" &&
        sync -- "$1.new" && mv -- "$1.new" "$1"; }; then
        fail $STEP "cannot write $1" \
            "free some space on the disk and run it again; the file is as it was"
    fi
    say wrote "$1"
}

put_command() {
    put "$prefix/bin/finedge" 755 "#!/bin/sh
# Made by jetson/install.sh. Packages in ~/.local must not shadow those of JetPack.
PYTHONNOUSERSITE=1 exec $prefix/current/bin/finedge \"\$@\""
    [ "$(id -u)" = 0 ] || return 0
    mkdir -p -- "$root/usr/local/bin"
    [ -e "$root/usr/local/bin/finedge" ] ||
        ln -sfn -- "$prefix/bin/finedge" "$root/usr/local/bin/finedge"
}

install_finedge() {
    local name old=''
    [ -n "$dry_run" ] || lock
    name=$(version_name)
    new=$prefix/versions/$name
    [ ! -L "$prefix/current" ] || old=$(basename "$(readlink "$prefix/current")")
    if [ -e "$new/installed.txt" ] && [ "$old" = "$name" ]; then
        say kept "$new: it is up to date"
        return
    fi
    if [ -n "$dry_run" ]; then
        say would "make $new, install finedge from $from and $binding into it, check it, \
point $prefix/current to it"
        return
    fi
    [ -e "$new/installed.txt" ] || make_version "$new"
    touch -- "$prefix/.changed"
    point "$name"
    remove_others "$name" "$old"
    say now "$prefix/current is versions/$name${old:+; versions/$old stays}"
}

# --- the service --------------------------------------------------------------------------------

board_settings() { # prints its device nodes, and the back-off where its systemd has one
    local node systemd
    echo '[Service]'
    find "$root/dev" ! -type d \
        \( -name 'nv*' -o -path '*/nvgpu/*' -o -name 'v4l2-*' -o -path '*/dri/renderD*' \) \
        ! -name 'nvme*' ! -name nvram 2>/dev/null |
        LC_ALL=C sort | while read -r node; do echo "DeviceAllow=${node#"$root"} rw"; done
    systemd=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    [ "${systemd:-0}" -lt 254 ] || printf 'RestartSteps=6\nRestartMaxDelaySec=120\n'
}

# Prints the secret that seals the engines of the user who called sudo, which is the user who
# deploys. It is made where there is none.
engine_key() {
    local user=${SUDO_UID:-0} home=''
    home=$(getent passwd "$user" | cut -d: -f6)
    [ -n "$home" ] || return 1
    # As that user, because links in their folder may lead anywhere.
    # shellcheck disable=SC2016 # $1 and $$ are those of sh
    setpriv --reuid "$user" --regid "${SUDO_GID:-0}" --clear-groups sh -c '
        umask 077
        cd -- / && mkdir -p -- "$1" || exit
        [ -s "$1/engine.key" ] || {
            od -An -v -tx1 -N32 /dev/urandom | tr -d " \n" >"$1/engine.key.$$" &&
                mv -- "$1/engine.key.$$" "$1/engine.key"
        } || exit
        head -c 1024 -- "$1/engine.key"' sh "$root$home/.cache/finedge"
}

install_service() {
    local units=$root/etc/systemd/system unit board key
    if [ -n "$dry_run" ]; then
        say would \
            "write $units/finedge.service and $root/etc/finedge/finedge.env, and enable the unit"
        return
    fi
    unit=$(sed "s|/opt/finedge|$prefix|g" "$here/finedge.service")
    board=$(board_settings)
    # The service then loads the engines that `finedge deploy` built as that user. Without the key
    # it builds them a second time.
    if key=$(engine_key) && [ -n "$key" ]; then
        put "$root/etc/finedge/engine.key" 600 "$key"
        board+=$'\nLoadCredential=engine.key:/etc/finedge/engine.key'
    else
        say warning "no engine.key of this user: the service builds its engines itself, \
at its first start with a new bundle"
    fi
    put "$units/finedge.service" 644 "$unit"
    put "$units/finedge.service.d/10-board.conf" 644 "$board"
    # It may hold a camera's password. The user edits it, so it is written only once.
    [ -s "$root/etc/finedge/finedge.env" ] ||
        put "$root/etc/finedge/finedge.env" 600 "$(cat "$here/finedge.env")"
    [ -d "$root/srv/finedge" ] ||
        install -d -o "${SUDO_UID:-0}" -g "${SUDO_GID:-0}" "$root/srv/finedge"
    if changed; then act "systemctl daemon-reload" systemctl daemon-reload; fi
    systemctl is-enabled --quiet finedge.service ||
        act "systemctl enable finedge.service" systemctl enable --quiet finedge.service
    if changed; then restart_service; fi
    systemctl is-active --quiet finedge.service ||
        say next "finedge deploy a bundle, set the source in $root/etc/finedge/finedge.env, then: \
sudo systemctl restart finedge"
}

restart_service() { # only if it runs
    say doing "systemctl try-restart finedge.service"
    systemctl try-restart finedge.service ||
        fail $STEP "finedge.service does not come up with the new installation" \
            "journalctl -u finedge; to go back: ln -sfn versions/NAME $prefix/current \
(ls $prefix/versions)"
    rm -f -- "$prefix/.changed"
}

main() {
    parse "$@"
    find_board
    find_packages
    install_finedge
    [ -n "$dry_run" ] || put_command
    [ -z "$service" ] || install_service
    [ -n "$dry_run" ] || say ready "$prefix/bin/finedge"
}

main "$@"
