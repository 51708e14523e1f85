/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a probe costs on this machine, measured on a child process of our own. */
#ifndef LEAKTOP_CALIBRATE_H
#define LEAKTOP_CALIBRATE_H

#include "probe/method.h"
#include "probe/self.h"

/* Added nanoseconds a call, by an empty program, for each class of first
 * instruction; NAN: could not be measured. */
struct calibration {
	double entry_ns[SELF_FUNCTIONS];
	double return_ns[SELF_FUNCTIONS]; /* entry and return */
	/* What a hit takes in addition after the program did much else, 100 us and more. */
	double after_work_ns;
};

/* Takes some 0.1 s. -ENOTSUP: only multi links can be measured. */
int calibrate(enum probe_method method, struct calibration *out);

#endif
