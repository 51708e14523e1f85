/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers as people read them, the same in every locale. The text is returned
 * by value: units_bytes(n).s is valid until the end of the full expression.
 */
#ifndef LEAKTOP_UNITS_H
#define LEAKTOP_UNITS_H

#include <stdint.h>

struct units_text {
	char s[32];
};

/* 81,920 */
struct units_text units_count(uint64_t count);
struct units_text units_signed_count(int64_t count);
/* 512 B, 1.5 KiB, ... EiB */
struct units_text units_bytes(uint64_t size_bytes);
struct units_text units_signed_bytes(int64_t size_bytes);
/* Bytes a second without the "/s": +10.0 KiB, -0.4 B, 0 B; "-" for not-a-number. */
struct units_text units_growth(double bytes_per_s);
/* 12.3 s, 4.5 min, 6.7 h, 8.9 d; "-" for not-a-number. */
struct units_text units_duration(double seconds);
/* 12,345.6; "-" for not-a-number. */
struct units_text units_decimal(double value);

#endif
