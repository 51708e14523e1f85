// SPDX-License-Identifier: GPL-2.0-or-later
'use strict';
const keep = [];
function leak(k) { keep.push(Buffer.allocUnsafeSlow(1000000 + 1000 * k)); }
function recurse(n, k) { return n ? recurse(n - 1, k) + 1 : (leak(k), 0); }
class Thing { constructor(k) { leak(k); } get late() { leak(7); return 1; } }
setTimeout(() => {
	leak(1);
	recurse(20, 2);
	[3].forEach(leak);
	new Thing(4).late;
	let once = false;
	[3, 1, 2].sort((a, b) => { if (!once) leak(5); once = true; return a - b; });
	'axb'.replace('x', () => { leak(6); return ''; });
	JSON.parse('[1]', (key, value) => { if (key === '0') leak(8); return value; });
	Promise.resolve().then(() => leak(9));
	process.nextTick(() => leak(10));
	setImmediate(() => leak(11));
	setTimeout(() => process.kill(process.pid, 'SIGKILL'), 200);
}, 300);
