#!/usr/bin/env bash
# The device part on an emulated aarch64: Debian's arm64 Python and the published aarch64 wheels under qemu-user. No root, no chroot.
#
# usage: run.sh [CACHE]       exit 0: all passed; 77: it cannot be tried here, the last line says why; else: a step failed
#
# Downloads go to CACHE (default $FINEDGE_CACHE/aarch64); a second run needs no network. PYTHON is the interpreter whose pip downloads.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
cache=${1:-${FINEDGE_CACHE:-$HOME/.cache/finedge}/aarch64}
python=${PYTHON:-python3}
packages=(python3 libgomp1 libstdc++6)
# What the wheels of the base install need of themselves; opencv comes apart: on a board it is JetPack's.
needs=(numpy Pillow onnx onnxruntime tyro rich)
extras=(opencv-python-headless pytest)
# Left out under emulation: what starts dozens of interpreters or builds packages says nothing more about the CPU, and takes minutes.
tests=(bundle image measure ops perturb preprocess resample)

skip() {
    echo "$1" >&2
    exit 77
}

step() { printf '== %s\n' "$*" >&2; }

for command in qemu-aarch64 apt-get dpkg-deb; do
    command -v "$command" >/dev/null || skip "$command is not here: apt-get install qemu-user apt dpkg"
done
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# apt with a state of its own: nothing of this machine's is read but the sources, and nothing is written.
apt() {
    apt-get -qq -o "Dir::State=$cache/apt/state" -o "Dir::State::status=$cache/apt/status" -o "Dir::Cache=$cache/apt/cache" \
        -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Acquire::Languages=none -o "APT::Sandbox::User=$(id -un)" "$@"
}

fetch_root() {
    step "arm64 packages: ${packages[*]}"
    mkdir -p "$cache"/apt/state/lists/partial "$cache"/apt/cache/archives/partial
    : >"$cache/apt/status"
    apt update >&2 || skip "apt-get update for arm64 failed: no network, or the sources have no arm64"
    apt install --download-only -y --no-install-recommends "${packages[@]}" >&2 || skip "the arm64 packages cannot be had: ${packages[*]}"
    rm -rf "$cache/debian.new"
    mkdir "$cache/debian.new"
    for package in "$cache"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$cache/debian.new"; done
    cpu_of_an_orin >"$cache/debian.new/cpuinfo"
    mkdir -p "$cache/debian.new/proc" && mv "$cache/debian.new/cpuinfo" "$cache/debian.new/proc/"
    rm -rf "$cache/debian" "$cache/apt"
    mv "$cache/debian.new" "$cache/debian"
}

# qemu shows the host's own /proc/cpuinfo, and ONNX Runtime fails on finding no ARM core in it; a file of the root comes before the host's.
cpu_of_an_orin() {
    for core in 0 1; do
        printf 'processor\t: %s\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n' "$core"
        printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n'
    done
}

# The emulated core is the one nearest to an Orin's Cortex-A78AE. The tests start it as sys.executable.
make_python() {
    cat >"$cache/python" <<TEXT
#!/bin/sh
exec qemu-aarch64 -cpu cortex-a76 -L "$cache/debian" "$cache/debian/usr/bin/python3" "\$@"
TEXT
    chmod +x "$cache/python"
    mkdir -p "$cache/startup"
    printf 'import sys\n\nsys.executable = "%s"\n' "$cache/python" >"$cache/startup/sitecustomize.py"
}

pins() { # the versions asked for
    local names
    names=$(IFS='|' && echo "${needs[*]}|${extras[*]}")
    grep -iE "^($names)==" "$repo/constraints.txt"
}

fetch_wheels() {
    local version platforms=(--platform manylinux2014_aarch64)
    version=$("$cache/python" -c 'import sys; print("%d%d" % sys.version_info[:2])')
    for glibc in 17 24 26 27 28 31 34 35; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
    step "aarch64 wheels for Python $version: ${needs[*]} ${extras[*]}"
    "$python" -m pip download --quiet --disable-pip-version-check "${platforms[@]}" --python-version "$version" --implementation cp --only-binary=:all: \
        --constraint "$repo/constraints.txt" --dest "$cache/wheels.new" "${needs[@]}" "${extras[@]}" pip >&2 || skip "the aarch64 wheels cannot be had"
    rm -rf "$cache/wheels"
    mv "$cache/wheels.new" "$cache/wheels"
    pins >"$cache/wheels/pins.txt"
}

pip_there() { # pip itself runs emulated: it chooses by the markers and tags of aarch64
    PYTHONPATH=$(echo "$cache"/wheels/pip-*.whl) PIP_NO_INDEX=1 PIP_FIND_LINKS="$cache/wheels" "$cache/python" -m pip install --quiet --no-compile \
        --root-user-action ignore "$@" >&2
}

install_there() {
    local source=$cache/source
    step "finedge's wheel, installed by aarch64's pip"
    rm -rf "$source" "$cache/site" "$cache/extra"
    mkdir "$source"
    cp -a "$repo"/{pyproject.toml,README.md,LICENSE,calib,export,finedge,jetson,runtime,train} "$source"
    (cd "$source" && "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$source/wheel" .) >&2
    pip_there --target "$cache/site" "$source"/wheel/finedge-*.whl
    [ ! -e "$cache/site/cv2" ] || { echo "the base install brought an OpenCV wheel on aarch64: it would shadow JetPack's" >&2; exit 1; }
    pip_there --target "$cache/extra" --no-deps "${extras[@]}" iniconfig pluggy
    rm -rf "$source"
}

check() {
    local bundle=$repo/examples/birds.finedge finedge=("$cache/python" "$cache/site/bin/finedge")
    export PYTHONPATH=$cache/startup:$cache/site:$cache/extra OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 FINEDGE_CACHE=$cache/machine
    step "import, --help"
    "$cache/python" -c 'import finedge, platform; assert platform.machine() == "aarch64"; print("finedge", finedge.__version__, finedge.__file__)' >&2
    "${finedge[@]}" --help >"$cache/help.txt"
    step "verify"
    "${finedge[@]}" verify "$bundle" >"$cache/verify.json"
    "$python" - "$cache/verify.json" <<'PYTHON' >&2
import json
import sys
from pathlib import Path

for stage in json.loads(Path(sys.argv[1]).read_text())["stages"]:
    if stage["pass"] is not None:
        print(f"{stage['name']:40} max |delta| {stage['max_abs']:.3g}, at most {stage['limit']:.3g}")
PYTHON
    step "classify"
    "${finedge[@]}" classify "$bundle" test:// --frames 3 >"$cache/classify.jsonl"
    [ "$(wc -l <"$cache/classify.jsonl")" -ge 3 ]
    step "pixels"
    "$cache/python" "$repo/tests/jetson/aarch64/pixels.py" "$cache/pixels.npz"
    step "tests of the contract: ${tests[*]}"
    cd "$repo"
    "$cache/python" "$cache/extra/bin/pytest" -p no:cacheprovider --durations=5 "${tests[@]/#/tests/finedge/test_}" 2>&1 |
        tee "$cache/pytest.txt" >&2
}

[ -d "$cache/debian" ] || fetch_root
make_python
"$cache/python" -c 'pass' || skip "qemu-aarch64 cannot run the arm64 Python"
[ "$(cat "$cache/wheels/pins.txt" 2>/dev/null)" = "$(pins)" ] || fetch_wheels
install_there
tests=("${tests[@]/%/.py}")
check
step "all passed on $("$cache/python" -c 'import platform; print(platform.machine(), platform.python_version())')"
