/* SPDX-License-Identifier: GPL-2.0-or-later */
/* All digits come from integers: printf's %f would write the locale's decimal point. */
#include "report/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define DECIMAL_MAX 1e15 /* its digits, commas and tenths fit in units_text */

static uint64_t magnitude(int64_t value)
{
	return value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
}

static struct units_text with_sign(const char *sign, struct units_text text)
{
	struct units_text result;

	snprintf(result.s, sizeof(result.s), "%s%.30s", sign, text.s);
	return result;
}

struct units_text units_count(uint64_t count)
{
	struct units_text result;
	char digits[24];
	size_t length = snprintf(digits, sizeof(digits), "%" PRIu64, count);
	size_t used = 0;

	for (size_t i = 0; i < length; i++) {
		if (i > 0 && (length - i) % 3 == 0)
			result.s[used++] = ',';
		result.s[used++] = digits[i];
	}
	result.s[used] = '\0';
	return result;
}

struct units_text units_signed_count(int64_t count)
{
	return with_sign(count < 0 ? "-" : "", units_count(magnitude(count)));
}

struct units_text units_bytes(uint64_t size_bytes)
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	struct units_text result;
	unsigned int unit = 0, shift;
	uint64_t whole, tenths;

	while (size_bytes >> (10 * unit) >= 1024)
		unit++;
	if (unit == 0) {
		snprintf(result.s, sizeof(result.s), "%u B", (unsigned int)size_bytes);
		return result;
	}
	shift = 10 * unit;
	whole = size_bytes >> shift;
	tenths = ((size_bytes - (whole << shift)) * 10 + (UINT64_C(1) << (shift - 1))) >> shift;
	if (tenths == 10) {
		tenths = 0;
		whole++;
	}
	if (whole == 1024) { /* 1023.95 KiB and more */
		whole = 1;
		unit++;
	}
	snprintf(result.s, sizeof(result.s), "%" PRIu64 ".%" PRIu64 " %s", whole, tenths,
		 names[unit]);
	return result;
}

struct units_text units_signed_bytes(int64_t size_bytes)
{
	return with_sign(size_bytes < 0 ? "-" : "", units_bytes(magnitude(size_bytes)));
}

static struct units_text unknown(void)
{
	return (struct units_text){"-"};
}

/* @value >= 0. */
static uint64_t to_tenths(double value)
{
	return (uint64_t)llround(fmin(value, DECIMAL_MAX) * 10);
}

static struct units_text tenths_text(uint64_t tenths, const char *suffix)
{
	struct units_text result = units_count(tenths / 10);
	size_t used = strlen(result.s);

	snprintf(result.s + used, sizeof(result.s) - used, ".%u%s", (unsigned int)(tenths % 10),
		 suffix);
	return result;
}

struct units_text units_growth(double bytes_per_s)
{
	double size = fabs(bytes_per_s);
	const char *sign = bytes_per_s < 0 ? "-" : "+";
	struct units_text small;
	unsigned int tenths;

	if (isnan(bytes_per_s))
		return unknown();
	if (size >= 1023.95)
		return with_sign(sign, units_bytes((uint64_t)llround(fmin(size, 1e18))));
	tenths = (unsigned int)to_tenths(size);
	if (tenths == 0)
		return units_bytes(0);
	snprintf(small.s, sizeof(small.s), "%u.%u B", tenths / 10, tenths % 10);
	return with_sign(sign, small);
}

struct units_text units_duration(double seconds)
{
	if (isnan(seconds))
		return unknown();
	seconds = fmax(seconds, 0);
	if (seconds < 120)
		return tenths_text(to_tenths(seconds), " s");
	if (seconds < 2 * 3600)
		return tenths_text(to_tenths(seconds / 60), " min");
	if (seconds < 2 * 86400)
		return tenths_text(to_tenths(seconds / 3600), " h");
	return tenths_text(to_tenths(seconds / 86400), " d");
}

struct units_text units_decimal(double value)
{
	uint64_t tenths;

	if (isnan(value))
		return unknown();
	tenths = to_tenths(fabs(value));
	return with_sign(value < 0 && tenths > 0 ? "-" : "", tenths_text(tenths, ""));
}
