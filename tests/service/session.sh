#!/usr/bin/env bash
# A user's systemd manager in namespaces of its own: SESSION_DIRECTORY gets its log, and "$@" runs inside, as uid 1000.
set -euo pipefail
if [ "${1:-}" != inside ]; then
    exec unshare --mount --cgroup --fork --kill-child "$0" inside "$@"
fi
shift
if [ "${1:-}" != user ]; then
    mount --make-rprivate /
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/system /run/user/1000
    chmod 700 /run/user/1000
    mount -t cgroup2 none /sys/fs/cgroup
    group="/sys/fs/cgroup/appliance-test-$$"
    mkdir -p "$group"
    echo $$ > "$group/cgroup.procs"
    status=0
    unshare --user --map-user=1000 --map-group=1000 "$0" inside user "$@" || status=$?
    # The kernel removes a process from its group a moment after its parent has heard of its end.
    echo $$ > /sys/fs/cgroup/cgroup.procs
    for _ in $(seq 100); do
        find "$group" -depth -type d -exec rmdir {} + 2> "$SESSION_DIRECTORY/rmdir" && break
        sleep 0.05
    done
    exit $status
fi
shift
export XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=
/usr/lib/systemd/systemd --user --log-target=console --log-level=info > "$SESSION_DIRECTORY/manager.log" 2>&1 &
manager=$!
for _ in $(seq 200); do
    systemctl --user show --property=Version > "$SESSION_DIRECTORY/version" 2>&1 && break
    sleep 0.05
done
status=0
"$@" || status=$?
kill -s TERM "$manager"
wait "$manager" || true
exit $status
