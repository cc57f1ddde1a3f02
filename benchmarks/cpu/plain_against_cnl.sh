#!/usr/bin/env bash
# plain and CNL by one recipe on one data set: trained, exported, calibrated, verified, and measured in one interleaved run.
# usage: benchmarks/cpu/plain_against_cnl.sh DATA WORK [options of finedge train ...]     finished steps are skipped
set -euo pipefail
data=$1 work=$2
shift 2
mkdir -p "$work"
for model in plain cnl; do
    run=$work/$model bundle=$work/$model.finedge
    if [ ! -e "$run/run.json" ]; then
        finedge train --model $model --backbone efficientnet_lite0 --recipe grocery_lite0 --data "$data" --out "$run" "$@" >&2
    else
        finedge train --out "$run" --resume >&2
    fi
    [ -e "$bundle" ] || finedge export "$run" --out "$bundle" >&2
    [ -e "$bundle/model.int8.onnx" ] || finedge calibrate "$bundle" --data "$data" >&2
    finedge verify "$bundle" --data "$data" --run "$run" >"$work/$model.verify.json"
done
finedge benchmark "$work/plain.finedge" "$work/cnl.finedge" --data "$data" --duration "${DURATION:-20s}" --out "$work/report" >"$work/benchmark.json"
finedge report "$work/report"
