// SPDX-License-Identifier: Apache-2.0
/* The rules of sweeps, and the kind Sweep: its jobs are there, but who ends them is this test. */
#define SUITE train_sweep
#include "test.h"
#include "train/train.h"
#include <stdlib.h>
#include <unistd.h>

#define FORM "{\"rows\":\"late.1\",\"holdout\":\"14d\",\"model\":{\"mlp\":{}},\"epochs\":9}"

static struct sweep_plan plan_of(struct arena *a, const char *with)
{
    struct sweep_plan p = { .form = S(FORM), .jobs = true };
    CHECK_OK(schema_read_text(&sweep_with_schema, a, S("spec"), str_of(with), 0, &p.with));
    return p;
}

static struct sweep_plan drawn(struct arena *a, const char *with)
{
    struct sweep_plan p = plan_of(a, with);
    CHECK_OK(sweep_draw(a, &p));
    return p;
}

static struct sweep_trial *begin(struct sweep_plan *p, int64_t elapsed_ms)
{
    struct sweep_trial *t = sweep_next(p, elapsed_ms);
    if (t)
        t->phase = TRIAL_RUNNING;
    return t;
}

static void end(struct arena *a, struct sweep_plan *p, struct sweep_trial *t, const char *metrics)
{
    yyjson_val *v = NULL;
    if (metrics)
        CHECK_OK(json_parse(a, str_of(metrics), &v));
    sweep_judge(a, p, t, v);
}

/* ---- what is tried ---- */

TEST(a_grid_is_all_points_the_first_key_changing_first)
{
    auto_arena struct arena *a = arena_new(0);
    struct sweep_plan p = drawn(
        a, "{\"kind\":\"grid\",\"over\":{\"seed\":[1,2,3],\"model.mlp.hidden\":[[4],[8,8]]}}");
    CHECK(p.n == 6);
    CHECK_STR(p.trials[0].set, "{\"seed\":1,\"model.mlp.hidden\":[4]}");
    CHECK_STR(p.trials[1].set, "{\"seed\":2,\"model.mlp.hidden\":[4]}");
    CHECK_STR(p.trials[3].set, "{\"seed\":1,\"model.mlp.hidden\":[8,8]}");
    CHECK(p.trials[5].epochs == 9 && p.trials[5].rung == 1 && isnan(p.trials[5].measure));
}

TEST(draws_are_the_seeds_and_lie_in_their_ranges)
{
    auto_arena struct arena *a = arena_new(0);
    const char *with =
        "{\"trials\":50,\"seed\":%d,\"over\":{\"optimizer.rate\":{\"min\":0.0001,\"max\":0.1,\"scale\":\"log\"},"
        "\"epochs\":{\"min\":2,\"max\":5},\"model.mlp.dropout\":[0,0.1]}}";
    struct sweep_plan one = drawn(a, fmtz(a, with, 1)), same = drawn(a, fmtz(a, with, 1)),
                      other = drawn(a, fmtz(a, with, 2));
    int64_t least = 9, most = 0, low = 0;
    CHECK(one.n == 50);
    for (size_t i = 0; i < one.n; i++) {
        struct train_with f;
        struct str text;
        CHECK(str_eq(one.trials[i].set, same.trials[i].set));
        CHECK_OK(sweep_form(a, &one, &one.trials[i], &text, &f));
        CHECK(f.optimizer.rate >= 0.0001 && f.optimizer.rate <= 0.1 && f.epochs == one.trials[i].epochs);
        CHECK(f.model.mlp.dropout == 0 || f.model.mlp.dropout == 0.1);
        low += f.optimizer.rate < 0.00316;
        least = f.epochs < least ? f.epochs : least;
        most = f.epochs > most ? f.epochs : most;
    }
    CHECK(least == 2 && most == 5);
    CHECK(low > 15 && low < 35);
    CHECK(!str_eq(one.trials[0].set, other.trials[0].set));
    /* What a seed draws stays what it is, from one version to the next. */
    CHECK_STR(one.trials[0].set, "{\"optimizer.rate\":0.00500824,\"epochs\":4,\"model.mlp.dropout\":0.1}");
}

TEST(what_is_wrong_is_said_with_its_field_before_anything_begins)
{
    static const struct {
        const char *with, *field;
        enum err_code code;
    } wrong[] = {
        { "{\"over\":{}}", "spec.over", INVALID },
        { "{\"over\":{\"optimizer.rat\":[1]}}", "spec.over", INVALID },
        { "{\"over\":{\"\":[1]}}", "spec.over", INVALID },
        { "{\"over\":{\"optimizer.rate\":[0.1,\"fast\"]}}", "spec.over", INVALID },
        { "{\"over\":{\"optimizer.rate\":[]}}", "spec.over", INVALID },
        { "{\"over\":{\"optimizer.rate\":{\"min\":1,\"max\":1}}}", "spec.over", INVALID },
        { "{\"over\":{\"optimizer.rate\":{\"min\":0,\"max\":1,\"scale\":\"log\"}}}", "spec.over", INVALID },
        { "{\"kind\":\"grid\",\"over\":{\"optimizer.rate\":{\"min\":0.1,\"max\":1}}}", "spec.over", INVALID },
        { "{\"kind\":\"halving\",\"over\":{\"epochs\":[1,2]}}", "spec.over", INVALID },
        { "{\"over\":{\"data.path\":[\"late.csv\"]}}", "spec.with.data", INVALID },
        { "{\"trials\":1001,\"over\":{\"seed\":[1]}}", "spec.trials", TOO_LARGE },
        { "{\"metric\":\"beauty\",\"over\":{\"seed\":[1]}}", "spec.metric", INVALID },
    };
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct sweep_plan p = plan_of(a, wrong[i].with);
        err e = sweep_draw(a, &p);
        if (!e || e->code != wrong[i].code)
            TEST_FAIL_("%s: %.*s", wrong[i].with, STR(e ? e->text : S("no error")));
        CHECK_STR(e->field, wrong[i].field);
    }
    struct sweep_plan p = plan_of(a, "{\"over\":{\"seed\":[1]}}");
    p.form = S("{\"rows\":\"late.1\",\"holdout\":\"14d\",\"model\":{}}");
    err e = sweep_draw(a, &p);
    CHECK(e && e->code == INVALID);
    CHECK_STR(e->field, "spec.with.model");
    static const char *const no_epochs[] = { "\"steps\":50,\"model\":{\"mlp\":{}}",
                                             "\"model\":{\"trees\":{}}" };
    for (int i = 0; i < 2; i++) {
        p = plan_of(a, "{\"kind\":\"halving\",\"over\":{\"seed\":[1]}}");
        p.form = fmt(a, "{\"rows\":\"late.1\",\"holdout\":\"14d\",%s}", no_epochs[i]);
        e = sweep_draw(a, &p);
        CHECK(e && e->code == INVALID);
        CHECK_STR(e->field, "spec.kind");
    }
    struct buf b = buf_new(a);
    for (int i = 0; i < 101; i++)
        buf_fmt(&b, "%s%d", i ? "," : "", i);
    p = plan_of(a, fmtz(a, "{\"kind\":\"grid\",\"over\":{\"seed\":[%.*s],\"epochs\":[1,2,3,4,5,6,7,8,9,10]}}",
                        STR(buf_get(&b))));
    CHECK_ERR(sweep_draw(a, &p), TOO_LARGE);
}

/* ---- what is next ---- */

TEST(so_many_run_at_once_in_their_order)
{
    auto_arena struct arena *a = arena_new(0);
    struct sweep_plan p = drawn(a, "{\"trials\":3,\"atOnce\":2,\"over\":{\"seed\":[1,2]}}");
    struct sweep_trial *first = begin(&p, 0), *second = begin(&p, 0);
    CHECK(first == p.trials && second == p.trials + 1 && !begin(&p, 0));
    end(a, &p, second, "{\"logLoss\":0.5}");
    CHECK(begin(&p, 0) == p.trials + 2 && !begin(&p, 0));
    end(a, &p, first, NULL);
    end(a, &p, p.trials + 2, "{\"logLoss\":0.4}");
    CHECK(!begin(&p, 0) && !sweep_count(&p, TRIAL_RUNNING));
    CHECK(first->phase == TRIAL_FAILED && sweep_best(&p) == p.trials + 2);
}

TEST(the_best_is_by_the_measure_and_the_earlier_of_equals)
{
    auto_arena struct arena *a = arena_new(0);
    static const char *const measures[] = { "{\"auc\":0.7,\"rmse\":3}", "{\"rmse\":1}",
                                            "{\"auc\":0.9,\"rmse\":1}", "{\"auc\":0.9,\"rmse\":2}",
                                            "{\"auc\":null,\"rmse\":9}" };
    static const struct {
        const char *metric;
        size_t best;
    } by[] = { { "auc", 2 }, { "rmse", 1 }, { "", 1 } };
    for (size_t k = 0; k < 3; k++) {
        struct sweep_plan p = drawn(
            a, fmtz(a, "{\"trials\":5,\"metric\":\"%s\",\"over\":{\"seed\":[1]}}", by[k].metric));
        for (size_t i = 0; i < 5; i++)
            end(a, &p, begin(&p, 0), measures[i]);
        CHECK(sweep_best(&p) == p.trials + by[k].best);
        CHECK(k || (p.trials[1].phase == TRIAL_NOT_MEASURED && p.trials[4].phase == TRIAL_NOT_MEASURED));
    }
}

TEST(halving_gives_the_better_third_three_times_the_epochs)
{
    auto_arena struct arena *a = arena_new(0);
    struct sweep_plan p = drawn(
        a, "{\"kind\":\"halving\",\"trials\":9,\"over\":{\"seed\":{\"min\":1,\"max\":99}}}");
    static const struct {
        int64_t n, epochs;
    } rungs[] = { { 9, 1 }, { 3, 3 }, { 1, 9 } };
    for (size_t r = 0; r < 3; r++)
        for (int64_t i = 0; i < rungs[r].n; i++) {
            struct sweep_trial *t = begin(&p, 0);
            struct train_with f;
            struct str text;
            CHECK(t && t->rung == (int64_t)r + 1 && t->epochs == rungs[r].epochs);
            CHECK_OK(sweep_form(a, &p, t, &text, &f));
            CHECK(f.epochs == t->epochs);
            end(a, &p, t, fmtz(a, "{\"logLoss\":%d}", abs((int)(t - p.trials) - 4)));
        }
    CHECK(!begin(&p, 0) && sweep_best(&p) == p.trials + 4);
    /* Of 3 and 5, which are alike, and 4, all went on; of 2 and 6 none. */
    CHECK(p.trials[3].rung == 2 && p.trials[5].rung == 2 && p.trials[2].rung == 1 && p.trials[4].rung == 3);
}

TEST(what_has_no_measure_does_not_go_on)
{
    auto_arena struct arena *a = arena_new(0);
    struct sweep_plan p = drawn(
        a,
        "{\"kind\":\"halving\",\"factor\":2,\"trials\":4,\"atOnce\":4,\"over\":{\"seed\":{\"min\":1,\"max\":99}}}");
    static const char *const measures[] = { NULL, "{}", "{\"logLoss\":2}", NULL };
    struct sweep_trial *t;
    for (size_t i = 0; i < 4; i++)
        CHECK(begin(&p, 0) == p.trials + i);
    for (size_t i = 0; i < 4; i++)
        end(a, &p, p.trials + i, measures[i]);
    CHECK(begin(&p, 0) == p.trials + 2 && !begin(&p, 0));
    end(a, &p, p.trials + 2, "{\"logLoss\":1}");
    CHECK((t = begin(&p, 0)) == p.trials + 2 && t->rung == 3 && t->epochs == 9);
    end(a, &p, t, NULL);
    CHECK(!begin(&p, 0) && !sweep_best(&p));
}

TEST(nothing_begins_after_the_budget_and_the_best_is_of_the_highest_rung)
{
    auto_arena struct arena *a = arena_new(0);
    struct sweep_plan p = drawn(a, "{\"trials\":3,\"budget\":\"10s\",\"over\":{\"seed\":[1]}}");
    end(a, &p, begin(&p, 9999), "{\"logLoss\":2}");
    CHECK(!begin(&p, 10000) && sweep_count(&p, TRIAL_NO_TIME) == 2 && sweep_best(&p) == p.trials);

    p = drawn(
        a,
        "{\"kind\":\"halving\",\"factor\":2,\"trials\":4,\"budget\":\"10s\",\"over\":{\"seed\":{\"min\":1,\"max\":99}}}");
    for (size_t i = 0; i < 4; i++)
        end(a, &p, begin(&p, 0), fmtz(a, "{\"logLoss\":%zu}", i));
    end(a, &p, begin(&p, 0), "{\"logLoss\":5}");
    CHECK(!begin(&p, 10000) && !sweep_count(&p, TRIAL_NO_TIME) && sweep_count(&p, TRIAL_DONE) == 4);
    CHECK(p.trials[0].rung == 2 && p.trials[0].epochs == 4 && p.trials[1].rung == 1 &&
          p.trials[1].epochs == 2);
    CHECK(sweep_best(&p) == p.trials);

    p = drawn(
        a, "{\"kind\":\"halving\",\"factor\":2,\"trials\":2,\"budget\":\"10s\",\"over\":{\"seed\":[1,2]}}");
    for (size_t i = 0; i < 2; i++)
        end(a, &p, begin(&p, 0), fmtz(a, "{\"logLoss\":%zu}", 2 - i));
    CHECK(!begin(&p, 10000) && !begin(&p, 10001) && sweep_best(&p) == p.trials + 1);
}

/* ---- the kind ---- */

struct ground {
    struct arena *a;
    struct store *store;
    struct auth *auth;
    struct api *api;
    struct control *control;
    char dir[64];
};
static const struct resource *const kinds[] = { &job_resource, &sweep_resource, NULL };
static const struct route *const no_routes[] = { NULL };

static void reconciler_start(struct ground *g)
{
    struct reconciler r = sweep_reconciler(g->store);
    CHECK_OK(control_start(g->store, &r, 1, &g->control));
}

static void ground_open(struct ground *g)
{
    g->a = arena_new(0);
    snprintf(g->dir, sizeof g->dir, "/tmp/dhow-sweep-XXXXXX");
    CHECK(mkdtemp(g->dir) != NULL);
    CHECK_OK(store_open(&(struct store_config){ .dir = str_of(g->dir) }, &g->store));
    CHECK_OK(auth_open(g->store, &g->auth));
    CHECK_OK(api_open(&(struct api_config){ g->store, g->auth, kinds, no_routes, NULL }, &g->api));
    reconciler_start(g);
}

static void ground_close(struct ground *g)
{
    control_stop(g->control);
    api_close(g->api);
    auth_close(g->auth);
    store_close(g->store);
    CHECK_OK(dir_remove(g->dir));
    arena_free(g->a);
}

static void sweep_make(struct ground *g, const char *more)
{
    struct sweep_spec spec;
    CHECK_OK(schema_read_text(&sweep_spec_schema, g->a, S("spec"),
                              fmt(g->a, "{\"with\":" FORM ",\"cpu\":2,\"retries\":1,%s}", more), 0, &spec));
    CHECK_OK(resource_create(g->store, g->a, &sweep_resource, S("test"), S("default"), S("s"), &spec));
}

static struct sweep_status status_of(struct ground *g)
{
    struct sweep_status st;
    CHECK_OK(resource_get(g->store, g->a, &sweep_resource, S("default"), S("s"), NULL, NULL, &st));
    return st;
}

static bool job_there(struct ground *g, const char *name, struct job_spec *spec)
{
    return !resource_get(g->store, g->a, &job_resource, S("default"), str_of(name), NULL, spec, NULL);
}

static int64_t epochs_of(struct ground *g, const char *name)
{
    struct job_spec job;
    struct train_with with;
    CHECK(job_there(g, name, &job));
    CHECK_OK(schema_read_text(&train_with_schema, g->a, S("with"), job.with, 0, &with));
    return with.epochs;
}

static void job_await(struct ground *g, const char *name)
{
    for (int i = 0; i < 500; i++, usleep(10000))
        if (job_there(g, name, NULL))
            return;
    TEST_FAIL_("job %s does not come", name);
}

/* As sched would end it. metrics NULL: it failed. */
static void job_end(struct ground *g, const char *name, const char *metrics)
{
    struct job_status st = { .phase = metrics ? JOB_SUCCEEDED : JOB_FAILED,
                             .reason = metrics ? S("") : S("the loss became NaN"),
                             .started_at = 1000000,
                             .finished_at = 3500000,
                             .cpu_seconds = NAN };
    job_await(g, name);
    if (metrics) {
        struct json j = json_new(g->a);
        json_obj(&j);
        json_kstr(&j, "metrics", str_of(metrics));
        json_obj_end(&j);
        st.result = json_get(&j);
    }
    CHECK_OK(resource_status(g->store, g->a, &job_resource, S("default"), str_of(name), -1, &st));
}

static struct sweep_status end_of(struct ground *g)
{
    for (int i = 0; i < 500; i++, usleep(10000)) {
        struct sweep_status st = status_of(g);
        if (st.phase >= SWEEP_SUCCEEDED)
            return st;
    }
    TEST_FAIL_("the sweep does not end");
    return (struct sweep_status){ 0 };
}

TEST(its_trials_are_jobs_and_the_best_is_in_its_status)
{
    struct ground g;
    struct job_spec job;
    ground_open(&g);
    sweep_make(&g, "\"kind\":\"grid\",\"metric\":\"auc\",\"over\":{\"seed\":[7,8,9]}");
    job_await(&g, "s-t1");
    CHECK(job_there(&g, "s-t1", &job) && !job_there(&g, "s-t2", NULL));
    CHECK_STR(job.type, "train");
    CHECK_STR(job.owner, "Sweep/s");
    CHECK_STR(
        job.with,
        "{\"rows\":\"late.1\",\"holdout\":\"14d\",\"model\":{\"mlp\":{}},\"epochs\":9,\"seed\":7,\"metrics\":[\"auc\"]}");
    CHECK(job.cpu == 2 && job.retries == 1);
    job_end(&g, "s-t1", "{\"auc\":0.6}");
    job_end(&g, "s-t2", "{\"auc\":0.8}");
    job_end(&g, "s-t3", NULL);
    struct sweep_status st = end_of(&g);
    const struct sweep_trial *t = st.trials.v;
    CHECK(st.phase == SWEEP_SUCCEEDED && st.total == 3 && st.done == 2 && st.failed == 1 && st.running == 0);
    CHECK(st.best == 2 && st.best_measure == 0.8 && t[1].seconds == 2.5);
    CHECK_STR(st.best_job, "s-t2");
    CHECK_STR(st.best_set, "{\"seed\":8}");
    CHECK(t[2].phase == TRIAL_FAILED);
    CHECK_STR(t[2].message, "the loss became NaN");
    ground_close(&g);
}

TEST(a_sweep_all_of_whose_trials_failed_says_why)
{
    struct ground g;
    ground_open(&g);
    sweep_make(&g, "\"trials\":2,\"atOnce\":2,\"over\":{\"seed\":[7]}");
    job_end(&g, "s-t1", NULL);
    job_end(&g, "s-t2", "{\"auc\":0.8}");
    struct sweep_status st = end_of(&g);
    CHECK(st.phase == SWEEP_FAILED && st.failed == 2 && st.best == 0 && isnan(st.best_measure));
    CHECK_STR(st.message, "no trial came to an end with a measure; trial 1: the loss became NaN");
    ground_close(&g);
}

TEST(it_goes_on_after_a_restart_where_it_was)
{
    struct ground g;
    struct objects jobs;
    ground_open(&g);
    sweep_make(
        &g,
        "\"kind\":\"halving\",\"factor\":2,\"trials\":2,\"atOnce\":2,\"over\":{\"seed\":{\"min\":1,\"max\":9}}");
    job_await(&g, "s-t2");
    control_stop(g.control);
    job_end(&g, "s-t1", "{\"logLoss\":2}");
    job_end(&g, "s-t2", "{\"logLoss\":1}");
    CHECK(status_of(&g).running == 2);
    reconciler_start(&g);
    job_await(&g, "s-t2-r2");
    CHECK(epochs_of(&g, "s-t2") == 4 && epochs_of(&g, "s-t2-r2") == 9);
    control_stop(g.control);
    reconciler_start(&g);
    job_end(&g, "s-t2-r2", "{\"logLoss\":0.5}");
    struct sweep_status st = end_of(&g);
    CHECK(st.phase == SWEEP_SUCCEEDED && st.best == 2 && st.done == 2);
    CHECK_STR(st.best_job, "s-t2-r2");
    CHECK_OK(object_list(g.store, g.a, S("Job"), S("default"), S(""), 100, &jobs));
    CHECK(jobs.n == 3);
    ground_close(&g);
}

static err cancel_tx(struct tx *tx, void *arg)
{
    struct object o;
    struct sweep_spec spec;
    (void)arg;
    TRY(object_get_tx(tx, tx_arena(tx), S("Sweep"), S("default"), S("s"), &o));
    TRY(schema_read_text(&sweep_spec_schema, tx_arena(tx), S("spec"), o.spec, READ_LENIENT, &spec));
    spec.cancel = true;
    o.spec = schema_text(&sweep_spec_schema, tx_arena(tx), &spec, 0);
    return object_put(tx, S("test"), &o, -1, NULL, NULL);
}

TEST(one_that_is_cancelled_cancels_its_jobs_and_begins_none)
{
    struct ground g;
    struct job_spec job = { 0 };
    ground_open(&g);
    sweep_make(&g, "\"trials\":3,\"over\":{\"seed\":[7]}");
    job_await(&g, "s-t1");
    CHECK_OK(store_write(g.store, cancel_tx, NULL));
    for (int i = 0; i < 500 && !job.cancel; i++, usleep(10000))
        CHECK(job_there(&g, "s-t1", &job));
    CHECK(job.cancel && status_of(&g).phase == SWEEP_RUNNING);
    CHECK_OK(resource_status(g.store, g.a, &job_resource, S("default"), S("s-t1"), -1,
                             &(struct job_status){ .phase = JOB_CANCELLED, .cpu_seconds = NAN }));
    struct sweep_status st = end_of(&g);
    const struct sweep_trial *t = st.trials.v;
    CHECK(st.phase == SWEEP_CANCELLED && t[0].phase == TRIAL_CANCELLED && t[2].phase == TRIAL_CANCELLED);
    CHECK(!job_there(&g, "s-t2", NULL));
    ground_close(&g);
}

static err delete_tx(struct tx *tx, void *name)
{
    return object_delete(tx, S("test"), S("Job"), S("default"), *(const struct str *)name, -1);
}

TEST(a_job_that_is_deleted_or_anothers_is_a_failed_trial)
{
    struct ground g;
    struct job_spec job;
    ground_open(&g);
    schema_defaults(&job_spec_schema, g.a, &job);
    job.type = S("command");
    CHECK_OK(resource_create(g.store, g.a, &job_resource, S("test"), S("default"), S("s-t1"), &job));
    sweep_make(&g, "\"trials\":3,\"over\":{\"seed\":[7]}");
    job_await(&g, "s-t2");
    CHECK_OK(store_write(g.store, delete_tx, &S("s-t2")));
    job_end(&g, "s-t3", "{\"logLoss\":1}");
    struct sweep_status st = end_of(&g);
    const struct sweep_trial *t = st.trials.v;
    CHECK(st.phase == SWEEP_SUCCEEDED && st.best == 3 && st.failed == 2);
    CHECK_STR(t[0].message, "there is another job of its name already");
    CHECK_STR(t[1].message, "its job was deleted");
    ground_close(&g);
}
