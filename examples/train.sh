#!/usr/bin/env bash
# Train a small model with curl alone. Usage: examples/train.sh [PROXY_URL] [BASE_MODEL]
set -euo pipefail
proxy=${1:-http://localhost:8465}
base_model=${2:-sandbox/tiny-1}

call() { curl -sS --fail-with-body "$proxy/v1/$1" -H 'content-type: application/json' -d "$2"; }
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

model=$(call models "{\"base_model\": \"$base_model\", \"rank\": 8}" | field model_id)
data='[{"tokens": [72, 101, 108, 108], "targets": [101, 108, 108, 111]}]'
for step in 1 2 3 4 5; do
  loss=$(call forward_backward "{\"model_id\": \"$model\", \"data\": $data}" | field loss)
  call optim_step "{\"model_id\": \"$model\", \"adam_params\": {\"learning_rate\": 0.05}}" > /dev/null
  echo "step $step loss $loss"
done
