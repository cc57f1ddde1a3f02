#!/usr/bin/env bash
# How examples/birds.finedge was made. It takes about a quarter of an hour on one core.
# A run that was stopped is continued.
set -euo pipefail
work=${1:-runs/small}
finedge data render "$work/data" --classes 12 --train 100 --val 10 --test 30 \
    --size 160 --seed 7 >&2
if [ -e "$work/birds/run.json" ]; then
    finedge train --out "$work/birds" --resume >&2
else
    finedge train --model cnl --backbone efficientnet_lite0_s16 --recipe small \
        --data "$work/data" --out "$work/birds" >&2
fi
finedge export "$work/birds" --out examples/birds.finedge
finedge calibrate examples/birds.finedge --data "$work/data"
finedge verify examples/birds.finedge --data "$work/data" --run "$work/birds" >&2
finedge evaluate examples/birds.finedge --data "$work/data"
# The bundle travels with the repository: the paths of this machine are taken out.
python - "$work" <<'PY'
import json, pathlib, sys
from finedge.bundle import Bundle

work = pathlib.Path(sys.argv[1])
bundle = Bundle.load(pathlib.Path("examples/birds.finedge"))
text = json.dumps(bundle.provenance["train"])
for path in {str(work.resolve()), str(work)}:
    text = text.replace(path, "runs/small")
bundle.extend("train", {}, json.loads(text))
PY
