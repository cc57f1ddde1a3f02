#!/usr/bin/env bash
# The main job: from images to two classifiers, their bundles, INT8, checks, measurements, a report.
# The last line of stdout is the path of the report.
set -euo pipefail
data=$1 out=$2
step() { printf '\n== %s\n' "$*" >&2; }

if [ "$data" = demo/data ]; then
    step "render twelve species of birds that differ in small parts"
    finedge data render "$data" >&2
else
    out=$out/$(basename "$data") # runs on other pictures stand beside the birds'
fi
for model in plain cnl; do
    run=$out/$model bundle=$out/$model.finedge
    step "train $model (EfficientNet-Lite0, ImageNet weights)"
    if [ -e "$run/run.json" ]; then
        finedge train --out "$run" --resume >&2
    else
        finedge train --model "$model" --backbone efficientnet_lite0 --recipe demo \
            --data "$data" --out "$run" >&2
    fi
    step "export $model to ONNX, calibrate INT8, verify every stage"
    finedge export "$run" --out "$bundle" >&2
    finedge calibrate "$bundle" --data "$data" >&2
    finedge verify "$bundle" --data "$data" --run "$run" >&2
done
step "watch a moving scene with the INT8 model"
finedge classify "$out/cnl.finedge" test:// --variant int8 --frames 5
step "benchmark all variants, interleaved"
finedge benchmark "$out/plain.finedge" "$out/cnl.finedge" --data "$data" --duration 10s \
    --out "$out" >&2
finedge report "$out" >&2
echo "$(cd "$out" && pwd)/report.html"
