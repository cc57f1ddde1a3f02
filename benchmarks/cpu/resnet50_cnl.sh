#!/usr/bin/env bash
# Latency of ResNet-50 and ResNet-50 + CNL at 224 px, FP32 and INT8, in one interleaved run on one thread and one on two.
# The weights are random, with BatchNorm statistics settled by a few epochs (a pretrained ResNet needs a download): read the
# milliseconds, not the accuracy.
# usage: benchmarks/cpu/resnet50_cnl.sh [WORK_FOLDER]     finished steps are skipped
set -euo pipefail
work=${1:-runs/resnet50_cnl}
mkdir -p "$work"
[ -d "$work/data" ] || finedge data render "$work/data" --classes 4 --train 16 --val 4 --test 16 >&2
for model in plain cnl; do
    [ -e "$work/$model/run.json" ] || finedge train --model $model --backbone resnet50 --weights none --data "$work/data" --out "$work/$model" \
        --size 224 --epochs 5 --batch-size 8 --lr 0.0001 >&2
    [ -e "$work/resnet50-$model.finedge" ] || { finedge export "$work/$model" --out "$work/resnet50-$model.finedge" && finedge calibrate "$work/resnet50-$model.finedge" --data "$work/data" --images 32; } >&2
done
for threads in 1 2; do
    finedge benchmark "$work/resnet50-plain.finedge" "$work/resnet50-cnl.finedge" --data "$work/data" --threads $threads --duration "${DURATION:-20s}" --out "$work/threads$threads"
done
