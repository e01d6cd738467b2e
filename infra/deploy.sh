#!/bin/sh
# Make the work pool of infra/prefect.yaml, if it is missing, and make or update its deployments:
#
#   H2CROP_RECIPE=/data/recipe.yaml H2CROP_STORE=s3://bucket/prefix infra/deploy.sh [ADDRESS OF A DASK SCHEDULER]
#
# PREFECT_API_URL is the address of the server. With a scheduler, runs build on that cluster (docs/cluster.md). Changes made
# on the server (schedules, parameters) are replaced by those of the file.
set -eu
cd "$(dirname "$0")/.."

: "${PREFECT_API_URL:?set it to the address of the server, http://HOST:4200/api}"
: "${H2CROP_RECIPE:?set it to a recipe file on the machine of the worker, or to the name of a shipped one}"
: "${H2CROP_STORE:?set it to the folder or the s3:// URL of the store}"

# An existing work pool is not changed: infra/work_pool.py makes it with secrets from blocks.
prefect --no-prompt work-pool inspect h2crop >/dev/null 2>&1 || prefect --no-prompt work-pool create h2crop --type process
for name in build refresh rebuild; do
    prefect --no-prompt deploy --name "$name" --prefect-file infra/prefect.yaml ${1:+--param "dask=$1"}
done
