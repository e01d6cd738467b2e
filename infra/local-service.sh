#!/usr/bin/env bash
# The whole service once, on this machine, without containers.
#
#   infra/local-service.sh [FOLDER] [--size small|demo] [--keep] [--then COMMAND]
#
# Starts PostgreSQL (Debian's package), an S3 server (moto), a Prefect server on PostgreSQL, a Dask scheduler with two
# workers and a Prefect worker; simulates a region; deploys infra/prefect.yaml with a schedule of seconds; waits until
# the server has made two scheduled runs of `refresh`, of which the first builds the region into s3:// on the Dask
# workers and the second finds nothing new; validates and inspects the store; stops everything, and proves that nothing
# is left. Every server listens at 127.0.0.1 alone; nothing is published, and nothing outside this machine is asked.
#
#   FOLDER          for all files, default build/service; what an earlier run left there is deleted
#   --size          small (default): 4 cells, 4 dates of summer; demo: 16 cells, 36 dates, as `make demo`
#   --keep          keep the region and the folders of work at the end too; logs and summary.json stay in any case
#   --then COMMAND  before stopping run this with the service's environment, e.g. `--then bash` to look around
#
# Exit code: 0, 1 where a step failed (the end of its log is shown, files stay), 2 wrong use or something missing,
# 130 or 143 after Ctrl-C or SIGTERM. Whatever happens, every process is ended by its id, in reverse order.
#
# Secrets are generated for each run, given to each process by its environment or a file, and deleted at the end: the
# database's password, that of Prefect's API, the key with which Prefect encrypts blocks, and the bucket's secret key,
# which runs get from a Secret block (infra/work_pool.py).
#
# moto looks at the condition of a PUT first and writes then, so that two builders at the same moment could both get the
# lock of a store. Here one builds; use another server for more (docs/object-stores.md).
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
helper=("python" "$checkout/infra/local_service.py")
deployment=h2crop-refresh/refresh
bucket=cubes
# Seconds between two scheduled runs, and that anything may take to start or to run on a busy machine.
interval=15 start_limit=240 run_limit=900

usage() { sed -n '3,26s/^# \{0,1\}//p' "$0"; }
wrong() { usage >&2 && exit 2; }

folder='' size=small keep='' then=''
while [ $# -gt 0 ]; do
    case $1 in
        --size) size=${2-} && shift ;;
        --keep) keep=yes ;;
        --then) then=${2-} && shift ;;
        -h | --help) usage && exit ;;
        -*) wrong ;;
        *) [ -z "$folder" ] || wrong && folder=$1 ;;
    esac
    shift || wrong
done
case $size in
    small) region='{cells: 4, truth_reflectance: false, enmap: {scenes: 1}, sentinel2: {dates_per_month: 1, months: [5, 6, 7, 8]}}' ;;
    demo) region='{cells: 16, natural: {}, sentinel2: {geometry: {}}}' ;;
    *) wrong ;;
esac
folder=${folder:-$checkout/build/service}

say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
refuse() { echo "$*" >&2 && exit 2; }

# --- what is needed ---------------------------------------------------------------------------------------------------

[ ! -x "$checkout/.venv/bin/prefect" ] || PATH="$checkout/.venv/bin:$PATH"
for command in python h2crop prefect dask moto_server; do
    command -v "$command" >/dev/null || refuse "$command is not there: run \`make setup\` in $checkout"
done
# `find` fails where there is no such folder: without `|| true` this script would end here, and say nothing.
found=$(find /usr/lib/postgresql/*/bin -maxdepth 1 -name postgres -printf '%h\n' 2>/dev/null || true)
postgres_bin=$(sort -V <<<"$found" | tail -n 1)
[ -n "$postgres_bin" ] || refuse "no PostgreSQL server below /usr/lib/postgresql: apt-get install postgresql"

# PostgreSQL does not run as root: then it runs as the user of its package, in a folder that this user can reach.
as_postgres=()
if [ "$(id -u)" = 0 ]; then
    id postgres >/dev/null 2>&1 || refuse "no user postgres, as whom PostgreSQL runs: apt-get install postgresql"
    as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi

if [ -e "$folder" ] && [ ! -e "$folder/.local-service" ] && [ -n "$(ls -A "$folder")" ]; then
    refuse "$folder is not empty and was not made by this script: name another folder"
fi
if [ -e "$folder/pid" ] && kill -0 "$(<"$folder/pid")" 2>/dev/null; then
    refuse "$folder is in use by process $(<"$folder/pid")"
fi
rm -rf "$folder"
mkdir -p "$folder/logs"
folder=$(cd "$folder" && pwd)
logs=$folder/logs secret=$folder/secrets store=s3://$bucket/region
touch "$folder/.local-service"
echo $$ >"$folder/pid"
service=$$-$RANDOM$RANDOM

# --- processes --------------------------------------------------------------------------------------------------------

declare -A port=() process=()
running=() current='' step='' step_began=0 failed=''
# Its own folder where PostgreSQL runs as another user, who cannot enter those of this one.
postgres_home=$folder/postgres
[ ${#as_postgres[@]} = 0 ] || postgres_home=$(mktemp -d "${TMPDIR:-/tmp}/h2crop-postgres.XXXXXX")
database=$postgres_home/data

# start NAME FUNCTION: a server in the background, in a session of its own, so that Ctrl-C leaves it to this script.
start() {
    local name=$1 && shift
    "$@" >"$logs/$name.log" 2>&1 </dev/null &
    process[$name]=$!
    running+=("$name")
    printf '%s\t%s\n' "$name" "$!" >>"$folder/started"
}

# detached COMMAND: replaces this subshell.
detached() { export H2CROP_LOCAL_SERVICE=$service && exec setsid "$@"; }

# run LOG COMMAND: a command of a step, in the background, so that a signal need not wait for its end, and as a group of
# processes (`set -m`), so that its children end with it.
run() {
    local log=$1 && shift
    set -m
    H2CROP_LOCAL_SERVICE=$service "$@" </dev/null >>"$logs/$log.log" 2>&1 &
    current=$!
    set +m
    wait "$current" || fail "$log"
    current=''
}

# fail LOG: end with the end of a log.
fail() {
    failed=$step
    {
        echo "FAILED: $step; $logs/$1.log ends:"
        tail -n 40 "$logs/$1.log" | sed 's/^/    /'
        echo "All logs: $logs"
    } >&2
    exit 1
}

# answers NAME URL [TEXT]: wait for a server.
answers() {
    run "$1" "${helper[@]}" answers "$2" "$start_limit" "${process[$1]}" --expected "${3-}"
}

begin() {
    finish_step
    step=$1 step_began=$SECONDS
    say "$step"
}
finish_step() {
    [ -z "$step" ] || printf '%s\t%s\n' "$step" "$((SECONDS - step_began))" >>"$folder/steps"
    step=''
}

# stop NAME: PostgreSQL is asked to end without waiting for its clients, all others as usual.
stop() {
    local name=$1 pid=${process[$1]} signal=TERM tries=0
    [ "$name" != postgres ] || signal=INT
    kill -s "$signal" "$pid" 2>/dev/null || :
    while kill -0 "$pid" 2>/dev/null; do
        if [ $((tries += 1)) -gt 300 ]; then
            say "$name (process $pid) does not end: killed with its group"
            kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || :
            break
        fi
        sleep 0.1
    done
    wait "$pid" 2>/dev/null || :
}

# Ends everything, whatever brought this script to its end.
finish() {
    local code=$? left number i backwards='' processes=()
    trap '' INT TERM HUP
    trap - EXIT
    set +e
    # Not by `fail`: a signal, or a fault of this script.
    [ "$code" = 0 ] || failed=${failed:-${step:-end}}
    [ -z "$current" ] || { kill -TERM -- "-$current" && wait "$current"; } 2>/dev/null
    for name in "${running[@]}"; do backwards=" $name$backwards"; done
    begin "Stopping:$backwards"
    for ((i = ${#running[@]} - 1; i >= 0; i--)); do stop "${running[i]}"; done
    if left=$("${helper[@]}" left "$service" "$database" 10 "${port[@]}"); then
        say "Nothing is left: no process of this run lives, its ports are free"
    else
        read -ra processes <<<"$left"
        for number in "${processes[@]}"; do kill -KILL "$number"; done
        say "What was left was killed: ${left:-no process}"
        failed=${failed:-stop} code=1
    fi
    finish_step
    rm -rf "$secret" "$postgres_home"
    "${helper[@]}" summary "$folder" "$service" "$SECONDS" "$failed" >"$folder/summary.json"
    rm -f "$folder/pid" "$folder/started" "$folder/ports" "$folder/steps" "$folder/runs"
    [ -n "$keep$failed" ] || rm -rf "$folder/region" "$folder/region.yaml" "$folder/work" "$folder/dask" "$folder/prefect"
    if [ "$code" = 0 ]; then
        say "Done: PostgreSQL, S3, Prefect, Dask, two scheduled runs into $store; logs: $logs; $folder/summary.json"
    else
        say "Ended with $code in: $failed; files and logs stay in $folder"
    fi
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# --- what each process sees -------------------------------------------------------------------------------------------

# No settings of another service, and no account of the user who runs this.
for name in "${!PREFECT_@}" "${!AWS_@}"; do unset "$name"; done

begin "Ports, secrets and folders in $folder"
free=$("${helper[@]}" ports 5)
read -r "port[postgres]" "port[s3]" "port[prefect]" "port[dask]" "port[dashboard]" <<<"$free"
for name in "${!port[@]}"; do printf '%s\t%s\n' "$name" "${port[$name]}"; done >"$folder/ports"
"${helper[@]}" secrets "$secret"
mkdir "$folder/dask" "$folder/work" "$folder/prefect"

export AWS_ENDPOINT_URL="http://127.0.0.1:${port[s3]}" AWS_ALLOW_HTTP=true AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=local-service
export PREFECT_HOME=$folder/prefect PREFECT_API_URL="http://127.0.0.1:${port[prefect]}/api"
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 PREFECT_LOGGING_COLORS=false NO_COLOR=1
export OMP_NUM_THREADS=1 DASK_TEMPORARY_DIRECTORY=$folder/dask

# In subshells alone, each with what it needs: an argument of `env` would be seen by every user.
with_s3_key() { AWS_SECRET_ACCESS_KEY=$(<"$secret/s3-secret-key") && export AWS_SECRET_ACCESS_KEY; }
with_api() { PREFECT_API_AUTH_STRING=service:$(<"$secret/api-password") && export PREFECT_API_AUTH_STRING; }
both() { with_s3_key && with_api && exec "$@"; }
in_bucket() { with_s3_key && exec "$@"; }
at_api() { with_api && exec "$@"; }

serve_postgres() {
    cd "$database"
    detached "${as_postgres[@]}" "$postgres_bin/postgres" -D "$database" -p "${port[postgres]}" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c logging_collector=off
}
serve_s3() { detached moto_server -H 127.0.0.1 -p "${port[s3]}"; }
serve_prefect() {
    # The variables of infra/compose.yaml and of the units.
    export PREFECT_SERVER_DATABASE_DRIVER=postgresql+asyncpg PREFECT_SERVER_DATABASE_HOST=127.0.0.1
    export PREFECT_SERVER_DATABASE_PORT=${port[postgres]} PREFECT_SERVER_DATABASE_NAME=prefect
    export PREFECT_SERVER_DATABASE_USER=h2crop
    PREFECT_SERVER_DATABASE_PASSWORD=$(<"$secret/database-password")
    PREFECT_SERVER_ENCRYPTION_KEY=$(<"$secret/encryption-key")
    with_api
    export PREFECT_SERVER_DATABASE_PASSWORD PREFECT_SERVER_ENCRYPTION_KEY
    export PREFECT_SERVER_API_AUTH_STRING=$PREFECT_API_AUTH_STRING
    cd "$checkout"
    detached prefect server start --host 127.0.0.1 --port "${port[prefect]}"
}
serve_scheduler() {
    cd "$folder/dask"
    detached dask scheduler --host 127.0.0.1 --port "${port[dask]}" --dashboard-address "127.0.0.1:${port[dashboard]}"
}
# Workers need the bucket's keys in their own environment; what is in that of a run is not sent.
serve_dask() {
    cd "$folder/dask"
    with_s3_key
    detached dask worker "tcp://127.0.0.1:${port[dask]}" --name "$1" --nthreads 1 --host 127.0.0.1 \
        --dashboard-address 127.0.0.1:0
}
# Its environment has no key of the bucket: runs get it from the block. One run at a time, so that none is skipped.
serve_prefect_worker() {
    export H2CROP_WORK=$folder/work PREFECT_WORKER_QUERY_SECONDS=1
    with_api
    cd "$checkout"
    detached prefect worker start --pool h2crop --name local --limit 1
}

# --- the service ------------------------------------------------------------------------------------------------------

begin "PostgreSQL from $postgres_bin"
mkdir -p "$postgres_home"
install -m 600 "$secret/database-password" "$postgres_home/password"
[ ${#as_postgres[@]} = 0 ] || chown -R postgres "$postgres_home"
make_database() {
    cd "$postgres_home"
    "${as_postgres[@]}" "$postgres_bin/initdb" -D "$database" --no-sync -U h2crop --auth=scram-sha-256 \
        --pwfile="$postgres_home/password" -E UTF8 --locale=C
    rm "$postgres_home/password"
}
run initdb make_database
start postgres serve_postgres
tables_can_be_made() {
    PGPASSWORD=$(<"$secret/database-password") && export PGPASSWORD
    local place=(-h 127.0.0.1 -p "${port[postgres]}" -U h2crop) tries=0
    # Its own word: a client that comes too early is an error in its log.
    until [[ $(sed -n 8p "$database/postmaster.pid" 2>/dev/null) == ready* ]]; do
        [ $((tries += 1)) -lt 600 ] && kill -0 "${process[postgres]}" || return 1
        sleep 0.1
    done
    "$postgres_bin/createdb" -w "${place[@]}" prefect
}
run postgres tables_can_be_made

begin "S3 server, Prefect server, Dask scheduler and two workers"
start s3 serve_s3
start prefect serve_prefect
start dask-scheduler serve_scheduler
start dask-worker-1 serve_dask one
start dask-worker-2 serve_dask two

begin "h2crop simulate: a $size region (while the servers start)"
echo "$region" >"$folder/region.yaml"
run simulate h2crop simulate "$folder/region" --settings "$folder/region.yaml"

begin "All servers answer"
answers s3 "$AWS_ENDPOINT_URL/moto-api/data.json"
run bucket in_bucket python "$checkout/infra/make_bucket.py" "$bucket"
answers prefect "$PREFECT_API_URL/health"
answers dask-scheduler "http://127.0.0.1:${port[dashboard]}/json/counts.json" '"workers": 2'

begin "Work pool h2crop, whose runs get the bucket's key from a block"
run work-pool both python "$checkout/infra/work_pool.py" AWS_SECRET_ACCESS_KEY

begin "Deployments of infra/prefect.yaml, refresh every $interval s on the Dask cluster"
# What an operator edits in the file: the schedule, and the parameter `dask`.
"${helper[@]}" deployments "$checkout/infra/prefect.yaml" "$folder/prefect.yaml" "$interval" "tcp://127.0.0.1:${port[dask]}"
deploy() {
    export H2CROP_RECIPE=$folder/region/recipe.yaml H2CROP_STORE=$store
    cd "$checkout"
    at_api prefect --no-prompt deploy --all --prefect-file "$folder/prefect.yaml"
}
run deploy deploy
start prefect-worker serve_prefect_worker

begin "First scheduled run: builds $store"
run runs at_api "${helper[@]}" run "$folder" "$deployment" 1 "$run_limit" Completed
say "      $(tail -n 1 "$logs/runs.log")"
# The second run is the last one.
run runs at_api "${helper[@]}" no-more-runs "$folder" "$deployment" 2 "$run_limit"

begin "h2crop validate $store"
run validate in_bucket h2crop validate "$store"
say "      $(tail -n 1 "$logs/validate.log")"

begin "h2crop inspect $store"
run inspect in_bucket h2crop inspect "$store"

begin "Second scheduled run: nothing new"
run runs at_api "${helper[@]}" run "$folder" "$deployment" 2 "$run_limit" "Nothing new"
say "      $(tail -n 1 "$logs/runs.log")"

if [ -n "$then" ]; then
    begin "$then"
    # In the foreground: it may be a shell.
    (both bash -c "$then") || { failed=$step && exit 1; }
fi
