#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# vhost vm: a bare-metal guest that echoes its serial port, told everything through its control socket.
. "$(dirname "$0")/functions.sh"
requires python3
guest=$BUILDDIR/tests/guest/guest-hello
json() { python3 -c 'import json,sys; j=json.loads(sys.argv[1].splitlines()[-1]); print(eval(sys.argv[2]))' "$out" "$1"; }
start() { # NAME OPTION...
	local name=$1; shift
	run vhost run --detach --name "$name" --kernel "$guest" --cmdline end=echo --memory 64M --serial none "$@"
}
on_exit 'for v in web db crash; do vhost vm kill $v >/dev/null 2>&1; done'

status 0 "nothing runs at first" vhost vm list --json
is "an empty list" "$(json 'j["vms"]')" "[]"
status 3 "no such VM" vhost vm stop web
like "says so" "$err" "vhost: VM web: no VM of this name runs (*vm list*)"
status 2 "a bad name is refused" vhost vm info ../web
[ -r /dev/kvm ] && [ -w /dev/kvm ] || { n=$((n + 1)); echo "ok $n - running guests # SKIP /dev/kvm is missing or may not be opened"; finish; }

start web
is "detached run returns when the guest runs" "$rc" 0
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/web/pid")
is "its socket is private" "$(stat -c '%a %F' "$VHOST_ROOT/state/web/control.sock")" "600 socket"
is "so is its folder" "$(stat -c %a "$VHOST_ROOT/state/web")" 700
start web
is "a second one of that name is refused" "$rc" 4
like "naming the first one's process" "$err" "vhost: VM web: *process $pid *vm stop web*"
start db --cpus 2
status 0 "list" vhost vm list --json
is "both, sorted" "$(json '[(v["name"], v["state"], v["cpus"], v["memory"]) for v in j["vms"]]')" "[('db', 'running', 2, 67108864), ('web', 'running', 1, 67108864)]"
is "with the process" "$(json 'j["vms"][1]["pid"]')" "$pid"
like "for people" "$(vhost vm list)" "NAME*STATE*db*running*web*running*"
status 0 "info" vhost vm info web --json
is "info has the fields" "$(json 'sorted(j)')" "['cpus', 'disks', 'memory', 'name', 'nics', 'pid', 'since', 'state']"
like "info for people" "$(vhost vm info web)" "*State:   running*Memory:  64 MiB*"

if [ "$(id -u)" = 0 ]; then
	is "no capability is left" "$(grep -h Cap /proc/"$pid"/task/*/status | grep -cv 0000000000000000)" 0
	is "and none can come back" "$(grep -h NoNewPrivs /proc/"$pid"/task/*/status | sort -u | tr -d '\t')" NoNewPrivs:1
else
	skip "no capability is left" "not root"
fi

# the console: what was said before, then an echo, through a pipe
console() { { sleep 0.2; printf '%s' "$1"; sleep 1; } | timeout 3 "$VHOST" vm console web; }
run console 'xyz'
like "the console replays and echoes" "$out" "hello from ring 3*end=echo*xyz*"
got=$({ sleep 0.5; printf 'abc'; sleep 1; } | timeout 3 "$VHOST" vm console web --replay off)
is "without the past" "$got" abc
like "as JSON, in base64" "$(timeout 2 "$VHOST" vm console web --json | python3 -c 'import json,sys,base64; print(b"".join(base64.b64decode(json.loads(l)["data"]) for l in sys.stdin).decode())')" "hello from*xyzabc*"
# on a terminal: raw mode, Ctrl-] leaves
python3 - "$VHOST" <<'P' >"$tmp/tty" 2>&1
import os, pty, sys, time, select, termios
pid, fd = pty.fork()
if not pid:
    os.execv(sys.argv[1], [sys.argv[1], 'vm', 'console', 'web'])
seen = b''
def read(until, limit=10):
    global seen
    end = time.time() + limit
    while until not in seen and time.time() < end:
        if select.select([fd], [], [], 0.1)[0]:
            try: seen += os.read(fd, 4096)
            except OSError: break
read(b'xyzabc')
os.write(fd, b'\x03tty')
read(b'\x03tty')
os.write(fd, b'\x1d')
_, st = os.waitpid(pid, 0)
print(b'xyzabc' in seen, b'\x03tty' in seen, os.waitstatus_to_exitcode(st), (termios.tcgetattr(fd)[3] & termios.ECHO) != 0)
P
is "on a terminal: Ctrl-C is the guest's, Ctrl-] leaves, the terminal is as before" "$(<"$tmp/tty")" "True True 0 True"

timeout 30 "$VHOST" vm events web --json >"$tmp/events" & ev=$!
for i in $(seq 100); do [ -s "$tmp/events" ] && break; sleep 0.05; done
status 0 "pause" vhost vm pause web --json
is "paused it is" "$(json 'j["state"]')" paused
sleep 0.1
a=$(vhost vm stats web --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["cpus"][0]["exits"])'); sleep 0.3
b=$(vhost vm stats web --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["cpus"][0]["exits"])')
is "its processor stands still" "$a" "$b"
status 0 "pausing twice is no error" vhost vm pause web
status 0 "resume" vhost vm resume web
c=0; for i in $(seq 40); do c=$(vhost vm stats web --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["cpus"][0]["exits"])'); [ "$c" -gt "$b" ] && break; sleep 0.1; done
check "and goes on" test "$c" -gt "$b"
status 0 "reset" vhost vm reset web
for i in $(seq 50); do [ "$(timeout 2 "$VHOST" vm console web </dev/null | grep -c 'hello from')" -ge 2 ] && break; sleep 0.1; done
is "the guest has booted again" "$(timeout 2 "$VHOST" vm console web </dev/null | grep -c 'hello from')" 2

status 0 "balloon" vhost vm balloon web 32M --json
is "its target" "$(json 'j["target"]')" 33554432
status 1 "more than there is, is refused" vhost vm balloon web 1G
like "saying what there is" "$err" "vhost: VM web: *67108864*"
status 2 "not a size" vhost vm balloon web many
status 0 "stats" vhost vm stats web --json
is "stats count" "$(json 'j["cpus"][0]["exits"] > 0 and j["memory"]["resident"] > j["memory"]["overhead"] > 0')" True
like "stats for people" "$(vhost vm stats web)" "CPU*EXITS*Memory:*Balloon:*"

status 0 "stop, by force after a time" vhost vm stop web --timeout 100ms --json
is "it says that it is down" "$(json 'j["state"]')" stopped
check "and so it is: the folder is gone" test ! -e "$VHOST_ROOT/state/web"
for _ in $(seq 100); do [ "$(ps -o stat= -p "$pid" | cut -c1)" = S ] || break; sleep 0.05; done
check "the process as well" test "$(ps -o stat= -p "$pid" | cut -c1)" != S
wait $ev; is "following events ends with the VM" $? 0
is "every change was told" "$(python3 -c 'import json,sys; print(*[json.loads(l)["state"] for l in open(sys.argv[1])])' "$tmp/events")" "running paused running reset running stopped"
status 0 "kill" vhost vm kill db
check "gone at once" test ! -e "$VHOST_ROOT/state/db"

# a VM that dies leaves a folder that the next one takes over
start crash
pid=$(cut -d' ' -f1 "$VHOST_ROOT/state/crash/pid")
kill -9 "$pid"; for i in $(seq 100); do vhost vm info crash >/dev/null 2>&1 || break; sleep 0.02; done
is "a dead VM is not listed" "$(vhost vm list --json)" '{"vms":[]}'
run vhost vm list --all --json
is "unless all are asked for" "$(json '[(v["name"], v["state"]) for v in j["vms"]]')" "[('crash', 'dead')]"
status 3 "nor can it be told anything" vhost vm pause crash
start crash
is "its name can be used again" "$rc" 0
status 0 "and ended" vhost vm kill crash

# what goes wrong before the guest runs is said by the command, with its status
run vhost run --detach --name bad --kernel "$tmp/nosuch" --serial none
is "detached failures are reported" "$rc" 3
like "as without --detach" "$err" "vhost: *nosuch*"
check "and leave nothing" test ! -e "$VHOST_ROOT/state/bad"
finish
