// SPDX-License-Identifier: Apache-2.0
/* Where the time of a training went: a table by operator, beside what the machine can do, and one mean step as a trace. */
#include "train/trainer_internal.h"

#include <math.h>
#include <stdlib.h>

enum { BANDWIDTH_BYTES = 64 << 20, FLOP_ROUNDS = 100000, FLOP_TRIES = 100, BYTE_TRIES = 10, OPS_SHOWN = 24 };

/* ---- what the machine can do, measured ---- */

struct peak {
    double gflops, gbytes;
    bool dot; /* products are of bf16, by the CPU's own instruction */
    float *buffer;
    int size;
    double best
        [TEAM_MAX]; /* seconds of each rank's own best round: neighbours on the machine disturb the others */
    volatile float sink[TEAM_MAX];
};

/* Eight independent chains of fused multiply-adds over wide vectors, by what the CPU has. */
#define CHAINS(V, N, FMA)                     \
    V c[8], x, y;                             \
    for (int i = 0; i < N; i++)               \
        x[i] = 0.999f, y[i] = 0.001f;         \
    for (int k = 0; k < 8; k++)               \
        for (int i = 0; i < N; i++)           \
            c[k][i] = (float)k;               \
    for (int64_t r = 0; r < FLOP_ROUNDS; r++) \
        for (int k = 0; k < 8; k++)           \
            c[k] = FMA;                       \
    float sum = 0;                            \
    for (int k = 0; k < 8; k++)               \
        for (int i = 0; i < N; i++)           \
            sum += c[k][i];                   \
    return sum

typedef float wide16 __attribute__((vector_size(64)));
typedef float wide8 __attribute__((vector_size(32)));
typedef float wide4 __attribute__((vector_size(16)));
#if defined(__x86_64__)
__attribute__((target("avx512f"), optimize("O3", "fp-contract=fast"))) static float chains_16(void)
{
    CHAINS(wide16, 16, c[k] * x + y);
}
__attribute__((target("avx2,fma"), optimize("O3", "fp-contract=fast"))) static float chains_8(void)
{
    CHAINS(wide8, 8, c[k] * x + y);
}
#endif
static float chains_4(void)
{
    CHAINS(wide4, 4, c[k] * x + y);
}

/* The same of pairs of bf16: as many lanes, two products in each. */
#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bf16"), optimize("O3"))) static float chains_dot(void)
{
    wide16 c[8] = { 0 }, x = { 0 };
    for (int64_t r = 0; r < FLOP_ROUNDS; r++)
        for (int k = 0; k < 8; k++)
            __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(c[k]) : "v"(x));
    return c[0][0] + c[7][0];
}
#else
static float chains_dot(void)
{
    return chains_4();
}
#endif

static int lanes(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return 16;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 8;
#endif
    return 4;
}

static float chains_run(void)
{
#if defined(__x86_64__)
    return lanes() == 16 ? chains_16() : lanes() == 8 ? chains_8() : chains_4();
#else
    return chains_4();
#endif
}

static float bytes_read(const struct peak *p, int rank)
{
    int64_t n = BANDWIDTH_BYTES / (int64_t)sizeof(float), from = n * rank / p->size / 16 * 16,
            to = n * (rank + 1) / p->size / 16 * 16;
    wide4 sum[4] = { 0 };
    for (int64_t i = from; i < to; i += 16)
        for (int k = 0; k < 4; k++)
            sum[k] += *(const wide4 *)(p->buffer + i + 4 * k);
    return sum[0][0] + sum[1][0] + sum[2][0] + sum[3][0];
}

static void rounds_time(struct peak *p, int rank, int rounds, bool memory)
{
    p->best[rank] = INFINITY;
    for (int i = 0; i < rounds; i++) {
        int64_t then = mono_ns();
        p->sink[rank] = memory ? bytes_read(p, rank) : p->dot ? chains_dot() : chains_run();
        double took = (double)(mono_ns() - then) / 1e9;
        p->best[rank] = took < p->best[rank] ? took : p->best[rank];
    }
}

static void flops_rank(void *arg, int rank)
{
    rounds_time(arg, rank, FLOP_TRIES, false);
}

/* Each rank reads its part of a block that no cache holds. */
static void bytes_rank(void *arg, int rank)
{
    rounds_time(arg, rank, BYTE_TRIES, true);
}

static void peak_measure(struct arena *a, struct team *team, struct peak *p)
{
    p->size = team_size(team);
    p->buffer = arena_alloc(a, BANDWIDTH_BYTES, 64);
    memset(p->buffer, 1, BANDWIDTH_BYTES); /* pages of its own */
    team_run(team, 0, flops_rank, p);
    for (int i = 0; i < p->size; i++)
        p->gflops += (p->dot ? 2 : 1) * 2.0 * 8 * FLOP_ROUNDS * lanes() / p->best[i] / 1e9;
    team_run(team, 0, bytes_rank, p);
    for (int i = 0; i < p->size; i++)
        p->gbytes += (double)BANDWIDTH_BYTES / p->size / p->best[i] / 1e9;
}

/* ---- by operator ---- */

struct line {
    const char *op;
    double seconds, flops, bytes;
    int64_t nodes;
};
struct lines {
    VEC(struct line) v;
};

static int by_time(const void *x, const void *y)
{
    double a = ((const struct line *)x)->seconds, b = ((const struct line *)y)->seconds;
    return (a < b) - (a > b);
}

static struct lines lines_of(struct arena *a, const struct step_time *t, size_t n, int ranks)
{
    struct lines all = { 0 };
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        if (!t[i].op || !t[i].runs)
            continue;
        while (k < all.v.n && strcmp(all.v.v[k].op, t[i].op->name) != 0)
            k++;
        if (k == all.v.n)
            push(a, &all.v, ((struct line){ .op = t[i].op->name }));
        all.v.v[k].seconds += t[i].seconds / (double)t[i].runs;
        all.v.v[k].flops += t[i].flops * ranks;
        all.v.v[k].bytes += t[i].bytes * ranks;
        all.v.v[k].nodes++;
    }
    if (all.v.n)
        qsort(all.v.v, all.v.n, sizeof *all.v.v, by_time);
    return all;
}

/* Units that are not measured (tiles) can be faster: what an operator has reached, the machine can do. */
static void peak_raise(struct peak *p, const struct lines *all)
{
    for (size_t i = 0; i < all->v.n; i++)
        if (all->v.v[i].seconds > 0)
            p->gflops = fmax(p->gflops, all->v.v[i].flops / all->v.v[i].seconds / 1e9);
}

static struct str table_text(const struct training_net *t, const struct lines *all, const struct peak *p,
                             double step_seconds, double waited)
{
    struct buf b = buf_new(t->a);
    double known = 0;
    struct program_facts f = program_facts(t->program);
    buf_fmt(&b, "%-26s %6s %10s %6s %9s %6s %8s %6s\n", "operator", "nodes", "ms a step", "share", "GFLOP/s",
            "peak", "GB/s", "peak");
    for (size_t i = 0; i < all->v.n; i++)
        known += all->v.v[i].seconds;
    for (size_t i = 0; i < all->v.n && i < OPS_SHOWN; i++) {
        const struct line *l = &all->v.v[i];
        double s = l->seconds > 0 ? l->seconds : 1e-12;
        buf_fmt(&b, "%-26s %6lld %10.4f %5.1f%% %9.1f %5.1f%% %8.1f %5.1f%%\n", l->op, (long long)l->nodes,
                l->seconds * 1e3, 100 * l->seconds / step_seconds, l->flops / s / 1e9,
                100 * l->flops / s / 1e9 / p->gflops, l->bytes / s / 1e9,
                100 * l->bytes / s / 1e9 / p->gbytes);
    }
    buf_fmt(&b, "%-26s %6s %10.4f %5.1f%%\n", "optimiser, sums, the rest", "", (step_seconds - known) * 1e3,
            100 * (step_seconds - known) / step_seconds);
    buf_fmt(
        &b,
        "a step: %.4f ms, %.1f GFLOP/s of %.0f measured; memory reads %.1f GB/s measured; %.1f %% waiting for data; "
        "activations %lld bytes, parameters and gradients %lld, process %lld at its peak\n",
        step_seconds * 1e3, f.flops / step_seconds / 1e9, p->gflops, p->gbytes, 100 * waited,
        (long long)f.memory, (long long)f.memory_params, (long long)rss_peak_bytes());
    return buf_get(&b);
}

/* One mean step on rank 0, node after node. */
static err trace_write(const struct training_net *t, const struct step_time *v, size_t n)
{
    auto_arena struct arena *a = arena_new(0);
    struct json j = json_new(a);
    double at = 0;
    json_obj(&j);
    json_kstr(&j, "displayTimeUnit", S("ms"));
    json_key(&j, S("traceEvents"));
    json_arr(&j);
    for (size_t i = 0; i < n; i++) {
        double took = v[i].runs ? v[i].seconds / (double)v[i].runs * 1e6 : 0;
        if (!v[i].op || !v[i].runs)
            continue;
        json_obj(&j);
        json_kstr(&j, "name", v[i].name);
        json_kstr(&j, "cat", str_of(v[i].op->name));
        json_kstr(&j, "ph", S("X"));
        json_ki64(&j, "pid", 1);
        json_ki64(&j, "tid", 1);
        json_kf64(&j, "ts", at);
        json_kf64(&j, "dur", took);
        json_key(&j, S("args"));
        json_obj(&j);
        json_kstr(&j, "shapes", v[i].shapes);
        json_kf64(&j, "flops", v[i].flops);
        json_kf64(&j, "bytes", v[i].bytes);
        json_obj_end(&j);
        json_obj_end(&j);
        at += took;
    }
    json_arr_end(&j);
    json_obj_end(&j);
    return file_write(fmtz(a, "%s/profile.json", t->job->dir), json_get(&j));
}

/* The same figures as metrics of the run. */
static void figures_tell(const struct training_net *t, const struct lines *all, const struct peak *p,
                         double step_seconds)
{
    const struct train_listener *l = t->listener;
    if (!l->metric)
        return;
    l->metric(l->arg, "profile.stepSeconds", t->step, step_seconds);
    l->metric(l->arg, "profile.peakGflops", t->step, p->gflops);
    l->metric(l->arg, "profile.peakGbytes", t->step, p->gbytes);
    for (size_t i = 0; i < all->v.n && i < OPS_SHOWN; i++) {
        const struct line *v = &all->v.v[i];
        double s = v->seconds > 0 ? v->seconds : 1e-12;
        l->metric(l->arg, fmtz(t->a, "profile.seconds.%s", v->op), t->step, v->seconds);
        l->metric(l->arg, fmtz(t->a, "profile.gflopsShare.%s", v->op), t->step,
                  v->flops / s / 1e9 / p->gflops);
        l->metric(l->arg, fmtz(t->a, "profile.gbytesShare.%s", v->op), t->step,
                  v->bytes / s / 1e9 / p->gbytes);
    }
}

err train_profile(const struct training_net *t, double seconds, double waited, struct train_result *out)
{
    const struct step_time *v;
    struct peak p = { .dot = t->precision == PRECISION_BF16 && device_multiplies(&device_cpu, TENSOR_BF16) };
    auto_arena struct arena *a = arena_new(0);
    size_t n = program_times(t->program, a, &v);
    struct lines all = lines_of(a, v, n, program_facts(t->program).ranks);
    peak_measure(a, t->team, &p);
    peak_raise(&p, &all);
    double steps = t->step > 0 ? (double)t->step : 1;
    out->profile = table_text(t, &all, &p, seconds / steps, seconds > 0 ? waited / seconds : 0);
    figures_tell(t, &all, &p, seconds / steps);
    return trace_write(t, v, n);
}
