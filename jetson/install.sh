#!/usr/bin/env bash
# Sets up finedge on a Jetson beside what JetPack brings, and never replaces any of that: `install.sh --help`.
set -euo pipefail

# A wheel in somebody's ~/.local must neither count as installed nor shadow JetPack's own.
export PYTHONNOUSERSITE=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

readonly USAGE=2 BOARD=3 STEP=4 CHECK=5
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${FINEDGE_ROOT:-}
prefix=$root/opt/finedge
from=$(dirname "$here")
dry_run='' service=''

usage() {
    cat <<'TEXT'
usage: install.sh [--prefix DIR] [--from SOURCE] [--service] [--dry-run]

Makes a virtual environment that sees JetPack's TensorRT, OpenCV and numpy, and installs finedge into it. pip is told to fail rather than
to replace them. JetPack 6.1 or newer and JetPack 7. A second run with nothing new does nothing.

  --prefix DIR    where it goes (default /opt/finedge; DIR/bin/finedge is the command)
  --from SOURCE   a checkout or a wheel of finedge (default: the checkout this script lies in)
  --service       also install the systemd unit finedge.service, its settings in /etc/finedge/finedge.env; needs root
  --dry-run       look at the board and say what would be done

Exit codes: 0 done or nothing to do; 2 usage; 3 this board cannot, with what to do; 4 a step failed, 5 the new installation does not
pass its check: after 4 and 5 what was installed before still is.
TEXT
}

say() { printf '%-8s %s\n' "$1" "$2"; }

fail() { # code, what is wrong, what to do
    printf 'install.sh: %s\n  to do: %s\n' "$2" "$3" >&2
    exit "$1"
}

act() { # what is said, then the command
    if [ -n "$dry_run" ]; then say would "$1"; return; fi
    say doing "$1"
    "${@:2}" || fail $STEP "failed: $1" "read the lines above; run it again: nothing that worked before was changed"
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            --prefix | --from)
                [ -n "${2:-}" ] || fail $USAGE "$1 needs a value" "install.sh --help"
                if [ "$1" = --prefix ]; then prefix=$(realpath -m -- "$2"); else from=$(realpath -m -- "$2"); fi
                shift
                ;;
            --service) service=yes ;;
            --dry-run) dry_run=yes ;;
            --help | -h) usage; exit 0 ;;
            *) fail $USAGE "unknown option '$1'" "install.sh --help" ;;
        esac
        shift
    done
    [[ $prefix =~ ^[A-Za-z0-9/._+-]+$ ]] || fail $USAGE "--prefix '$prefix'" "a folder without spaces or other signs that scripts and units read"
    [ -e "$from" ] || fail $USAGE "--from '$from' does not exist" "name a checkout or a wheel of finedge"
    if [ -n "$service" ] && [ -z "$dry_run" ] && [ "$(id -u)" != 0 ]; then fail $USAGE "--service needs root" "sudo $0 --service"; fi
}

# --- the board ------------------------------------------------------------------------------------------------------------

find_board() { # sets l4t, jetpack, python, constraints and the binding of CUDA
    local line=''
    [ ! -r "$root/etc/nv_tegra_release" ] || read -r line <"$root/etc/nv_tegra_release" || true
    [ -n "$line" ] || fail $BOARD "no /etc/nv_tegra_release: this is no Jetson" "elsewhere: python3 -m venv .venv && .venv/bin/pip install '$from'"
    [[ $line =~ R([0-9]+)\ \(release\),\ REVISION:\ ([0-9.]+) ]] || fail $BOARD "/etc/nv_tegra_release says '$line'" "expected 'R36 (release), REVISION: 4.3'"
    l4t=${BASH_REMATCH[1]}.${BASH_REMATCH[2]}
    case ${BASH_REMATCH[1]} in
        36) jetpack=6 python=$root/usr/bin/python3.10 ;;
        38 | 39) jetpack=7 python=$root/usr/bin/python3.12 ;;
        *) fail $BOARD "L4T $l4t is not supported" "install JetPack 6.1 or newer (Orin) or JetPack 7 (Orin, Thor)" ;;
    esac
    constraints=$here/constraints-jetpack$jetpack.txt
    binding=$(tail -n 1 "$constraints")
    [ -x "$python" ] || fail $BOARD "JetPack $jetpack without ${python#"$root"}" "sudo apt-get install $(basename "$python")"
    say found "L4T $l4t: JetPack $jetpack, $(basename "$python")"
}

look() { # prints NAME=VERSION FILE of what JetPack's Python has, NAME= where it is missing
    "$python" - <<'PYTHON'
import importlib

def found(name):
    try:
        module = importlib.import_module(name)
    except Exception:
        return ""
    return f"{getattr(module, '__version__', '')} {module.__file__}"

for name in ("tensorrt", "cv2", "numpy", "venv", "ensurepip"):
    print(f"{name}={found(name)}")
if found("cv2"):
    import cv2
    words = next((line.split() for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GStreamer:")), [])
    print("gstreamer=yes" if "YES" in words else "gstreamer=")
PYTHON
}

has() { sed -n "s/^$1=//p" <<<"$seen"; }

missing_packages() {
    [ -n "$(has tensorrt)" ] || echo python3-libnvinfer
    [ -n "$(has cv2)" ] || echo nvidia-opencv
    if [ -z "$(has venv)" ] || [ -z "$(has ensurepip)" ]; then echo "$(basename "$python")-venv"; fi
}

find_packages() {
    local -a missing
    seen=$(look) || fail $BOARD "$python does not run" "reinstall it with apt-get"
    mapfile -t missing < <(missing_packages)
    if [ ${#missing[@]} -gt 0 ]; then
        say missing "${missing[*]}"
        [ -n "$dry_run" ] || [ "$(id -u)" = 0 ] || fail $BOARD "Debian packages are missing: ${missing[*]}" "sudo apt-get install ${missing[*]}"
        act "apt-get install ${missing[*]}" apt-get install -y --no-install-recommends "${missing[@]}"
        [ -n "$dry_run" ] || seen=$(look)
    fi
    for name in tensorrt cv2 numpy; do say found "$name $(has $name)"; done
    [ -n "$dry_run" ] || judge_packages
}

judge_packages() {
    local trt=''
    trt=$(has tensorrt)
    [ -n "$trt" ] || fail $BOARD "$(basename "$python") cannot import tensorrt" "sudo apt-get install nvidia-jetpack"
    [ "${trt%%.*}" -ge 10 ] || fail $BOARD "TensorRT ${trt%% *} is too old" "JetPack 6.1 or newer brings 10.3"
    [ -n "$(has cv2)" ] || fail $BOARD "$(basename "$python") cannot import cv2" "sudo apt-get install nvidia-opencv"
    [ -n "$(has gstreamer)" ] || say warning "this OpenCV has no GStreamer (no CSI camera through it): remove wheels with sudo pip3 uninstall opencv-python, then apt-get install nvidia-opencv"
}

# --- the installation -----------------------------------------------------------------------------------------------------

content_of() { # a digest of what would be installed
    if [ -d "$1" ]; then
        (cd "$1" && find pyproject.toml calib export finedge jetson runtime train -type f ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
    else
        sha256sum <"$1"
    fi | sha256sum | cut -c1-12
}

version_name() { # the same for the same sources on the same board
    { content_of "$from"; cat "$constraints"; echo "$l4t $binding $seen"; } | sha256sum | cut -c1-12
}

make_version() { # $1 folder; the environment cannot be moved, so it is made where it stays and `current` points to it when it is good
    trap 'rm -rf -- "$new"' EXIT
    rm -rf -- "$1"
    act "a virtual environment in $1" "$python" -m venv --system-site-packages "$1"
    act "pip install finedge from $from and $binding, constrained by $(basename "$constraints")" \
        "$1/bin/python" -m pip install --no-input --progress-bar off --only-binary :all: --constraint "$constraints" "$from" "$binding"
    check_version "$1"
    { date -u +%FT%TZ; echo "from $from"; echo "L4T $l4t"; echo "$seen"; } >"$1/installed.txt"
    trap - EXIT
}

check_version() { # $1 folder
    say doing "its check: JetPack's packages are the ones it sees, and finedge doctor"
    "$1/bin/python" - <<'PYTHON' || fail $CHECK "a package of JetPack is shadowed or does not import" "read the lines above; what was installed before still is"
import sys

import cv2
import tensorrt

shadowed = [m.__name__ for m in (cv2, tensorrt) if m.__file__.startswith(sys.prefix + "/")]
if shadowed:
    sys.exit(f"{shadowed} came from pip")
PYTHON
    "$1/bin/finedge" doctor >"$1/doctor.json" || fail $CHECK "finedge doctor finds no backend that can run" "read the lines above; what was installed before still is"
}

point() { # $1 version: in one step, so that there is always a finedge
    ln -sfn -- "versions/$1" "$prefix/.current.new" && mv -T -- "$prefix/.current.new" "$prefix/current"
}

forget() { # all versions but these two
    local folder
    for folder in "$prefix/versions"/*/; do
        folder=$(basename "$folder")
        [ "$folder" = "$1" ] || [ "$folder" = "$2" ] || rm -rf -- "${prefix:?}/versions/$folder"
    done
}

same() { [ "$(cat -- "$1" 2>/dev/null)" = "$(cat -- "$2")" ]; }

put() { # $1 file, $2 mode, content on stdin; written beside and renamed, and only where it differs: then it returns 0
    local new=$1.new
    mkdir -p -- "$(dirname "$1")"
    cat >"$new"
    if same "$1" "$new"; then rm -- "$new"; return 1; fi
    chmod "$2" -- "$new" && mv -- "$new" "$1"
    say wrote "$1"
}

put_command() {
    put "$prefix/bin/finedge" 755 <<TEXT || true
#!/bin/sh
# Made by jetson/install.sh. Packages in ~/.local must not shadow those of JetPack.
PYTHONNOUSERSITE=1 exec $prefix/current/bin/finedge "\$@"
TEXT
    [ "$(id -u)" = 0 ] || return 0
    mkdir -p -- "$root/usr/local/bin"
    [ -e "$root/usr/local/bin/finedge" ] || ln -s -- "$prefix/bin/finedge" "$root/usr/local/bin/finedge"
}

install_finedge() {
    local name old=''
    name=$(version_name)
    new=$prefix/versions/$name
    [ ! -L "$prefix/current" ] || old=$(basename "$(readlink "$prefix/current")")
    if [ -e "$new/installed.txt" ] && [ "$old" = "$name" ]; then say kept "$new: it is up to date"; return; fi
    if [ -n "$dry_run" ]; then say would "make $new, install finedge from $from and $binding into it, check it, point $prefix/current to it"; return; fi
    mkdir -p -- "$prefix/versions" || fail $USAGE "cannot write to $prefix" "sudo $0, or another --prefix"
    [ -e "$new/installed.txt" ] || make_version "$new"
    point "$name"
    forget "$name" "$old"
    say now "$prefix/current is versions/$name${old:+; versions/$old stays}"
    changed=yes
}

# --- the service ----------------------------------------------------------------------------------------------------------

board_settings() { # what only the board knows: its device nodes, and whether its systemd can back off
    local node systemd
    echo '[Service]'
    find "$root/dev" ! -type d \( -name 'nv*' -o -path '*/nvgpu/*' -o -name 'v4l2-*' -o -path '*/dri/renderD*' \) ! -name 'nvme*' ! -name nvram 2>/dev/null |
        LC_ALL=C sort | while read -r node; do echo "DeviceAllow=${node#"$root"} rw"; done
    systemd=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    [ "${systemd:-0}" -lt 254 ] || printf 'RestartSteps=6\nRestartMaxDelaySec=120\n'
}

install_service() {
    local units=$root/etc/systemd/system reload=''
    if [ -n "$dry_run" ]; then say would "write $units/finedge.service and $root/etc/finedge/finedge.env, and enable the unit"; return; fi
    sed "s|/opt/finedge|$prefix|g" "$here/finedge.service" | put "$units/finedge.service" 644 && reload=yes
    board_settings | put "$units/finedge.service.d/10-board.conf" 644 && reload=yes
    # It may hold a camera's password, and once it is the user's it is never written again.
    [ -e "$root/etc/finedge/finedge.env" ] || put "$root/etc/finedge/finedge.env" 600 <"$here/finedge.env"
    install -d -o "${SUDO_UID:-0}" -g "${SUDO_GID:-0}" "$root/srv/finedge"
    [ -z "$reload" ] || act "systemctl daemon-reload" systemctl daemon-reload
    systemctl is-enabled --quiet finedge.service || act "systemctl enable finedge.service" systemctl enable --quiet finedge.service
    [ -z "$reload$changed" ] || act "systemctl try-restart finedge.service" systemctl try-restart finedge.service
    systemctl is-active --quiet finedge.service || say next "set bundle and source in $root/etc/finedge/finedge.env, then: sudo systemctl start finedge"
}

main() {
    changed=''
    parse "$@"
    find_board
    find_packages
    install_finedge
    [ -n "$dry_run" ] || put_command
    [ -z "$service" ] || install_service
    [ -n "$dry_run" ] || say ready "$prefix/bin/finedge"
}

main "$@"
