# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
# Sourced after functions.sh by tests that look into JSON: one python for the whole test, since starting one takes longer than most of
# what is looked at.
coproc EVAL { exec python3 -uc 'import json, sys
for line in sys.stdin:
    try: j = json.load(open(sys.argv[1])); print(eval(line))
    except Exception as e: print(repr(e))' "$tmp/.json"; }
exec {eval_in}>&"${EVAL[1]}" {eval_out}<&"${EVAL[0]}"
# json EXPRESSION: of j, what was printed last
json() { local answer; printf '%s\n' "$out" >"$tmp/.json"; echo "$1" >&$eval_in; read -r -t 120 answer <&$eval_out; echo "$answer"; }
