// SPDX-License-Identifier: Apache-2.0
/* Many threads log at once while the writer empties the rings and the settings change: each request is written once and
 * whole, or counted as dropped. Nothing is published: the dataset of that name is somebody else's. */
#include "serve/request_log.h"
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 4, REQUESTS = 4000 };

static const struct tensor_spec input = {
    .name = S_INIT("x"), .type = TENSOR_F32, .shaped = true, .rank = 2, .dims = { -1, 2 }
};
static const struct tensor_spec output = {
    .name = S_INIT("y"), .type = TENSOR_F32, .shaped = true, .rank = 1, .dims = { -1 }
};
static const struct session_info info = {
    .inputs = &input, .outputs = &output, .n_inputs = 1, .n_outputs = 1
};
static struct model model = { .name = S_INIT("m.1"), .info = &info, .by_rows = true, .features = 2 };
static struct tally *tally;
static struct serve *s;

static void *logger(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < REQUESTS; i++) {
        float x[4] = { (float)me, (float)i, (float)me, (float)i + .5f },
              y[2] = { (float)(me + i), (float)(me + i) };
        struct tensor in = { .type = TENSOR_F32, .rank = 2, .dims = { 2, 2 }, .data = x, .bytes = sizeof x };
        struct tensor out = { .type = TENSOR_F32, .rank = 1, .dims = { 2 }, .data = y, .bytes = sizeof y };
        struct served to = { .model = &model, .tally = tally };
        struct infer c = { .s = s,
                           .to = &to,
                           .slot = me + (unsigned)i,
                           .count = &tally->stripe[me % STRIPES],
                           .now = i + 1,
                           .at = { 1, 2, 3, 4 },
                           .in = &in,
                           .out = &out,
                           .out_n = 1,
                           .n = 2 };
        request_log_take(&c, atomic_load(&tally->sink), NULL, 5);
    }
    return NULL;
}

/* Rows of all folders; -1 if one is not as it was logged. */
static int64_t rows_found(struct arena *a, const char *dir)
{
    struct strs names;
    int64_t n = 0;
    if (dir_list(a, dir, &names))
        return -1;
    for (size_t i = 0; i < names.n; i++) {
        struct str text, line;
        if (str_is(names.v[i], "key") ||
            file_read(a, fmtz(a, "%s/%.*s/rows.jsonl", dir, STR(names.v[i])), 1 << 30, &text))
            continue;
        while (str_cut(&text, '\n', &line)) {
            yyjson_val *v;
            if (!line.n)
                continue;
            if (json_parse(a, line, &v))
                return -1;
            double thread = yyjson_get_num(yyjson_obj_get(v, "c16")),
                   at = yyjson_get_num(yyjson_obj_get(v, "c17")),
                   sum = yyjson_get_num(yyjson_obj_get(v, "c18"));
            if (sum != thread + (double)(int)at)
                return -1;
            n++;
        }
    }
    return n;
}

int main(void)
{
    char dir[] = "/tmp/dhow-log-XXXXXX";
    struct arena *a = arena_new(0);
    struct depl d = { .project = S("default"), .name = S("late") };
    struct request_log_spec spec;
    pthread_t t[THREADS];
    struct auth *auth = NULL;
    struct totals sum;
    if (!mkdtemp(dir))
        return 1;
    s = aligned_alloc(64, sizeof *s);
    tally = aligned_alloc(64, sizeof *tally);
    memset(s, 0, sizeof *s);
    memset(tally, 0, sizeof *tally);
    log_setup(LOG_ERROR + 1, false);
    schema_defaults(&request_log_spec_schema, a, &spec);
    spec.share = 1;
    spec.rotate_bytes = 512 << 10;
    struct dataset_spec theirs = { .sources = { (struct str[]){ S("s") }, 1, 1 },
                                   .query = S("SELECT 1"),
                                   .id = S("id"),
                                   .event_time = S("t") };
    err e = store_open(&(struct store_config){ .dir = str_of(dir) }, &s->store);
    if (!e)
        e = auth_open(s->store, &auth);
    if (!e)
        e = data_open(s->store);
    if (!e)
        e = resource_create(s->store, a, &project_resource, S("t"), S(""), S("default"),
                            &(struct project_spec){ 0 });
    if (!e)
        e = request_log_open(s, &s->requests);
    if (!e)
        e = resource_create(s->store, a, &dataset_resource, S("t"), S("default"), S("late-requests"),
                            &theirs);
    if (e) {
        fprintf(stderr, "%.*s\n", STR(e->text));
        return 2;
    }
    request_log_set(s, &d, tally, &model, &spec);
    for (uintptr_t i = 0; i < THREADS; i++)
        if (thread_start("logger", logger, (void *)i, &t[i]))
            return 3;
    for (int i = 0; i < 20; i++) { /* the same rows, under other settings */
        spec.redact = i & 1 ? REDACT_HASH : REDACT_NULL;
        request_log_set(s, &d, tally, &model, &spec);
        usleep(1000);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    request_sink_leave(atomic_load(&tally->sink));
    request_log_close(s->requests);
    tally_sum(tally, &sum);
    int64_t rows = rows_found(a, fmtz(a, "%s/requests", dir));
    bool right = rows == 2 * sum.logged && sum.logged > 0 && sum.logged + sum.unlogged <= THREADS * REQUESTS;
    fprintf(stderr, "%lld rows of %lld requests, %lld dropped\n", (long long)rows, (long long)sum.logged,
            (long long)sum.unlogged);
    auth_close(auth);
    store_close(s->store);
    free(tally);
    free(s);
    arena_free(a);
    right = dir_remove(dir) == NULL && right;
    return right ? 0 : 1;
}
