#!/usr/bin/env bash
# NVIDIA's trtexec beside ours, on the same files of one bundle: for a device with TensorRT.
#
# Not run on hardware: tests/benchmarks/test_trtexec.py runs it with a stand-in for trtexec.
#
#     benchmarks/trtexec.sh BUNDLE OUT
#
# Each precision is built by trtexec with --stronglyTyped from the file that finedge builds from (fp32 without TF32, as finedge
# does). It is timed with a CUDA graph, with the copies between host and GPU and without (--noDataTransfers). Then `finedge
# benchmark` measures its own engines. `finedge build` may use the plugin for attention; trtexec reads standard ops only.
#
# OUT gets the log and the times (JSON) of each run, finedge's report, and summary.csv:
#     precision,transfers,reader,queries,median_latency_ms,median_compute_ms,exit_code
# A run that fails leaves its row without numbers, and the exit code 1 at the end. Exit code 2: wrong arguments, or no trtexec.
#
# TRTEXEC: the program; default: trtexec on PATH, or /usr/src/tensorrt/bin/trtexec (JetPack).
# FINEDGE: the command; default: finedge. BATCH: frames at once; default: 1. SECONDS_EACH: default: 10.
set -euo pipefail

die() {
    echo "trtexec.sh: $1" >&2
    exit 2
}

[ $# -eq 2 ] || die "usage: benchmarks/trtexec.sh BUNDLE OUT"
bundle=$1 out=$2
batch=${BATCH:-1} seconds=${SECONDS_EACH:-10} finedge=${FINEDGE:-finedge}
[ -f "$bundle/manifest.json" ] || die "$bundle is no bundle: it has no manifest.json"
trtexec=${TRTEXEC:-$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}
[ -x "$trtexec" ] || die "no trtexec: install TensorRT's samples (libnvinfer-bin), or set TRTEXEC"
mkdir -p "$out"
echo "precision,transfers,reader,queries,median_latency_ms,median_compute_ms,exit_code" >"$out/summary.csv"
failures=0

# The input's name and size, e.g. "frames:1x160x160x3".
shape=$(python3 - "$bundle/manifest.json" "$batch" <<'PYTHON'
import json, sys

source = json.load(open(sys.argv[1]))["spec"]["input"]
print(f"{source['name']}:{sys.argv[2]}x{source['height']}x{source['width']}x3")
PYTHON
)

# The number of queries, and the medians of latency and compute time, from the file of --exportTimes.
medians() {
    python3 - "$1" <<'PYTHON'
import json, statistics, sys

times = json.load(open(sys.argv[1]))
columns = ([query[key] for query in times] for key in ("latencyMs", "computeMs"))
print(len(times), *(f"{statistics.median(column):.4f}" for column in columns), sep=",")
PYTHON
}

# run NAME COMMAND ...: its output goes to OUT/NAME.log; sets `code`.
run() {
    local name=$1
    shift
    echo "== $*" >&2
    code=0
    "$@" >"$out/$name.log" 2>&1 || code=$?
    [ "$code" -eq 0 ] || { failures=1 && echo "$name: exit code $code; see $out/$name.log" >&2; }
}

# time_engine PRECISION TRANSFERS [OPTION]: one row.
time_engine() {
    local precision=$1 transfers=$2 name=$1-$2 numbers=",,"
    shift 2
    rm -f "$out/$name.json"
    run "$name" "$trtexec" "--loadEngine=$out/$precision.engine" "--shapes=$shape" --useCudaGraph --useSpinWait \
        --warmUp=2000 "--duration=$seconds" "--exportTimes=$out/$name.json" "$@"
    if [ "$code" -eq 0 ]; then
        numbers=$(medians "$out/$name.json") || { failures=1 numbers=",," && echo "$name: no times in $out/$name.json" >&2; }
    fi
    echo "$precision,$transfers,trtexec,$numbers,$code" >>"$out/summary.csv"
}

for precision in fp32 fp16 int8; do
    file=$bundle/model.$precision.onnx
    if [ ! -f "$file" ]; then
        echo "$precision: the bundle holds no ${file##*/}: skipped" >&2
        continue
    fi
    rm -f "$out/$precision.engine"
    run "$precision-build" "$trtexec" "--onnx=$file" --stronglyTyped --noTF32 --skipInference \
        "--minShapes=$shape" "--optShapes=$shape" "--maxShapes=$shape" "--saveEngine=$out/$precision.engine"
    if [ "$code" -ne 0 ]; then
        echo "$precision,,trtexec,,,,$code" >>"$out/summary.csv"
        continue
    fi
    time_engine "$precision" with
    time_engine "$precision" without --noDataTransfers
done

# Our own engines, from decoded frame to top-k (p50_ms), and the engine with its copies (engine_p50_ms).
echo "== $finedge benchmark $bundle" >&2
code=0
"$finedge" benchmark "$bundle" --backend tensorrt --variants fp32,fp16,int8 --mode single-stream \
    --duration "${seconds}s" --out "$out/finedge" >"$out/finedge.json" 2>"$out/finedge.log" || code=$?
if [ "$code" -ne 0 ]; then
    failures=1
    echo ",with,finedge,,,,$code" >>"$out/summary.csv"
    echo "finedge benchmark: exit code $code; see $out/finedge.log" >&2
else
    python3 - "$out/finedge.json" >>"$out/summary.csv" <<'PYTHON'
import json, sys

for row in json.load(open(sys.argv[1]))["rows"]:
    numbers = (row["n"], row["engine_p50_ms"], "", 0)
    print(row["variant"], "with", "finedge", *numbers, sep=",")
PYTHON
fi
cat "$out/summary.csv"
exit "$failures"
