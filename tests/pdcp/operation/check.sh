#!/usr/bin/env bash
# What a user of contrib/pdcp.service does, beside a systemd that runs it. Says `all well` at its end.
set -euo pipefail
touch /mnt/booted
trap 'cp /run/server.log /mnt/ || true' EXIT
cd /run
export PDCP_KEY_FILE=/etc/pdcp/key
of() { systemctl show --property "$1" --value pdcp.service; }

head -c 20M /dev/urandom >file
head -c 5M /dev/urandom >shorter
[[ $(of ActiveState) == inactive ]] # the first call starts it
./pdcp file localhost:9000:/deep/copy
./pdcp localhost:9000:/deep/copy back
cmp file back
./pdcp --direct always --verify shorter localhost:9000:/deep/copy
./pdcp localhost:9000:/missing back && exit 1
cmp shorter /var/lib/pdcp/deep/copy

[[ $(of ActiveState) == active ]]
for _ in {1..50}; do
    [[ $(of StatusText) == '0 sessions running, 4 ended' ]] && break
    sleep 0.1
done
[[ $(of StatusText) == '0 sessions running, 4 ended' ]]
grep --quiet '^CapEff:	0000000000000000$' "/proc/$(of MainPID)/status"
grep --quiet '^Seccomp:	2$' "/proc/$(of MainPID)/status"
grep --quiet 'paths are walked by hand' server.log

systemctl stop pdcp.service
[[ $(of Result) == success && $(of NRestarts) == 0 ]]
[[ $(stat --format %a /var/log/pdcp/audit.jsonl) == 600 ]]
[[ $(grep --count '"type":"session"' /var/log/pdcp/audit.jsonl) == 4 ]]
./pdcp localhost:9000:/deep/copy back # the socket has stayed
cmp shorter back

# Where the service cannot start, its port stays, and who calls waits until what was wrong has been put right.
systemctl stop pdcp.service
cp /etc/pdcp/key key
rm /etc/pdcp/key back
PDCP_KEY_FILE=key ./pdcp localhost:9000:/deep/copy back &
caller=$!
sleep 4
[[ $(of ActiveState) != active ]]
cp key /etc/pdcp/key
wait $caller
cmp shorter back
echo 'all well'
