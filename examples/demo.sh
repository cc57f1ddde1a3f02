#!/usr/bin/env bash
# The main job: from images to two classifiers, their bundles, INT8, checks, measurements, a report.
# The last line of stdout is the path of the report.
set -euo pipefail
data=$1 out=$2
step() { printf '\n== %s\n' "$*" >&2; }

# Every step of one model; the lines of its log begin with its name.
build() (
    model=$1 run=$out/$1 bundle=$out/$1.finedge
    {
        step "train $model (EfficientNet-Lite0, ImageNet weights, cached feature maps)"
        if [ -e "$run/run.json" ]; then
            finedge train --out "$run" --resume
        else
            finedge train --quick --model "$model" --backbone efficientnet_lite0 --recipe demo \
                --data "$data" --out "$run"
        fi
        step "export $model to ONNX, calibrate INT8, verify every stage"
        finedge export "$run" --out "$bundle"
        finedge calibrate "$bundle" --data "$data"
        finedge verify "$bundle" --data "$data" --run "$run"
    } 2>&1 | sed -u "s/^/$model: /" >&2
)

if [ "$data" = demo/data ]; then
    step "render twelve species of birds that differ in small parts"
    finedge data render "$data" >&2
else
    out=$out/$(basename "$data") # runs on other pictures stand beside the birds'
fi

# The two models are built at the same time, each on half of the cores. With -m the jobs are process
# groups: if the demo is interrupted, they are stopped with their children.
cores=$(($(nproc) / 2))
set -m
trap 'for job in $(jobs -p); do kill -INT -- "-$job" 2>/dev/null || true; done' EXIT
for model in plain cnl; do
    OMP_NUM_THREADS=$((cores > 0 ? cores : 1)) build "$model" &
done
for job in $(jobs -p); do wait "$job"; done
set +m

step "watch a moving scene with the INT8 model"
finedge classify "$out/cnl.finedge" test:// --variant int8 --frames 5
step "benchmark all variants, interleaved"
finedge benchmark "$out/plain.finedge" "$out/cnl.finedge" --data "$data" --duration 5s \
    --out "$out" >&2
finedge report "$out" >&2
echo "$(cd "$out" && pwd)/report.html"
