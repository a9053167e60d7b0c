// SPDX-License-Identifier: Apache-2.0
/* How fast the last trainings were, for /metrics: the figures that a trainer tells as metrics of its run, "profile.gflops" or, of
 * an operator, "profile.seconds.Conv". One value each, whichever run told it last: series do not grow with the runs. */
#include "registry/internal.h"
#include <math.h>
#include <pthread.h>

enum { OPS_MAX = 128 /* with series of their own; the table of operators bounds them, too */ };

static const struct figure {
    struct str name; /* after "profile." */
    const char *metric, *help;
} plain[] = {
    { S_INIT("rowsPerSecond"), "dhow_training_rows_per_second", "Rows a second of the last training." },
    { S_INIT("gflops"), "dhow_training_gflops", "GFLOP/s of the last training." },
    { S_INIT("waitedShare"), "dhow_training_waiting_share", "Share of its time that it waited for data." },
    { S_INIT("memoryPlanned"), "dhow_training_memory_planned_bytes",
      "Activations, parameters and gradients as planned." },
    { S_INIT("memoryPeak"), "dhow_training_memory_peak_bytes", "Most memory that its process had." },
    { S_INIT("stepSeconds"), "dhow_training_step_seconds", "A mean step of the last profiled training." },
    { S_INIT("peakGflops"), "dhow_training_peak_gflops", "What the machine was measured to do then." },
    { S_INIT("peakGbytes"), "dhow_training_peak_gbytes", "GB/s of memory that it was measured to read." },
}, by_op[] = {
    { S_INIT("seconds"), "dhow_training_op_seconds", "Of a mean step of the last profiled training." },
    { S_INIT("gflopsShare"), "dhow_training_op_gflops_share", "GFLOP/s as a share of the measured peak." },
    { S_INIT("gbytesShare"), "dhow_training_op_gbytes_share", "Bytes moved as a share of the measured peak." },
};
enum { PLAIN = sizeof plain / sizeof *plain, BY_OP = sizeof by_op / sizeof *by_op };

struct trainings {
    struct store *store;
    pthread_mutex_t lock;
    double plain[PLAIN];
    struct told {
        const struct op *op;
        double v[BY_OP];
    } ops[OPS_MAX];
    size_t ops_n;
};

struct trainings *trainings_new(struct arena *a, struct store *s)
{
    struct trainings *t = NEW(a, struct trainings);
    t->store = s;
    pthread_mutex_init(&t->lock, NULL);
    for (size_t i = 0; i < PLAIN; i++)
        t->plain[i] = NAN;
    return t;
}

struct store *trainings_store(struct trainings *t)
{
    return t->store;
}

static const struct op *op_named(struct str name)
{
    const struct op *op = op_find(S(""), name);
    return op ? op : op_find(S(OWN), name);
}

static void op_take(struct trainings *t, size_t figure, const struct op *op, double value)
{
    size_t i = 0;
    while (i < t->ops_n && t->ops[i].op != op)
        i++;
    if (i == t->ops_n && i < OPS_MAX)
        t->ops[t->ops_n++] = (struct told){ op, { NAN, NAN, NAN } };
    if (i < t->ops_n)
        t->ops[i].v[figure] = value;
}

void trainings_take(struct trainings *t, struct str name, double value)
{
    struct str figure;
    if (!str_starts(name, S("profile.")))
        return;
    name = str_sub(name, 8, name.n);
    LOCKED(&t->lock);
    for (size_t i = 0; i < PLAIN; i++)
        if (str_eq(name, plain[i].name))
            t->plain[i] = value;
    if (str_is(name, "stepSeconds")) /* the first that a profile tells */
        t->ops_n = 0;
    if (!str_cut(&name, '.', &figure) || !op_named(name))
        return;
    for (size_t i = 0; i < BY_OP; i++)
        if (str_eq(figure, by_op[i].name))
            op_take(t, i, op_named(name), value);
}

static void head_put(struct buf *out, const struct figure *f)
{
    buf_fmt(out, "# HELP %s %s\n# TYPE %s gauge\n", f->metric, f->help, f->metric);
}

void trainings_metrics(void *trainings, struct buf *out)
{
    struct trainings *t = trainings;
    LOCKED(&t->lock);
    for (size_t i = 0; i < PLAIN; i++) {
        if (isnan(t->plain[i]))
            continue;
        head_put(out, &plain[i]);
        buf_fmt(out, "%s %.9g\n", plain[i].metric, t->plain[i]);
    }
    for (size_t f = 0; f < BY_OP && t->ops_n; f++) {
        head_put(out, &by_op[f]);
        for (size_t i = 0; i < t->ops_n; i++)
            if (!isnan(t->ops[i].v[f]))
                buf_fmt(out, "%s{op=\"%s\"} %.9g\n", by_op[f].metric, t->ops[i].op->name, t->ops[i].v[f]);
    }
}
