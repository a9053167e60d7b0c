// SPDX-License-Identifier: Apache-2.0
/* Runs of pipelines: order, gates, resume, triggers. Steps here run in the daemon and only count. */
#define SUITE pipeline
#include "test.h"
#include "pipeline/pipeline.h"
#include <stdlib.h>
#include <unistd.h>

#define PROBE_WITH(F, O, L, T)                         \
    F(T, STR, say, 0, "What it outputs.")              \
    F(T, I64, calls, 0, "Calls it takes.", .def = "1") \
    F(T, STR, fail, 0, "gate, invalid or once: how it fails.")
SCHEMA(probe_with, PROBE_WITH);
SCHEMA_TABLE(probe_with, PROBE_WITH, "A step that does as it is told.");

static char order[256]; /* what the steps said, in the order they ended */
static int failed_once, calls;

static err probe_step(struct job_context *c, struct str project, struct str run, const void *with,
                      struct json *outputs, bool *done)
{
    const struct probe_with *w = with;
    (void)c;
    (void)project;
    (void)run;
    if (str_is(w->fail, "gate"))
        FAIL(GATE, "auc is 0.6, below its bound 0.7");
    if (str_is(w->fail, "invalid") || (str_is(w->fail, "once") && !failed_once++))
        FAIL(INVALID, "told to fail");
    if (++calls % w->calls)
        return NULL;
    strncat(order, str_z(c->a, w->say), sizeof order - strlen(order) - 1);
    json_kstr(outputs, "said", w->say);
    *done = true;
    return NULL;
}
static const struct step_type probe = {
    .name = "probe", .doc = "Does as it is told.", .with = &probe_with_schema, .step = probe_step
};
static const struct step_type *const probes[] = { &probe, NULL };
static const struct worker_type *const no_workers[] = { NULL };

struct ground {
    struct arena *a;
    struct store *store;
    struct auth *auth;
    struct api *api;
    struct exec *exec;
    struct sched *sched;
    struct pipelines *pipelines;
    struct control *control;
    char dir[64];
};

static const struct resource *const kinds[] = { &job_resource, &pipeline_resource, &pipelinerun_resource,
                                                NULL };
static const struct route *const no_routes[] = { NULL };

static void reconcilers_start(struct ground *g)
{
    struct reconciler list[] = { pipelines_run_reconciler(g->pipelines),
                                 pipelines_trigger_reconciler(g->pipelines) };
    CHECK_OK(control_start(g->store, list, 2, &g->control));
}

static void ground_open(struct ground *g)
{
    g->a = arena_new(0);
    snprintf(g->dir, sizeof g->dir, "/tmp/dhow-pipeline-XXXXXX");
    CHECK(mkdtemp(g->dir) != NULL);
    CHECK_OK(store_open(&(struct store_config){ .dir = str_of(g->dir) }, &g->store));
    CHECK_OK(auth_open(g->store, &g->auth));
    CHECK_OK(api_open(&(struct api_config){ g->store, g->auth, kinds, no_routes, NULL }, &g->api));
    CHECK_OK(exec_local.open(g->dir, "/bin/false", &g->exec));
    struct job_context context = { .store = g->store };
    CHECK_OK(sched_open(&(struct sched_config){ .store = g->store,
                                                .exec = g->exec,
                                                .types = no_workers,
                                                .context = context,
                                                .program = "/bin/false" },
                        &g->sched));
    CHECK_OK(
        pipelines_open(&(struct pipelines_config){ g->store, g->sched, probes, context }, &g->pipelines));
    reconcilers_start(g);
}

static void ground_close(struct ground *g)
{
    control_stop(g->control);
    pipelines_close(g->pipelines);
    sched_close(g->sched);
    g->exec->ops->close(g->exec);
    api_close(g->api);
    auth_close(g->auth);
    store_close(g->store);
    CHECK_OK(dir_remove(g->dir));
    arena_free(g->a);
}

static void define(struct ground *g, const char *name, const char *spec)
{
    struct pipeline_spec p;
    CHECK_OK(schema_read_text(&pipeline_spec_schema, g->a, S("spec"), str_of(spec), 0, &p));
    CHECK_OK(resource_create(g->store, g->a, &pipeline_resource, S("test"), S("default"), str_of(name), &p));
}

static struct pipelinerun_status status_of(struct ground *g, struct str run)
{
    struct pipelinerun_status s;
    CHECK_OK(resource_get(g->store, g->a, &pipelinerun_resource, S("default"), run, NULL, NULL, &s));
    return s;
}

static struct pipelinerun_status end_of(struct ground *g, struct str run)
{
    for (int i = 0; i < 500; i++) {
        struct pipelinerun_status s = status_of(g, run);
        if (s.phase >= RUN_SUCCEEDED)
            return s;
        usleep(20000);
    }
    TEST_FAIL_("run %.*s does not end", STR(run));
    return (struct pipelinerun_status){ 0 };
}

static struct str begin(struct ground *g, const char *name)
{
    struct str run;
    CHECK_OK(pipeline_run(g->store, g->a, S("test"), S("default"), str_of(name), NULL, &run));
    return run;
}

TEST(steps_run_in_the_order_of_their_needs_and_pass_outputs_on)
{
    struct ground g;
    ground_open(&g);
    define(
        &g, "p",
        "{\"steps\":[{\"name\":\"c\",\"uses\":\"probe\",\"needs\":[\"b\"],\"with\":{\"say\":\"${steps.b.said}c\"}},"
        "{\"name\":\"b\",\"uses\":\"probe\",\"needs\":[\"a\"],\"with\":{\"say\":\"${steps.a.said}b\",\"calls\":2}},"
        "{\"name\":\"a\",\"uses\":\"probe\",\"with\":{\"say\":\"a\"}}]}");
    struct pipelinerun_status s = end_of(&g, begin(&g, "p"));
    CHECK(s.phase == RUN_SUCCEEDED && s.exit_code == 0);
    CHECK_STR(order, "aababc");
    ground_close(&g);
}

TEST(a_refusing_gate_ends_the_run_with_3_and_skips_the_rest)
{
    struct ground g;
    ground_open(&g);
    define(&g, "p",
           "{\"steps\":[{\"name\":\"gate\",\"uses\":\"probe\",\"with\":{\"fail\":\"gate\"}},"
           "{\"name\":\"deploy\",\"uses\":\"probe\",\"needs\":[\"gate\"]}]}");
    struct pipelinerun_status s = end_of(&g, begin(&g, "p"));
    const struct run_step *steps = s.steps.v;
    CHECK(s.phase == RUN_FAILED && s.exit_code == 3);
    CHECK_STR(s.message, "step gate: auc is 0.6, below its bound 0.7");
    CHECK(steps[0].phase == STEP_FAILED && steps[1].phase == STEP_SKIPPED);
    ground_close(&g);
}

static void change_spec(struct ground *g, struct str run, bool cancel);

struct change {
    struct str run;
    bool cancel;
};

static err change_tx(struct tx *tx, void *arg)
{
    const struct change *c = arg;
    struct object o;
    struct pipelinerun_spec spec;
    TRY(object_get_tx(tx, tx_arena(tx), S("PipelineRun"), S("default"), c->run, &o));
    TRY(schema_read_text(&pipelinerun_spec_schema, tx_arena(tx), S("spec"), o.spec, READ_LENIENT, &spec));
    spec.cancel = c->cancel;
    spec.resumes += !c->cancel;
    o.spec = schema_text(&pipelinerun_spec_schema, tx_arena(tx), &spec, 0);
    return object_put(tx, S("test"), &o, -1, NULL, NULL);
}

static void change_spec(struct ground *g, struct str run, bool cancel)
{
    struct change c = { run, cancel };
    CHECK_OK(store_write(g->store, change_tx, &c));
}

TEST(resume_goes_on_from_what_failed_and_keeps_what_succeeded)
{
    struct ground g;
    ground_open(&g);
    define(
        &g, "p",
        "{\"steps\":[{\"name\":\"a\",\"uses\":\"probe\",\"with\":{\"say\":\"a\"}},"
        "{\"name\":\"b\",\"uses\":\"probe\",\"needs\":[\"a\"],\"with\":{\"say\":\"b\",\"fail\":\"once\"}}]}");
    struct str run = begin(&g, "p");
    CHECK(end_of(&g, run).phase == RUN_FAILED);
    change_spec(&g, run, false);
    for (int i = 0; i < 300 && status_of(&g, run).phase != RUN_SUCCEEDED; i++)
        usleep(20000);
    CHECK(status_of(&g, run).phase == RUN_SUCCEEDED);
    CHECK_STR(order, "ab");
    ground_close(&g);
}

TEST(cancel_ends_a_run_that_waits)
{
    struct ground g;
    ground_open(&g);
    define(&g, "p", "{\"steps\":[{\"name\":\"a\",\"uses\":\"probe\",\"with\":{\"calls\":1000000}}]}");
    struct str run = begin(&g, "p");
    change_spec(&g, run, true);
    CHECK(end_of(&g, run).phase == RUN_CANCELLED);
    ground_close(&g);
}

TEST(runs_of_one_pipeline_wait_for_each_other)
{
    struct ground g;
    ground_open(&g);
    define(&g, "p", "{\"steps\":[{\"name\":\"a\",\"uses\":\"probe\",\"with\":{\"say\":\"x\",\"calls\":3}}]}");
    struct str first = begin(&g, "p"), second = begin(&g, "p");
    CHECK(end_of(&g, second).phase == RUN_SUCCEEDED);
    CHECK(status_of(&g, first).finished <= status_of(&g, second).started);
    ground_close(&g);
}

TEST(an_event_starts_one_run_also_across_a_restart)
{
    struct ground g;
    ground_open(&g);
    define(
        &g, "p",
        "{\"params\":{\"until\":\"x\"},\"triggers\":[{\"event\":\"pipeline.poked\",\"params\":{\"until\":\"${event.time}\"}}],"
        "\"steps\":[{\"name\":\"a\",\"uses\":\"probe\",\"with\":{\"say\":\"${params.until}\"}}]}");
    struct pipeline_status st = { 0 };
    for (int i = 0; i < 200 && !st.cursor; i++) { /* the trigger has taken its place in the log */
        usleep(20000);
        CHECK_OK(resource_get(g.store, g.a, &pipeline_resource, S("default"), S("p"), NULL, NULL, &st));
    }
    control_stop(g.control); /* the event comes while nobody looks */
    CHECK_OK(resource_event(g.store, &pipeline_resource, S("test"), S("default"), S("p"), "pipeline.poked",
                            S("{\"time\":\"2001-05-09\"}")));
    reconcilers_start(&g);
    for (int i = 0; i < 300 && !strstr(order, "2001-05-09"); i++)
        usleep(20000);
    CHECK_STR(order, "2001-05-09");
    control_stop(g.control);
    reconcilers_start(&g);
    usleep(300000);
    CHECK_OK(resource_get(g.store, g.a, &pipeline_resource, S("default"), S("p"), NULL, NULL, &st));
    CHECK(st.runs == 1);
    ground_close(&g);
}

TEST(an_unknown_parameter_is_named)
{
    struct ground g;
    struct str run;
    ground_open(&g);
    define(&g, "p", "{\"params\":{\"until\":\"x\"},\"steps\":[{\"name\":\"a\",\"uses\":\"probe\"}]}");
    struct pair wrong = { S("untli"), S("y") };
    err e = pipeline_run(g.store, g.a, S("test"), S("default"), S("p"), &(struct pairs){ &wrong, 1, 1 },
                         &run);
    CHECK_ERR(e, INVALID);
    CHECK_STR(e->text, "the pipeline has no parameter 'untli'");
    ground_close(&g);
}

static err check_text(struct arena *a, const char *spec)
{
    struct pipeline_spec p;
    TRY(schema_read_text(&pipeline_spec_schema, a, S("spec"), str_of(spec), 0, &p));
    struct resource_check c = { .a = a, .spec = &p };
    return pipeline_resource.check(&c);
}

TEST(circles_doubles_and_unknown_needs_are_refused)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_ERR(check_text(a, "{\"steps\":[]}"), INVALID);
    CHECK_ERR(
        check_text(
            a,
            "{\"steps\":[{\"name\":\"a\",\"uses\":\"x\",\"needs\":[\"b\"]},{\"name\":\"b\",\"uses\":\"x\",\"needs\":[\"a\"]}]}"),
        INVALID);
    CHECK_ERR(check_text(a, "{\"steps\":[{\"name\":\"a\",\"uses\":\"x\"},{\"name\":\"a\",\"uses\":\"x\"}]}"),
              INVALID);
    CHECK_ERR(check_text(a, "{\"steps\":[{\"name\":\"a\",\"uses\":\"x\",\"needs\":[\"z\"]}]}"), INVALID);
    CHECK_OK(check_text(
        a,
        "{\"steps\":[{\"name\":\"a\",\"uses\":\"x\"},{\"name\":\"b\",\"uses\":\"x\",\"needs\":[\"a\"]}]}"));
}
