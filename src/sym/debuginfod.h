/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Debug files from the servers that the user has named in DEBUGINFOD_URLS, through
 * libdebuginfod.so.1 where that is installed. Without the variable nothing is ever sent.
 */
#ifndef LEAKTOP_DEBUGINFOD_H
#define LEAKTOP_DEBUGINFOD_H

/*
 * Limits, of which the first three are set by the variables DEBUGINFOD_TIMEOUT,
 * DEBUGINFOD_MAXTIME and DEBUGINFOD_MAXSIZE where the user has not set them. The
 * library tries a server that fails up to three times (DEBUGINFOD_RETRY_LIMIT).
 */
#define DEBUGINFOD_STALL_SECONDS "10"	  /* without 100 KB of progress */
#define DEBUGINFOD_SECONDS "60"		  /* one try for one file */
#define DEBUGINFOD_BYTES_MAX "2147483648" /* one file */
#define DEBUGINFOD_QUESTIONS_MAX 4096	  /* build ids asked for */
#define DEBUGINFOD_FAILURES_MAX 3	  /* in a row, then no more is asked */

struct debuginfod;

/* NULL if the user wants none of it, or the library is missing (which is said). It
 * changes the environment: call it while there is one thread. */
struct debuginfod *debuginfod_new(void);
void debuginfod_free(struct debuginfod *d);

/*
 * A descriptor of the debug file with @build_id (hex), or negative errno: -ENOENT if
 * no server has it. @name is for the message. Waits for the network; each build id is
 * asked for once. By one thread at a time. Whether the file has that build id is for
 * the caller to see.
 */
int debuginfod_open(struct debuginfod *d, const char *build_id, const char *name);

/* Ends what debuginfod_open() is doing, within a second or so, and all it would do
 * from now on (-ECANCELED). From any thread. */
void debuginfod_cancel(struct debuginfod *d);

#endif
