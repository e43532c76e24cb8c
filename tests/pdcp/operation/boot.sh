#!/usr/bin/env bash
# Runs contrib/pdcp.service under a systemd of its own: in new namespaces and a control group of its own, on file systems
# in memory. `boot.sh SCRATCH PDCP CONTRIB`; what happened is in SCRATCH, where `booted` says that systemd came so far.
set -euo pipefail
scratch=$1 pdcp=$2 contrib=$3

if [[ ${4-} != inside ]]; then
    root=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)
    group=$root/pdcp-test-$$
    leave() {
        echo $$ >"$root/cgroup.procs"
        find "$group" -depth -type d -exec rmdir {} +
    }
    mkdir "$group"
    trap leave EXIT
    echo $$ >"$group/cgroup.procs"
    unshare --mount --pid --cgroup --uts --ipc --net --fork --mount-proc --kill-child \
        bash "$0" "$scratch" "$pdcp" "$contrib" inside
    exit
fi

mount --make-rprivate /
mount --bind "$scratch" /mnt
mount -t tmpfs tmpfs /run
mkdir -p /run/units/pdcp.service.d /run/upper /run/work
touch /run/pdcp
mount --bind "$pdcp" /run/pdcp
cp "$contrib"/pdcp.{service,socket} /run/units
for directory in /tmp /var/lib /var/log; do mount -t tmpfs tmpfs "$directory"; done
mount -t overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work overlay /etc
umount --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
mkdir -p /etc/pdcp
/run/pdcp --keygen --key-file /etc/pdcp/key
cp /mnt/check.sh /run/check.sh

cat >/run/units/pdcp.service.d/test.conf <<'END'
[Service]
ExecStart=
ExecStart=/run/pdcp -v --serve systemd --root ${STATE_DIRECTORY} --audit-log ${LOGS_DIRECTORY}/audit.jsonl
# Whatever the filter refuses is to be seen, not survived.
SystemCallErrorNumber=
StandardOutput=append:/run/server.log
StandardError=append:/run/server.log
END
cat >/run/units/check.service <<'END'
[Unit]
Requires=pdcp.socket
After=pdcp.socket
DefaultDependencies=no
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
TimeoutStartSec=60
ExecStart=/bin/bash /run/check.sh
StandardOutput=append:/mnt/check.log
StandardError=append:/mnt/check.log
END
printf '[Unit]\nWants=check.service\nDefaultDependencies=no\n' >/run/units/test.target
for target in sysinit basic sockets shutdown; do
    printf '[Unit]\nDefaultDependencies=no\n' >"/run/units/$target.target"
done
# As a machine has it: what systemd mounts for a service has to reach its namespace.
mount --make-rshared /
container=test SYSTEMD_UNIT_PATH=/run/units exec /usr/lib/systemd/systemd --system --unit=test.target --log-target=console
