// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE 1
#include "base/sys.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define SECOND_US INT64_C(1000000)
#define DAY_S INT64_C(86400)

static int64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t now_us(void)
{
    return clock_ns(CLOCK_REALTIME) / 1000;
}

int64_t now_us_about(void)
{
    return clock_ns(CLOCK_REALTIME_COARSE) / 1000;
}

int64_t mono_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* Floor division: the remainder is never negative. */
static int64_t div_floor(int64_t v, int64_t by, int64_t *rest)
{
    int64_t q = v / by - (v % by < 0);
    *rest = v - q * by;
    return q;
}

/* Days since 1970-01-01 of a civil date and back; years count from March, 146097 days are 400 years. */
static int64_t days_of(int year, int month, int day)
{
    int64_t y = year - (month <= 2), year_of_era;
    int64_t era = div_floor(y, 400, &year_of_era);
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void date_of(int64_t days, struct civil *c)
{
    int64_t day_of_era;
    int64_t era = div_floor(days + 719468, 146097, &day_of_era);
    int64_t y = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * y + y / 4 - y / 100);
    int64_t m = (5 * day_of_year + 2) / 153;
    c->day = (int)(day_of_year - (153 * m + 2) / 5 + 1);
    c->month = (int)(m < 10 ? m + 3 : m - 9);
    c->year = (int)(y + era * 400 + (c->month <= 2));
}

struct civil civil_of(int64_t us)
{
    struct civil c;
    int64_t in_second, in_day, weekday;
    int64_t days = div_floor(div_floor(us, SECOND_US, &in_second), DAY_S, &in_day);
    date_of(days, &c);
    c.hour = (int)(in_day / 3600);
    c.minute = (int)(in_day / 60 % 60);
    c.second = (int)(in_day % 60);
    div_floor(days + 3, 7, &weekday); /* 1970-01-01 was a Thursday */
    c.weekday = (int)weekday;
    return c;
}

struct str time_text(struct arena *a, int64_t us)
{
    struct civil c = civil_of(us);
    int64_t fraction;
    div_floor(us, SECOND_US, &fraction);
    char digits[8] = "";
    if (fraction % 1000)
        snprintf(digits, sizeof digits, ".%06d", (int)fraction);
    else if (fraction)
        snprintf(digits, sizeof digits, ".%03d", (int)(fraction / 1000));
    return fmt(a, "%04d-%02d-%02dT%02d:%02d:%02d%sZ", c.year, c.month, c.day, c.hour, c.minute, c.second,
               digits);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Takes n digits off the front as a number from lo to hi. */
static bool take_number(struct str *s, size_t n, int lo, int hi, int *out)
{
    int v = 0;
    if (s->n < n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!is_digit(s->p[i]))
            return false;
        v = v * 10 + (s->p[i] - '0');
    }
    *s = str_sub(*s, n, s->n);
    *out = v;
    return v >= lo && v <= hi;
}

/* Takes one character off the front if it is one of those. */
static bool take_one(struct str *s, const char *of)
{
    if (!s->n || !s->p[0] || !strchr(of, s->p[0]))
        return false;
    *s = str_sub(*s, 1, s->n);
    return true;
}

static int month_days(int year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

static bool take_date(struct str *s, int64_t *days)
{
    int year, month, day;
    if (!take_number(s, 4, 1, 9999, &year) || !take_one(s, "-") || !take_number(s, 2, 1, 12, &month) ||
        !take_one(s, "-") || !take_number(s, 2, 1, month_days(year, month), &day))
        return false;
    *days = days_of(year, month, day);
    return true;
}

static bool take_fraction(struct str *s, int64_t *us)
{
    int64_t unit = SECOND_US;
    *us = 0;
    if (!take_one(s, "."))
        return true;
    for (; s->n && is_digit(s->p[0]); *s = str_sub(*s, 1, s->n)) {
        unit /= 10;
        if (!unit)
            return false; /* a seventh digit */
        *us += unit * (s->p[0] - '0');
    }
    return unit < SECOND_US;
}

static bool take_clock(struct str *s, int64_t *us)
{
    int hour, minute, second = 0;
    int64_t fraction = 0;
    if (!take_number(s, 2, 0, 23, &hour) || !take_one(s, ":") || !take_number(s, 2, 0, 59, &minute))
        return false;
    if (take_one(s, ":") && (!take_number(s, 2, 0, 59, &second) || !take_fraction(s, &fraction)))
        return false;
    *us = (hour * 3600 + minute * 60 + second) * SECOND_US + fraction;
    return true;
}

static bool take_zone(struct str *s, int64_t *us)
{
    int hour, minute;
    *us = 0;
    if (!s->n || take_one(s, "Zz"))
        return true;
    int sign = s->p[0] == '-' ? -1 : 1;
    if (!take_one(s, "+-") || !take_number(s, 2, 0, 23, &hour) || !take_one(s, ":") ||
        !take_number(s, 2, 0, 59, &minute))
        return false;
    *us = sign * (hour * 60 + minute) * 60 * SECOND_US;
    return true;
}

bool time_parse(struct str s, int64_t *us)
{
    int64_t days, clock = 0, zone = 0;
    if (!take_date(&s, &days))
        return false;
    if (s.n && (!take_one(&s, "Tt ") || !take_clock(&s, &clock) || !take_zone(&s, &zone) || s.n))
        return false;
    int64_t at = days * DAY_S * SECOND_US + clock - zone;
    if (at < days_of(1, 1, 1) * DAY_S * SECOND_US || at >= days_of(10000, 1, 1) * DAY_S * SECOND_US)
        return false; /* the zone led out of the years that can be written */
    *us = at;
    return true;
}

struct unit {
    struct str name;
    int64_t size;
};
/* Longest first. */
static const struct unit durations[] = {
    { S_INIT("w"), 7 * 86400000 }, { S_INIT("d"), 86400000 }, { S_INIT("h"), 3600000 },
    { S_INIT("m"), 60000 },        { S_INIT("s"), 1000 },     { S_INIT("ms"), 1 },
};
enum { DURATIONS = sizeof durations / sizeof *durations };

static const struct unit sizes[] = {
    { S_INIT(""), 1 },
    { S_INIT("Ki"), INT64_C(1) << 10 },
    { S_INIT("Mi"), INT64_C(1) << 20 },
    { S_INIT("Gi"), INT64_C(1) << 30 },
    { S_INIT("Ti"), INT64_C(1) << 40 },
    { S_INIT("k"), 1000 },
    { S_INIT("M"), 1000000 },
    { S_INIT("G"), 1000000000 },
    { S_INIT("T"), 1000000000000 },
};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Takes "12unit" off the front: the digits and the letters after them. */
static bool take_quantity(struct str *s, int64_t *n, struct str *unit)
{
    size_t digits = 0;
    while (digits < s->n && is_digit(s->p[digits]))
        digits++;
    size_t end = digits;
    while (end < s->n && !is_digit(s->p[end]))
        end++;
    if (!digits || !str_i64(str_sub(*s, 0, digits), n))
        return false;
    *unit = str_sub(*s, digits, end);
    *s = str_sub(*s, end, s->n);
    return true;
}

static size_t unit_find(const struct unit *units, size_t n, struct str name)
{
    size_t i = 0;
    while (i < n && !str_eq(units[i].name, name))
        i++;
    return i;
}

bool duration_parse(struct str s, int64_t *ms)
{
    int64_t all = 0, part;
    struct str name;
    if (str_is(s, "0")) {
        *ms = 0;
        return true;
    }
    if (!s.n)
        return false;
    for (size_t next = 0; s.n;) { /* units get smaller: "1m1h" is a slip */
        if (!take_quantity(&s, &part, &name))
            return false;
        size_t u = unit_find(durations, DURATIONS, name);
        if (u == DURATIONS || u < next || __builtin_mul_overflow(part, durations[u].size, &part) ||
            __builtin_add_overflow(all, part, &all))
            return false;
        next = u + 1;
    }
    *ms = all;
    return true;
}

struct str duration_text(struct arena *a, int64_t ms)
{
    struct buf b = buf_new(a);
    if (!ms)
        return S("0s");
    uint64_t left = ms < 0 ? -(uint64_t)ms : (uint64_t)ms;
    if (ms < 0)
        buf_str(&b, S("-"));
    bool whole_weeks = left % (uint64_t)durations[0].size == 0; /* else none: "30d", not "4w2d" */
    for (size_t i = !whole_weeks; i < DURATIONS; i++) {
        uint64_t size = (uint64_t)durations[i].size;
        if (left / size)
            buf_fmt(&b, "%llu%.*s", (unsigned long long)(left / size), STR(durations[i].name));
        left %= size;
    }
    return buf_get(&b);
}

bool size_parse(struct str s, int64_t *bytes)
{
    int64_t n;
    struct str name;
    if (!take_quantity(&s, &n, &name) || s.n)
        return false;
    size_t u = unit_find(sizes, SIZES, name);
    if (u == SIZES || __builtin_mul_overflow(n, sizes[u].size, &n))
        return false;
    *bytes = n;
    return true;
}

struct str size_text(struct arena *a, int64_t bytes)
{
    struct str best = fmt(a, "%lld", (long long)bytes);
    for (size_t i = 1; i < SIZES && bytes; i++) {
        if (bytes % sizes[i].size)
            continue;
        struct str text = fmt(a, "%lld%.*s", (long long)(bytes / sizes[i].size), STR(sizes[i].name));
        if (text.n <= best.n && !(text.n == best.n && i > 4)) /* of two as short, the binary one */
            best = text;
    }
    return best;
}

void random_bytes(void *out, size_t n)
{
    for (char *p = out; n;) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno != EINTR) {
            fputs("dhow: the system gives no random bytes\n", stderr);
            abort();
        }
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
}

struct str id_new(struct arena *a)
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint64_t ms = (uint64_t)(now_us() / 1000);
    uint8_t bytes[16];
    for (int i = 0; i < 6; i++)
        bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
    random_bytes(bytes + 6, 10);
    char *p = arena_alloc(a, 27, 1);
    unsigned bits = 0, have = 2; /* 128 bits in 26 digits: two zeros come first */
    for (int at = 0, i = 0; i < 26; i++) {
        if (have < 5) {
            bits = bits << 8 | bytes[at++];
            have += 8;
        }
        have -= 5;
        p[i] = digits[bits >> have & 31];
        bits &= (1u << have) - 1;
    }
    return (struct str){ p, 26 };
}

struct str hex(struct arena *a, const void *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = p;
    char *out = arena_alloc(a, arena_mul(n, 2) + 1, 1);
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
    return (struct str){ out, 2 * n };
}

/* A small file of the kernel, into the caller's buffer; empty if it cannot be read. */
static struct str kernel_text(const char *path, char *room, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return S("");
    size_t have = 0;
    for (ssize_t got; have < n && (got = read(fd, room + have, n - have)) > 0;)
        have += (size_t)got;
    close(fd);
    return (struct str){ room, have };
}

static int64_t status_bytes(struct str key)
{
    char room[8192];
    struct str text = kernel_text("/proc/self/status", room, sizeof room);
    for (struct str line; str_cut(&text, '\n', &line);) {
        int64_t kb;
        if (str_starts(line, key) && str_ends(line, S("kB")) &&
            str_i64(str_trim(str_sub(line, key.n, line.n - 2)), &kb))
            return kb * 1024;
    }
    return 0;
}

int64_t rss_bytes(void)
{
    return status_bytes(S("VmRSS:"));
}

int64_t rss_peak_bytes(void)
{
    return status_bytes(S("VmHWM:"));
}

static int affinity_cores(void)
{
    /* The kernel says EINVAL to a mask that is too small. */
    for (int cpus = 1024; cpus <= 1 << 18; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        size_t size = CPU_ALLOC_SIZE((size_t)cpus);
        if (!set)
            break;
        int n = sched_getaffinity(0, size, set) ? 0 : CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (n)
            return n;
    }
    return 1;
}

static int64_t kernel_i64(const char *path)
{
    char room[64];
    int64_t v;
    return str_i64(str_trim(kernel_text(path, room, sizeof room)), &v) ? v : -1;
}

/* Cores that quota per period comes to, rounded up; 0 for no limit. */
static int cores_of(int64_t quota, int64_t period)
{
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

static int quota_v2(struct arena *a, struct str group)
{
    char room[128];
    struct str period = kernel_text(fmtz(a, "/sys/fs/cgroup%.*s/cpu.max", STR(group)), room, sizeof room);
    struct str quota;
    int64_t q, p;
    period = str_trim(period);
    return str_cut(&period, ' ', &quota) && str_i64(quota, &q) && str_i64(period, &p) ? cores_of(q, p) : 0;
}

static int quota_v1(struct arena *a, struct str group)
{
    return cores_of(kernel_i64(fmtz(a, "/sys/fs/cgroup/cpu%.*s/cpu.cfs_quota_us", STR(group))),
                    kernel_i64(fmtz(a, "/sys/fs/cgroup/cpu%.*s/cpu.cfs_period_us", STR(group))));
}

static bool has_part(struct str list, struct str want)
{
    for (struct str part; str_cut(&list, ',', &part);)
        if (str_eq(part, want))
            return true;
    return false;
}

/* The least quota of a group and those above it. A line of /proc/self/cgroup is "id:controllers:/group". */
static int group_cores(struct arena *a, struct str line, int most)
{
    struct str id, controllers, group = line;
    if (!str_cut(&group, ':', &id) || !str_cut(&group, ':', &controllers))
        return most;
    bool v2 = !controllers.n;
    if (!v2 && !has_part(controllers, S("cpu")))
        return most;
    for (bool more = true; more;) {
        while (group.n && group.p[group.n - 1] == '/')
            group.n--;
        int n = v2 ? quota_v2(a, group) : quota_v1(a, group);
        if (n && n < most)
            most = n;
        more = group.n > 0;
        while (group.n && group.p[group.n - 1] != '/')
            group.n--;
    }
    return most;
}

void *pages_new(size_t n)
{
    void *p = mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void pages_free(void *p, size_t n)
{
    if (p)
        munmap(p, n ? n : 1);
}

int cpu_count(void)
{
    auto_arena struct arena *a = arena_new(0);
    char room[8192];
    struct str text = kernel_text("/proc/self/cgroup", room, sizeof room);
    int most = affinity_cores();
    for (struct str line; str_cut(&text, '\n', &line);)
        most = group_cores(a, line, most);
    return most;
}

void heap_trim(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    LOCKED(&lock);
    (void)malloc_trim(0);
}

uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

uint64_t hash64(struct str s)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.p[i]) * 0x100000001b3;
    h = (h ^ h >> 33) * 0xff51afd7ed558ccd;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53;
    return h ^ h >> 33;
}
