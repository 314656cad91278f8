#!/bin/bash
# Serves the versions of a model with TensorFlow Serving, on ports 8500 (gRPC)
# and 8501 (HTTP):
#
#     tf-metassl export --run_dir=runs/photos --output=models/photos/1
#     bash deploy/tensorflow_serving.sh models/photos
#
# A new version appears in the folder when it is complete; the server changes to
# it by itself, after the requests in assets.extra/ have warmed it up.
set -euo pipefail

base=$(cd "$1" && pwd)
exec tensorflow_model_server --port=8500 --rest_api_port=8501 \
  --model_name="$(basename "$base")" --model_base_path="$base"
