// SPDX-License-Identifier: Apache-2.0
/* From a Parquet file to batches: bench/loader [ROWS [COLUMNS [BATCH]]]. What opening costs (decode, check, statistics), what a
 * row of a batch costs made in a thread, without one, by ranks and from windows: COLUMNS numbers that are normalised and a
 * label, in random order. CPU time, medians of three epochs. */
#include "train/train.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { TIMES = 3 };

static void line(const char *name, double value, const char *unit)
{
    printf(
        "{\"name\": \"%s\", \"value\": %.4g, \"unit\": \"%s\", \"peer\": null, \"peer_value\": null, \"ratio\": null}\n",
        name, value, unit);
    fflush(stdout);
}

/* Of CPU, all threads: what a batch costs, on a machine that is shared, too. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v)
{
    qsort(v, TIMES, sizeof *v, by_size);
    return v[TIMES / 2];
}

static err table_make(struct arena *a, struct str path, int64_t rows, int columns)
{
    struct duck *d;
    struct buf b = buf_new(a);
    struct duck_config config = { .files = { &path, 1, 1 } };
    TRY(duck_open(a, &config, &d));
    for (int i = 0; i < columns; i++)
        buf_fmt(&b, "((hash(i * %d + %d) %% 1000003) / 1000.0)::FLOAT AS x%d, ", columns, i, i);
    return duck_run(
        d,
        "COPY (SELECT %.*s(hash(i) %% 2)::TINYINT AS y FROM range(%lld) t(i)) TO '%.*s' (FORMAT parquet, USE_TMP_FILE false)",
        STR(buf_get(&b)), (long long)rows, STR(path));
}

static err epochs(struct loader *l, int64_t batch, int depth, double *seconds)
{
    double took[TIMES];
    auto_arena struct arena *a = arena_new(0);
    struct feed *f;
    struct feed_batch b;
    struct feed_options o = { .rows = batch, .shuffle = true, .seed = 1, .depth = depth };
    TRY(feed_open(l, a, &o, &f));
    for (int t = 0; t < TIMES; t++) {
        double start = now();
        for (int64_t s = feed_steps(f); s; s--)
            TRY(feed_next(f, &b));
        took[t] = now() - start;
    }
    *seconds = median(took);
    return NULL;
}

static err gathers(struct loader *l, int64_t batch, size_t bytes, double *seconds)
{
    double took[TIMES];
    auto_arena struct arena *a = arena_new(0);
    struct feed *f;
    struct feed_options o = { .rows = batch, .shuffle = true, .seed = 1 };
    void *out[LOADER_TENSORS_MAX] = { arena_alloc(a, (size_t)batch * bytes, 64),
                                      arena_alloc(a, (size_t)batch * 8, 64) };
    TRY(feed_open(l, a, &o, &f));
    for (int t = 0; t < TIMES; t++) {
        feed_epoch(f, t);
        double start = now();
        for (int64_t s = 0; s < feed_steps(f); s++)
            feed_gather(f, s, 0, batch, out);
        took[t] = now() - start;
    }
    *seconds = median(took);
    return NULL;
}

static double copies(size_t bytes)
{
    double took[TIMES];
    char *from = malloc(bytes), *to = malloc(bytes);
    memset(from, 1, bytes);
    memset(to, 1, bytes);
    for (int t = 0; t < TIMES; t++) {
        double start = now();
        memcpy(to, from, bytes);
        took[t] = now() - start;
    }
    free(from);
    free(to);
    return median(took);
}

static err bench(struct arena *a, const char *dir, int64_t rows, int columns, int64_t batch)
{
    struct str path = fmt(a, "%s/t.parquet", dir), y = S("y");
    struct loader_file file = { .path = path };
    struct loader_input in[] = {
        { .name = S("x"), .kind = KIND_NUMBERS, .normalise = NORM_STANDARD },
        { .name = S("y"), .role = ROLE_LABEL, .kind = KIND_CLASS, .columns = { &y, 1, 1 } }
    };
    struct loader_spec spec = { .files = &file, .n_files = 1, .inputs = in, .n_inputs = 2 };
    struct loader *l;
    double seconds;
    TRY(table_make(a, path, rows, columns));
    double start = now(), n = (double)rows, row = columns * 4 + 8;
    TRY(loader_open(a, &spec, &l));
    line("open", loader_facts(l).seconds, "s");
    line("open, CPU", (now() - start) / n * 1e9, "ns/row");
    TRY(epochs(l, batch, 0, &seconds));
    line("feed, a thread", seconds / n * 1e9, "ns/row");
    TRY(epochs(l, batch, -1, &seconds));
    line("feed, no thread", seconds / n * 1e9, "ns/row");
    TRY(gathers(l, batch, (size_t)columns * 4, &seconds));
    line("gather", seconds / n * 1e9, "ns/row");
    line("gather, bytes", n * row / seconds / 1e9, "GB/s");
    line("memcpy of as much", n * row / copies((size_t)(n * row)) / 1e9, "GB/s");
    spec.memory_max = rows * (columns + 1) * 4 / 2;
    TRY(loader_open(a, &spec, &l));
    line("windows, open", loader_facts(l).seconds, "s");
    TRY(epochs(l, batch, 0, &seconds));
    line("windows, feed", seconds / n * 1e9, "ns/row");
    return NULL;
}

int main(int argc, char **argv)
{
    auto_arena struct arena *a = arena_new(0);
    char dir[] = "/tmp/dhow-loader-XXXXXX";
    if (!mkdtemp(dir))
        return 1;
    err e = bench(a, dir, argc > 1 ? atoll(argv[1]) : 1000000, argc > 2 ? atoi(argv[2]) : 20,
                  argc > 3 ? atoll(argv[3]) : 256);
    if (e)
        fprintf(stderr, "%.*s\n", STR(e->text));
    dir_remove(dir);
    return e != NULL;
}
