#!/usr/bin/env bash
# One bundle on the GPU of this machine: engines of every precision, the golden frame, agreement on images, accuracy and latency.
#
#     benchmarks/gpu/engine.sh BUNDLE OUT [DATA]        backend tensorrt-rtx, or BACKEND=tensorrt
#
# What the library says is kept whatever it is: it may not know this GPU (TensorRT for RTX lists 7.5, 8.0, 8.6, 8.9, 12.0 and 12.1).
set -uo pipefail
bundle=$1 out=$2 data=${3:+--data $3} backend=${BACKEND:-tensorrt-rtx} finedge="python -m finedge"
mkdir -p "$out"
run() {
    name=$1
    shift
    echo "== $*" >&2
    "$@" >"$out/$name.json" 2>"$out/$name.log"
    echo "$name: exit code $?" | tee -a "$out/exit_codes.txt" >&2
}
run doctor $finedge doctor
run build $finedge build "$bundle" --backend "$backend" --precision fp32,fp16,int8,int8-fp32
run verify $finedge verify "$bundle" --backend "$backend" $data
run benchmark $finedge benchmark "$bundle" --backend "$backend" --variants fp32,fp16,int8 --mode single-stream,offline --batch 8 --duration 20s --out "$out" $data
run cpu $finedge benchmark "$bundle" --backend onnxruntime --duration 10s --out "$out/cpu" $data
