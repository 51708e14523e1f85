# SPDX-License-Identifier: GPL-2.0-or-later
leak() { printf -v "kept_$1" '%*s' $((1000000 + 1000 * $1)) ''; }
recurse() { if (($1)); then recurse $(($1 - 1)) $2; else leak $2; fi; }
leak 1
recurse 10 2
for i in 3; do leak $i; done
case x in x) leak 4 ;; esac
eval 'leak 5'
trap 'leak 6' USR1
kill -USR1 $$
:
while leak 7; do break; done
{ leak 8; } 2>/dev/null
kill -KILL $$
