#!/bin/sh
# Report a unit that failed: `alarm.sh UNIT`, started by systemd/h2crop-alarm@.service.
#
# ALARM_COMMAND gets the text on its standard input, `mail -s h2crop you@example.org` for example. Without one it goes to
# standard error, which systemd puts into the journal.
set -eu

unit=$1
code=${MONITOR_EXIT_STATUS:-unknown}
case $code in
    1) meaning="failed; what is finished is kept, and the next run continues" ;;
    2) meaning="the recipe or a setting is invalid: later runs will not pass either" ;;
    3) meaning="a release was made, from which scenes are missing that could not be read" ;;
    unknown) meaning="the alarm was started by hand" ;;
    *) meaning="did not end by itself (${MONITOR_SERVICE_RESULT:-unknown}); what is finished is kept" ;;
esac
{
    echo "$unit on $(hostname): $meaning (exit code $code)"
    echo
    if [ -n "${MONITOR_INVOCATION_ID-}" ]; then
        journalctl --no-pager --output=cat --lines=40 "_SYSTEMD_INVOCATION_ID=$MONITOR_INVOCATION_ID"
    else
        journalctl --no-pager --output=cat --lines=40 "--unit=$unit"
    fi
} | sh -c "${ALARM_COMMAND:-cat >&2}"
