/* sys: clocks, ids, times and sizes as people write them, the process's own figures.
 * Times    int64_t microseconds since 1970-01-01T00:00:00Z (0 in a resource: not set).
 * Units    durations are milliseconds, sizes are bytes. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/err.h"

int64_t now_us(void);       /* wall clock */
int64_t now_us_about(void); /* the same, up to 10 ms late: a fifth of the time */
int64_t mono_ns(void);      /* monotonic, for intervals */
/* "2001-05-01T00:00:00Z" with as many digits of the fraction as needed (0, 3 or 6). */
struct str time_text(struct arena *a, int64_t us);
/* RFC 3339, a date alone ("2001-05-01", midnight UTC), or date and time without a zone (UTC). */
bool time_parse(struct str s, int64_t *us);
/* "250ms", "30s", "5m", "2h", "30d", "2w", or several: "1h30m". */
bool duration_parse(struct str s, int64_t *ms);
struct str duration_text(struct arena *a, int64_t ms);
/* "512", "64Ki", "16Mi", "2Gi", "1Ti", and decimal "64k", "16M", "2G". */
bool size_parse(struct str s, int64_t *bytes);
struct str size_text(struct arena *a, int64_t bytes);
/* Civil parts of a time, UTC; weekday 0 = Monday. */
struct civil {
    int year, month, day, hour, minute, second, weekday;
};
struct civil civil_of(int64_t us);

/* n random bytes of the system; aborts if there are none to be had. */
void random_bytes(void *out, size_t n);
/* 26 characters: 48 bits of milliseconds and 80 random bits in Crockford's base 32, lower case;
 * sorts by time of making. */
struct str id_new(struct arena *a);
/* Lower-case hex of n bytes. */
struct str hex(struct arena *a, const void *p, size_t n);
/* Memory in use by this process, bytes (VmRSS), and its peak. */
int64_t rss_bytes(void);
int64_t rss_peak_bytes(void);
/* n zeroed bytes in pages of their own, which cost memory when they are first touched; NULL if there are none left. For large
 * blocks that come and go; back by pages_free with the same n. */
void *pages_new(size_t n);
void pages_free(void *p, size_t n);
/* Free memory goes back to the system. One thread at a time: the C library's own heap is not ready for two at once where another,
 * such as a sanitizer's, has taken its place. */
void heap_trim(void);
/* Cores this process may use: affinity and the cgroup's quota, at least 1. */
int cpu_count(void);
/* SplitMix64: a small generator for sampling and tests, never for secrets. */
uint64_t splitmix(uint64_t *state);
/* 64-bit hash of bytes, stable across runs and machines (FNV-1a, then mixed). */
uint64_t hash64(struct str s);
