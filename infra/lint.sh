#!/usr/bin/env bash
# What `make infra-lint` checks, with the programs of infra/lint-requirements.txt on the PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() {
    echo "\$ $*"
    "$@"
}

step hadolint infra/Dockerfile
# A second opinion, from npm, where Node is.
if command -v npx >/dev/null; then
    step npx --yes dockerfile-utils@0.16.3 lint infra/Dockerfile
else
    echo "npx is not here: dockerfile-utils does not look at infra/Dockerfile"
fi

mapfile -t scripts < <(find infra .ci -name '*.sh' -o -path '.ci/run')
step shellcheck "${scripts[@]}"

# Compose itself, which needs no engine to read a file: with the example as it is, where passwords are empty, it must
# refuse; filled in, it must not.
compose=(docker-compose --env-file infra/example.env --file infra/compose.yaml config --quiet)
if said="$("${compose[@]}" 2>&1)"; then
    echo "infra/compose.yaml: starts without passwords" >&2
    exit 1
fi
missing=(POSTGRES_PASSWORD PREFECT_PASSWORD PREFECT_ENCRYPTION_KEY S3_ACCESS_KEY S3_SECRET_KEY DATA_FOLDER H2CROP_RECIPE)
for name in "${missing[@]}"; do
    grep --quiet "required variable $name is missing a value" <<<"$said" || {
        echo "infra/compose.yaml: does not ask for $name" >&2
        exit 1
    }
done
step env "${missing[@]/%/=x}" "${compose[@]}"

step check-jsonschema --builtin-schema vendor.compose-spec infra/compose.yaml
step check-jsonschema --builtin-schema vendor.github-workflows infra/examples/github-refresh.yaml
step check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci infra/examples/gitlab-refresh.yaml
