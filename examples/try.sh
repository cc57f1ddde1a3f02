#!/usr/bin/env bash
# A look without training and without torch: the shipped bundle watches a rendered scene, is
# measured, and gets a report.
set -euo pipefail
bundle=examples/birds.finedge
finedge verify "$bundle" >&2
finedge classify "$bundle" test:// --frames 10
finedge data render try/data --train 1 --val 2 --test 20 >&2
finedge benchmark "$bundle" --data try/data --duration 5s --out try >&2
finedge report try >&2
echo "$PWD/try/report.html"
