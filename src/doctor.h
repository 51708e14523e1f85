/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `leaktop doctor`: what works here, what does not, and the remedy. */
#ifndef LEAKTOP_DOCTOR_H
#define LEAKTOP_DOCTOR_H

struct options;

/* Prints to stdout. 0, or negative errno if tracing cannot work here. */
int doctor_run(const struct options *o);

#endif
