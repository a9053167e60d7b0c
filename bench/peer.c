// SPDX-License-Identifier: Apache-2.0
/* The libraries below dhow, called bare, for bench/NAME to compare with. Prints one JSON value a line.
 *   peer session MODEL ROWS THREADS SECONDS [RUNTIME [N]]
 *                               session_run of N rows (1) after N others; ROWS is a file of floats; RUNTIME: onnx, engine, …
 *   peer sql THREADS FILE...                  DuckDB: statements on stdin, parted by lines of ";", over FILEs
 *   peer lmdb FOLDER ROWS SECONDS             LMDB: commits of ROWS new rows and ROWS replaced ones, fsync now and then */
#include "data/data.h"
#include "data/duck.h"
#include "train/train.h"
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { THREADS_MAX = 64, SAMPLES_MAX = 1 << 20, OUTPUTS_MAX = 1024, MODEL_BYTES = 256 << 20 };
static const int64_t sync_ns = 50000000; /* as the store's log does */

#define MUST(call)                                                                          \
    do {                                                                                    \
        err must_ = (call);                                                                 \
        if (must_) {                                                                        \
            fprintf(stderr, "%s: %.*s\n%.*s\n", #call, STR(must_->text), STR(must_->hint)); \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- a session ---- */

struct caller {
    struct session *s;
    const float *x;
    struct tensor in, out;           /* of a call */
    size_t calls, features, outputs; /* that the file is good for; floats of a call */
    int64_t end_ns, done;
    uint32_t *ns; /* of the first SAMPLES_MAX calls */
};

static void *call_run(void *arg)
{
    struct caller *c = arg;
    for (int64_t start = mono_ns(), now; start < c->end_ns; start = now, c->done++) {
        float p[OUTPUTS_MAX];
        struct tensor in = c->in, out = c->out;
        in.data = (void *)(uintptr_t)(c->x + (size_t)c->done % c->calls * c->features);
        out.data = p;
        MUST(session_run(c->s, NULL, &in, 1, &out, 1));
        now = mono_ns();
        if (c->done < SAMPLES_MAX)
            c->ns[c->done] = (uint32_t)(now - start);
    }
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* All threads' calls for some seconds: how many a second, their p50 and p99, the CPU time of one. */
static void calls_measure(struct arena *a, struct caller *one, int threads, double seconds)
{
    struct caller c[THREADS_MAX];
    pthread_t t[THREADS_MAX];
    int64_t start = mono_ns(), calls = 0;
    size_t n = 0;
    double cpu = cpu_seconds();
    for (int i = 0; i < threads; i++) {
        c[i] = *one;
        c[i].end_ns = start + (int64_t)(seconds * 1e9);
        c[i].ns = NEW_N(a, uint32_t, SAMPLES_MAX);
        MUST(thread_start("call", call_run, &c[i], &t[i]));
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(t[i], NULL);
        calls += c[i].done;
    }
    double took = (double)(mono_ns() - start) / 1e9;
    cpu = cpu_seconds() - cpu;
    uint32_t *all = NEW_N(a, uint32_t, SAMPLES_MAX * (size_t)threads);
    for (int i = 0; i < threads; i++)
        for (int64_t k = 0; k < c[i].done && k < SAMPLES_MAX; k++)
            all[n++] = c[i].ns[k];
    qsort(all, n, sizeof *all, by_size);
    printf("{\"perSecond\":%.1f,\"p50\":%.3f,\"p99\":%.3f,\"cpu\":%.3f}\n", (double)calls / took,
           n ? all[n / 2] / 1e3 : 0, n ? all[n * 99 / 100] / 1e3 : 0, calls ? cpu * 1e6 / (double)calls : 0);
}

/* Rows of an input or output of floats, without their data. */
static struct tensor rows_of(const struct tensor_spec *info, size_t rows, size_t *floats)
{
    struct tensor t = { .type = TENSOR_F32, .rank = info->rank, .dims = { (int64_t)rows } };
    *floats = rows;
    for (size_t i = 1; i < info->rank; i++) {
        t.dims[i] = info->dims[i];
        *floats *= (size_t)info->dims[i];
    }
    t.bytes = *floats * sizeof(float);
    return t;
}

/* First what loading took, with the library and without, then (SECONDS > 0) the calls, then the memory. */
static void session_bench(struct arena *a, const char *model, const char *rows, int threads, double seconds,
                          const char *runtime, size_t at_once)
{
    struct runtime *rt;
    struct session *s;
    struct str bytes, x;
    int64_t start = mono_ns();
    MUST(file_read(a, model, MODEL_BYTES, &bytes));
    MUST(strcmp(runtime, "onnx") ? runtime_open_named(str_of(runtime), NULL, &rt) : runtime_open(NULL, &rt));
    int64_t opened = mono_ns();
    MUST(session_load(rt, bytes, &(struct session_config){ .threads = 1 }, &s));
    printf("{\"loadMs\":%.3f,\"sessionMs\":%.3f}\n", (double)(mono_ns() - start) / 1e6,
           (double)(mono_ns() - opened) / 1e6);
    const struct session_info *info = session_describe(s);
    MUST(file_read(a, rows, MODEL_BYTES, &x));
    struct caller c = { .s = s, .x = (const float *)(const void *)x.p };
    c.in = rows_of(&info->inputs[0], at_once, &c.features);
    c.out = rows_of(&info->outputs[0], at_once, &c.outputs);
    c.calls = x.n / sizeof(float) / c.features;
    if (!c.calls || c.outputs > OUTPUTS_MAX) {
        fprintf(stderr, "%s holds no rows of %zu floats, or the answer is too long\n", rows, c.features);
        exit(1);
    }
    int64_t rss = rss_bytes();
    if (seconds > 0)
        calls_measure(a, &c, threads, seconds);
    printf("{\"rss\":%lld}\n", (long long)rss);
    session_unload(s);
    runtime_close(rt);
}

/* ---- DuckDB ---- */

static struct str stdin_read(struct arena *a)
{
    struct buf b = buf_new(a);
    for (size_t n = 1; n;) {
        n = fread(buf_room(&b, 65536), 1, 65536, stdin);
        b.n += n;
    }
    return buf_get(&b);
}

static bool gives_rows(struct str sql)
{
    return str_starts(sql, S("SELECT")) || str_starts(sql, S("WITH"));
}

/* {"seconds":…, "row":[its first row]} */
static void statement_run(struct duck *d, struct arena *a, struct str sql)
{
    struct columns got = { 0 };
    struct json j = json_new(a);
    int64_t start = mono_ns();
    if (gives_rows(sql))
        MUST(duck_load(d, a, sql, &got));
    else
        MUST(duck_run(d, "%.*s", STR(sql)));
    json_obj(&j);
    json_kf64(&j, "seconds", (double)(mono_ns() - start) / 1e9);
    json_key(&j, S("row"));
    json_arr(&j);
    for (size_t i = 0; i < got.n && got.rows; i++)
        if (got.v[i].type == COL_STR)
            json_str(&j, column_str(&got.v[i], 0));
        else
            json_f64(&j, column_f64(&got.v[i], 0));
    json_arr_end(&j);
    json_obj_end(&j);
    printf("%.*s\n", STR(json_get(&j)));
}

static void sql_bench(struct arena *a, int threads, char **files, int n)
{
    struct strs list = { 0 };
    struct str text = stdin_read(a);
    struct duck *d;
    for (int i = 0; i < n; i++)
        push(a, &list, str_of(files[i]));
    /* as much memory as a job of the default size gives DuckDB */
    MUST(duck_open(
        a, &(struct duck_config){ .threads = threads, .files = list, .memory_bytes = (int64_t)2867 << 20 },
        &d));
    while (text.n) {
        struct str rest = { 0 }, sql = text;
        for (size_t i = 0; i + 2 < text.n && !rest.p; i++)
            if (!memcmp(text.p + i, "\n;\n", 3)) {
                sql = str_sub(text, 0, i);
                rest = str_sub(text, i + 3, text.n);
            }
        statement_run(d, a, str_trim(sql));
        text = rest;
    }
}

/* ---- LMDB ---- */

#define MDB_MUST(call)                                             \
    do {                                                           \
        int rc_ = (call);                                          \
        if (rc_) {                                                 \
            fprintf(stderr, "%s: %s\n", #call, mdb_strerror(rc_)); \
            exit(1);                                               \
        }                                                          \
    } while (0)

struct tree {
    MDB_env *env;
    MDB_dbi rows;
    uint64_t next, seed;
};

static void tree_open(struct tree *t, const char *dir)
{
    MDB_txn *txn;
    MUST(dir_make(dir));
    MDB_MUST(mdb_env_create(&t->env));
    MDB_MUST(mdb_env_set_mapsize(t->env, (size_t)4 << 30));
    MDB_MUST(mdb_env_open(t->env, dir, MDB_NOSYNC, 0600));
    MDB_MUST(mdb_txn_begin(t->env, NULL, 0, &txn));
    MDB_MUST(mdb_dbi_open(txn, NULL, 0, &t->rows));
    MDB_MUST(mdb_txn_commit(txn));
}

/* A new event of a key, and the key's newest row, replaced; as large as those of the main job. */
static void row_put(struct tree *t, MDB_txn *txn)
{
    char event[40] = { 0 }, row[88] = { 0 }, key[64];
    int of = (int)(splitmix(&t->seed) % 4000);
    int n = snprintf(key, sizeof key, "e|default|view|%05d%016llx", of, (unsigned long long)t->next++);
    MDB_val k = { (size_t)n, key }, v = { sizeof event, event };
    MDB_MUST(mdb_put(txn, t->rows, &k, &v, 0));
    n = snprintf(key, sizeof key, "r|default|view|%05d", of);
    k = (MDB_val){ (size_t)n, key };
    v = (MDB_val){ sizeof row, row };
    MDB_MUST(mdb_put(txn, t->rows, &k, &v, 0));
}

static void lmdb_bench(const char *dir, int rows, double seconds)
{
    struct tree t = { .seed = 1 };
    tree_open(&t, dir);
    int64_t start = mono_ns(), end = start + (int64_t)(seconds * 1e9), synced = start, now = start,
            commits = 0;
    for (; now < end; now = mono_ns(), commits++) {
        MDB_txn *txn;
        MDB_MUST(mdb_txn_begin(t.env, NULL, 0, &txn));
        for (int i = 0; i < rows; i++)
            row_put(&t, txn);
        MDB_MUST(mdb_txn_commit(txn));
        if (now - synced >= sync_ns) {
            MDB_MUST(mdb_env_sync(t.env, 1));
            synced = now;
        }
    }
    printf("{\"perSecond\":%.1f}\n", (double)commits * 1e9 / (double)(mono_ns() - start));
    mdb_env_close(t.env);
}

int main(int argc, char **argv)
{
    auto_arena struct arena *a = arena_new(0);
    int threads = argc > 2 ? atoi(argv[2]) : 0;
    log_setup(LOG_ERROR, false);
    if (argc >= 6 && argc <= 8 && !strcmp(argv[1], "session") && atoi(argv[4]) > 0 &&
        atoi(argv[4]) <= THREADS_MAX)
        session_bench(a, argv[2], argv[3], atoi(argv[4]), atof(argv[5]), argc > 6 ? argv[6] : "onnx",
                      argc > 7 ? (size_t)atoi(argv[7]) : 1);
    else if (argc > 3 && !strcmp(argv[1], "sql") && threads > 0)
        sql_bench(a, threads, argv + 3, argc - 3);
    else if (argc == 5 && !strcmp(argv[1], "lmdb") && atoi(argv[3]) > 0)
        lmdb_bench(argv[2], atoi(argv[3]), atof(argv[4]));
    else {
        fprintf(
            stderr,
            "peer session MODEL ROWS THREADS SECONDS [RUNTIME [N]] | sql THREADS FILE... | lmdb FOLDER ROWS SECONDS\n");
        return 2;
    }
    return 0;
}
