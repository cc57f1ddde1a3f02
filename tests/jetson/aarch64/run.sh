#!/usr/bin/env bash
# The device part on an emulated aarch64: Debian's arm64 Python and the published aarch64 wheels
# under qemu-user. It needs no root and no chroot.
#
# usage: run.sh [CACHE]
#
# Exit code 0: all passed. 77: it cannot be tried here; the last line says why. Else: a step failed.
# Downloads go to CACHE (default $FINEDGE_CACHE/aarch64), and a second run needs no network. PYTHON
# is the interpreter whose pip downloads.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
cache=${1:-${FINEDGE_CACHE:-$HOME/.cache/finedge}/aarch64}
python=${PYTHON:-python3}
packages=(python3 libgomp1 libstdc++6)
# The requirements of the base install. OpenCV is separate, because a board has it from JetPack.
needs=(numpy Pillow av onnx onnxruntime tyro rich)
extras=(opencv-python-headless pytest)
# Tests that start dozens of interpreters or build packages are left out: they say nothing more
# about the CPU, and they take minutes under emulation.
tests=(finedge/test_{bundle,image,measure,ops,preprocess,resample}.py synthetic/test_perturb.py)

skip() {
    echo "$1" >&2
    exit 77
}

step() { printf '== %s\n' "$*" >&2; }

for command in qemu-aarch64 apt-get dpkg-deb; do
    command -v "$command" >/dev/null ||
        skip "$command is not installed: apt-get install qemu-user apt dpkg"
done
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# apt with its own state. It reads only the sources of this machine, and writes nothing outside
# CACHE.
apt() {
    apt-get -qq -o "Dir::State=$cache/apt/state" -o "Dir::State::status=$cache/apt/status" \
        -o "Dir::Cache=$cache/apt/cache" -o APT::Architecture=arm64 -o APT::Architectures::=arm64 \
        -o Acquire::Languages=none -o "APT::Sandbox::User=$(id -un)" "$@"
}

fetch_root() {
    step "arm64 packages: ${packages[*]}"
    mkdir -p "$cache"/apt/state/lists/partial "$cache"/apt/cache/archives/partial
    : >"$cache/apt/status"
    apt update >&2 ||
        skip "apt-get update for arm64 failed: no network, or the sources have no arm64"
    apt install --download-only -y --no-install-recommends "${packages[@]}" >&2 ||
        skip "the arm64 packages cannot be downloaded: ${packages[*]}"
    rm -rf "$cache/debian.new"
    mkdir "$cache/debian.new"
    for package in "$cache"/apt/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$cache/debian.new"
    done
    cpu_of_an_orin >"$cache/debian.new/cpuinfo"
    mkdir -p "$cache/debian.new/proc" && mv "$cache/debian.new/cpuinfo" "$cache/debian.new/proc/"
    rm -rf "$cache/debian" "$cache/apt"
    mv "$cache/debian.new" "$cache/debian"
}

# qemu shows the /proc/cpuinfo of the host, and ONNX Runtime fails where that has no ARM core. A
# file in the root of the emulated system comes first.
cpu_of_an_orin() {
    for core in 0 1; do
        printf 'processor\t: %s\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 ' "$core"
        printf 'atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n'
        printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\n'
        printf 'CPU part\t: 0xd0b\nCPU revision\t: 1\n\n'
    done
}

# The emulated core is the nearest one to the Cortex-A78AE of an Orin. The tests start this Python
# as sys.executable.
make_python() {
    cat >"$cache/python" <<TEXT
#!/bin/sh
exec qemu-aarch64 -cpu cortex-a76 -L "$cache/debian" "$cache/debian/usr/bin/python3" "\$@"
TEXT
    chmod +x "$cache/python"
    mkdir -p "$cache/startup"
    printf 'import sys\n\nsys.executable = "%s"\n' "$cache/python" \
        >"$cache/startup/sitecustomize.py"
}

pins() { # prints the versions in constraints.txt
    local names
    names=$(IFS='|' && echo "${needs[*]}|${extras[*]}")
    grep -iE "^($names)==" "$repo/constraints.txt"
}

fetch_wheels() {
    local version platforms=(--platform manylinux2014_aarch64)
    version=$("$cache/python" -c 'import sys; print("%d%d" % sys.version_info[:2])')
    for glibc in 17 24 26 27 28 31 34 35; do
        platforms+=(--platform "manylinux_2_${glibc}_aarch64")
    done
    step "aarch64 wheels for Python $version: ${needs[*]} ${extras[*]}"
    "$python" -m pip download --quiet --disable-pip-version-check "${platforms[@]}" \
        --python-version "$version" --implementation cp --only-binary=:all: \
        --constraint "$repo/constraints.txt" --dest "$cache/wheels.new" \
        "${needs[@]}" "${extras[@]}" pip >&2 || skip "the aarch64 wheels cannot be downloaded"
    rm -rf "$cache/wheels"
    mv "$cache/wheels.new" "$cache/wheels"
    pins >"$cache/wheels/pins.txt"
}

emulated_pip() { # pip runs emulated, so it chooses by the markers and tags of aarch64
    PYTHONPATH=$(echo "$cache"/wheels/pip-*.whl) PIP_NO_INDEX=1 PIP_FIND_LINKS="$cache/wheels" \
        "$cache/python" -m pip install --quiet --no-compile --root-user-action ignore "$@" >&2
}

install_finedge() {
    local source=$cache/source
    step "finedge's wheel, installed by aarch64's pip"
    rm -rf "$source" "$cache/site" "$cache/extra"
    mkdir "$source"
    cp -a "$repo"/{pyproject.toml,README.md,LICENSE} "$source"
    cp -a "$repo"/{calib,export,finedge,jetson,runtime,train} "$source"
    (cd "$source" && "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps \
        --no-build-isolation --wheel-dir "$source/wheel" .) >&2
    emulated_pip --target "$cache/site" "$source"/wheel/finedge-*.whl
    [ ! -e "$cache/site/cv2" ] || {
        echo "the base install has an OpenCV wheel on aarch64: it would shadow JetPack's" >&2
        exit 1
    }
    emulated_pip --target "$cache/extra" --no-deps "${extras[@]}" iniconfig pluggy
    rm -rf "$source"
}

check() {
    local bundle=$repo/examples/birds.finedge finedge=("$cache/python" "$cache/site/bin/finedge")
    export PYTHONPATH=$cache/startup:$cache/site:$cache/extra FINEDGE_CACHE=$cache/machine
    export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
    step "import, --help"
    "$cache/python" -c 'import finedge, platform
assert platform.machine() == "aarch64"
print("finedge", finedge.__version__, finedge.__file__)' >&2
    "${finedge[@]}" --help >"$cache/help.txt"
    step "verify"
    "${finedge[@]}" verify "$bundle" >"$cache/verify.json"
    "$python" - "$cache/verify.json" <<'PYTHON' >&2
import json
import sys
from pathlib import Path

for stage in json.loads(Path(sys.argv[1]).read_text())["stages"]:
    if stage["pass"] is not None:
        difference = f"max |delta| {stage['max_abs']:.3g}, at most {stage['limit']:.3g}"
        print(f"{stage['name']:40} {difference}")
PYTHON
    step "classify"
    "${finedge[@]}" classify "$bundle" test:// --frames 3 >"$cache/classify.jsonl"
    [ "$(wc -l <"$cache/classify.jsonl")" -ge 3 ]
    step "pixels"
    "$cache/python" "$repo/tests/jetson/aarch64/pixels.py" "$cache/pixels.npz"
    step "tests of the contract: ${tests[*]}"
    cd "$repo"
    "$cache/python" "$cache/extra/bin/pytest" -p no:cacheprovider --durations=5 \
        "${tests[@]/#/tests/}" 2>&1 |
        tee "$cache/pytest.txt" >&2
}

[ -d "$cache/debian" ] || fetch_root
make_python
"$cache/python" -c 'pass' || skip "qemu-aarch64 cannot run the arm64 Python"
[ "$(cat "$cache/wheels/pins.txt" 2>/dev/null)" = "$(pins)" ] || fetch_wheels
install_finedge
check
system='import platform; print(platform.machine(), platform.python_version())'
step "all passed on $("$cache/python" -c "$system")"
