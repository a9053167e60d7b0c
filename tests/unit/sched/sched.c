// SPDX-License-Identifier: Apache-2.0
/* Jobs: order, capacity, retries, finishing, a restart in between. The shim and the workers are this program. */
#define SUITE sched
#include "test.h"
#include "sched/sched.h"
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#define LAB_WITH(F, O, L, T)                 \
    F(T, STR, say, 0, "What it results in.") \
    F(T, STR, fail, 0, "invalid, broken or slow.")
SCHEMA(lab_with, LAB_WITH);
SCHEMA_TABLE(lab_with, LAB_WITH, "A worker that does as it is told.");

static err lab_run(struct worker *w)
{
    const struct lab_with *with = w->with;
    if (str_is(with->fail, "invalid"))
        FAIL(INVALID, "the rows are bad");
    if (str_is(with->fail, "broken"))
        FAIL(INTERNAL, "the machine is bad");
    for (int i = 0; str_is(with->fail, "slow") && i < 600 && !worker_stopped(w); i++) {
        worker_progress(w, i, 600, "naps");
        usleep(50000);
    }
    worker_metric(w, "loss", 1, 0.5);
    worker_say(w, "said %.*s", STR(with->say));
    return worker_result(w, fmt(w->a, "{\"said\":\"%.*s\"}", STR(with->say)));
}

static int finished;

static err lab_finish(struct job_context *c, const struct job *j, yyjson_val *result, struct json *outputs)
{
    (void)c;
    (void)j;
    finished++;
    json_kstr(outputs, "said", str_of(yyjson_get_str(yyjson_obj_get(result, "said"))));
    return NULL;
}

static const struct worker_type lab = { .name = "lab",
                                        .doc = "Does as it is told.",
                                        .with = &lab_with_schema,
                                        .run = lab_run,
                                        .finish = lab_finish };
static const struct worker_type *const types[] = { &lab, NULL };

__attribute__((constructor)) static void child_entry(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "shim") == 0)
        _exit(exec_shim(argv[2]));
    if (argc == 4 && strcmp(argv[1], "worker") == 0)
        _exit(sched_worker_main(types, argv[3]));
}

struct ground {
    struct arena *a;
    struct store *store;
    struct auth *auth;
    struct api *api;
    struct exec *exec;
    struct sched *sched;
    struct control *control;
    char dir[64], self[PATH_MAX];
};
static const struct resource *const kinds[] = { &job_resource, NULL };
static const struct route *const no_routes[] = { NULL };

static void daemon_start(struct ground *g)
{
    CHECK_OK(exec_local.open(g->dir, g->self, &g->exec));
    CHECK_OK(sched_open(&(struct sched_config){ .store = g->store,
                                                .exec = g->exec,
                                                .types = types,
                                                .cpu = 2,
                                                .memory = 1 << 30,
                                                .context = { .store = g->store },
                                                .program = g->self },
                        &g->sched));
    struct reconciler r = sched_reconciler(g->sched);
    CHECK_OK(control_start(g->store, &r, 1, &g->control));
    sched_set_control(g->sched, g->control);
}

static void daemon_stop(struct ground *g)
{
    sched_set_control(g->sched, NULL);
    control_stop(g->control);
    sched_close(g->sched);
    g->exec->ops->close(g->exec);
}

static void ground_open(struct ground *g)
{
    g->a = arena_new(0);
    memset(g->self, 0, sizeof g->self);
    CHECK(readlink("/proc/self/exe", g->self, sizeof g->self - 1) > 0);
    snprintf(g->dir, sizeof g->dir, "/tmp/dhow-sched-XXXXXX");
    CHECK(mkdtemp(g->dir) != NULL);
    CHECK_OK(store_open(&(struct store_config){ .dir = str_of(g->dir) }, &g->store));
    CHECK_OK(auth_open(g->store, &g->auth));
    CHECK_OK(api_open(&(struct api_config){ g->store, g->auth, kinds, no_routes, NULL }, &g->api));
    daemon_start(g);
}

static void ground_close(struct ground *g)
{
    daemon_stop(g);
    api_close(g->api);
    auth_close(g->auth);
    store_close(g->store);
    CHECK_OK(dir_remove(g->dir));
    arena_free(g->a);
}

static void submit(struct ground *g, const char *name, const char *spec)
{
    struct job_spec s;
    CHECK_OK(schema_read_text(&job_spec_schema, g->a, S("spec"), str_of(spec), 0, &s));
    CHECK_OK(resource_create(g->store, g->a, &job_resource, S("test"), S("default"), str_of(name), &s));
}

static struct job_status look(struct ground *g, const char *name)
{
    struct job_status s;
    CHECK_OK(resource_get(g->store, g->a, &job_resource, S("default"), str_of(name), NULL, NULL, &s));
    return s;
}

static struct job_status wait_for(struct ground *g, const char *name, enum job_phase phase)
{
    for (int i = 0; i < 1000; i++) {
        struct job_status s = look(g, name);
        if (s.phase == (int)phase || s.phase >= JOB_SUCCEEDED)
            return s;
        usleep(20000);
    }
    TEST_FAIL_("job %s does not get there", name);
    return (struct job_status){ 0 };
}

TEST(a_worker_runs_and_its_result_becomes_the_output)
{
    struct ground g;
    ground_open(&g);
    submit(&g, "j", "{\"type\":\"lab\",\"with\":{\"say\":\"hello\"}}");
    struct job_status s = wait_for(&g, "j", JOB_SUCCEEDED);
    CHECK(s.phase == JOB_SUCCEEDED && s.attempts == 1 && s.exit_code == 0);
    CHECK_STR(s.result, "{\"said\":\"hello\"}");
    struct str log;
    CHECK_OK(blob_get(store_blobs(g.store), g.a, s.log, &log));
    CHECK_STR(log, "said hello\n");
    ground_close(&g);
}

TEST(bad_input_is_not_tried_again_a_bad_machine_is)
{
    struct ground g;
    ground_open(&g);
    submit(&g, "bad", "{\"type\":\"lab\",\"retries\":2,\"with\":{\"fail\":\"invalid\"}}");
    submit(&g, "broken", "{\"type\":\"lab\",\"retries\":2,\"with\":{\"fail\":\"broken\"}}");
    struct job_status bad = wait_for(&g, "bad", JOB_FAILED), broken = wait_for(&g, "broken", JOB_FAILED);
    CHECK(bad.phase == JOB_FAILED && bad.attempts == 1 && bad.exit_code == 2);
    CHECK_STR(bad.reason, "the rows are bad");
    CHECK(broken.phase == JOB_FAILED && broken.attempts == 3);
    ground_close(&g);
}

TEST(jobs_wait_for_room_by_priority_and_say_why)
{
    struct ground g;
    ground_open(&g);
    submit(&g, "big", "{\"type\":\"lab\",\"cpu\":2,\"with\":{\"fail\":\"slow\"}}");
    wait_for(&g, "big", JOB_RUNNING);
    submit(&g, "low", "{\"type\":\"lab\",\"cpu\":2,\"with\":{\"say\":\"low\"}}");
    submit(&g, "high", "{\"type\":\"lab\",\"cpu\":2,\"priority\":5,\"with\":{\"say\":\"high\"}}");
    usleep(500000);
    CHECK_STR(look(&g, "high").reason, "waits for 2 of 2 cores");
    CHECK(look(&g, "low").phase == JOB_QUEUED);
    CHECK_OK(job_cancel_request(g.store, S("test"), S("default"), S("big")));
    CHECK(wait_for(&g, "low", JOB_SUCCEEDED).started_at >= wait_for(&g, "high", JOB_SUCCEEDED).finished_at);
    CHECK(look(&g, "big").phase == JOB_CANCELLED);
    ground_close(&g);
}

TEST(a_queued_job_is_cancelled_without_being_started)
{
    struct ground g;
    ground_open(&g);
    submit(&g, "big", "{\"type\":\"lab\",\"cpu\":2,\"with\":{\"fail\":\"slow\"}}");
    wait_for(&g, "big", JOB_RUNNING);
    submit(&g, "next", "{\"type\":\"lab\",\"cpu\":2}");
    CHECK_OK(job_cancel_request(g.store, S("test"), S("default"), S("next")));
    struct job_status s = wait_for(&g, "next", JOB_CANCELLED);
    CHECK(s.phase == JOB_CANCELLED && s.attempts == 0);
    CHECK_OK(job_cancel_request(g.store, S("test"), S("default"), S("big")));
    CHECK(wait_for(&g, "big", JOB_CANCELLED).phase == JOB_CANCELLED);
    ground_close(&g);
}

TEST(a_restarted_daemon_finds_its_jobs_again)
{
    struct ground g;
    ground_open(&g);
    submit(&g, "slow", "{\"type\":\"lab\",\"with\":{\"fail\":\"slow\"}}");
    int64_t pid = wait_for(&g, "slow", JOB_RUNNING).attempts;
    daemon_stop(&g);
    daemon_start(&g);
    usleep(300000);
    struct job_status s = look(&g, "slow");
    CHECK(s.phase == JOB_RUNNING && s.attempts == pid);
    CHECK_OK(job_cancel_request(g.store, S("test"), S("default"), S("slow")));
    CHECK(wait_for(&g, "slow", JOB_CANCELLED).phase == JOB_CANCELLED);
    ground_close(&g);
}
