// SPDX-License-Identifier: Apache-2.0
#define SUITE registry_metric
#include "help.h"
#include "registry/internal.h"

static const char *job_folder(struct lab *l, const char *job, int attempt)
{
    struct meta m;
    struct job_spec spec;
    CHECK_OK(resource_get(l->store, l->a, &job_resource, S("default"), str_of(job), &m, &spec, NULL));
    const char *dir = exec_dir(l->a, store_dir(l->store), fmt(l->a, "%lld-%d", (long long)m.id, attempt));
    CHECK_OK(dir_make(dir));
    return dir;
}

static void lines_add(struct lab *l, const char *dir, const char *text)
{
    auto_fclose FILE *f = fopen(fmtz(l->a, "%s/metrics.jsonl", dir), "a");
    CHECK(f && fputs(text, f) >= 0);
}

static int64_t look(struct lab *l, const char *job)
{
    struct reconciler r = registry_reconciler(trainings_new(l->a, l->store));
    struct object o;
    int64_t again = 0;
    CHECK_OK(object_get(l->store, l->a, S("Job"), S("default"), str_of(job), &o));
    CHECK_OK(r.step(r.self, l->a, &o, NULL, &again));
    return again;
}

static void phase_set(struct lab *l, const char *job, enum job_phase phase, int attempts)
{
    struct job_status status = { .phase = (int)phase, .attempts = attempts };
    CHECK_OK(resource_status(l->store, l->a, &job_resource, S("default"), str_of(job), -1, &status));
}

static struct run_status run_now(struct lab *l, const char *job)
{
    struct run_spec spec;
    struct run_status status;
    CHECK_OK(resource_get(l->store, l->a, &run_resource, S("default"), str_of(job), NULL, &spec, &status));
    return status;
}

TEST(rows_follow_the_file_and_survive_looking_twice)
{
    struct lab l = shop_open();
    trained_job(&l, "t", step_model(l.a, 0, -1, 1));
    phase_set(&l, "t", JOB_RUNNING, 1);
    const char *dir = job_folder(&l, "t", 1);
    CHECK(look(&l, "t") > 0);
    CHECK_STR(run_now(&l, "t").phase, "running");
    lines_add(&l, dir,
              "{\"name\":\"loss\",\"step\":0,\"value\":0.9,\"time\":1}\n{\"name\":\"loss\",\"step\":1,\"val");
    look(&l, "t");
    CHECK(run_now(&l, "t").steps == 1);
    lines_add(&l, dir,
              "ue\":0.5,\"time\":2}\nnot json\n{\"name\":\"auc\",\"step\":1,\"value\":0.7,\"time\":3}\n");
    look(&l, "t");
    look(&l, "t");
    CHECK(run_now(&l, "t").steps == 3);
    CHECK_STR(run_now(&l, "t").metrics, "{\"auc\":0.7,\"loss\":0.5}");
    phase_set(&l, "t", JOB_SUCCEEDED, 1);
    CHECK(look(&l, "t") == 0);
    CHECK_STR(run_now(&l, "t").phase, "succeeded");
    int64_t last = event_last(l.store);
    look(&l, "t");
    CHECK(event_last(l.store) == last);
    lab_close(&l);
}

TEST(a_new_attempt_starts_over)
{
    struct lab l = shop_open();
    trained_job(&l, "t", step_model(l.a, 0, -1, 1));
    phase_set(&l, "t", JOB_RUNNING, 1);
    lines_add(&l, job_folder(&l, "t", 1),
              "{\"name\":\"loss\",\"step\":7,\"value\":1}\n{\"name\":\"old\",\"step\":0,\"value\":1}\n");
    look(&l, "t");
    phase_set(&l, "t", JOB_RUNNING, 2);
    lines_add(&l, job_folder(&l, "t", 2), "{\"name\":\"loss\",\"step\":0,\"value\":null}\n");
    look(&l, "t");
    CHECK(run_now(&l, "t").steps == 1);
    CHECK_STR(run_now(&l, "t").metrics, "{\"loss\":null}");
    lab_close(&l);
}

TEST(figures_of_trainings_have_one_series_each)
{
    auto_arena struct arena *a = arena_new(0);
    struct trainings *t = trainings_new(a, NULL);
    struct buf out = buf_new(a), after = buf_new(a);
    trainings_metrics(t, &out);
    CHECK_STR(buf_get(&out), "");
    trainings_take(t, S("profile.stepSeconds"), 0.5);
    trainings_take(t, S("profile.seconds.Conv"), 0.25);
    trainings_take(t, S("profile.seconds.Conv"), 0.125);
    trainings_take(t, S("profile.gflopsShare.Conv"), NAN);
    trainings_take(t, S("profile.seconds.Made\"Up"), 1);
    trainings_take(t, S("profile.beauty.Conv"), 1);
    trainings_take(t, S("valid.auc"), 1);
    trainings_metrics(t, &out);
    CHECK(strstr(str_z(a, buf_get(&out)), "dhow_training_step_seconds 0.5\n"));
    CHECK(strstr(str_z(a, buf_get(&out)), "dhow_training_op_seconds{op=\"Conv\"} 0.125\n"));
    CHECK(!strstr(str_z(a, buf_get(&out)), "Made"));
    trainings_take(t, S("profile.stepSeconds"), 0.75); /* of another model: what it does not do is gone */
    trainings_metrics(t, &after);
    CHECK(!strstr(str_z(a, buf_get(&after)), "Conv"));
}
