// SPDX-License-Identifier: Apache-2.0
#define SUITE checkpoint
#include "test.h"
#include "train/checkpoint.h"
#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct arena *a;
static char dir[64];
static float w[6], bias[3], m[6];
static struct checkpoint_tensors all;

static void before(void)
{
    a = arena_new(0);
    snprintf(dir, sizeof dir, "/tmp/dhow-checkpoint-XXXXXX");
    CHECK(mkdtemp(dir));
    all = (struct checkpoint_tensors){ 0 };
    push(a, &all.v, ((struct checkpoint_tensor){ .name = S("w"), .rank = 2, .dims = { 2, 3 }, .p = w }));
    push(a, &all.v, ((struct checkpoint_tensor){ .name = S("b"), .rank = 1, .dims = { 3 }, .p = bias }));
    push(
        a, &all.v,
        ((struct checkpoint_tensor){ .name = S("m.w"), .optim = true, .rank = 2, .dims = { 2, 3 }, .p = m }));
}
static void after(void)
{
    CHECK_OK(dir_remove(dir));
    arena_free(a);
}
TestSuite(checkpoint, .init = before, .fini = after);

static void fill(float from)
{
    for (int i = 0; i < 6; i++) {
        w[i] = from + (float)i;
        m[i] = -w[i];
    }
    for (int i = 0; i < 3; i++)
        bias[i] = from * 10 + (float)i;
}

static void save(struct checkpoints *c, int64_t step, bool best)
{
    fill((float)step);
    CHECK_OK(checkpoints_save(c, step, &all, fmt(a, "{\"step\":%lld}", (long long)step), best));
}

TEST(the_newest_comes_back_bit_for_bit)
{
    struct checkpoints *c;
    const char *path;
    struct str state;
    CHECK_OK(checkpoints_open(dir, 2, &c));
    save(c, 10, false);
    save(c, 20, false);
    fill(99); /* what changes after the save is not in it */
    CHECK_OK(checkpoints_wait(c));
    CHECK(checkpoints_last(c) == 20);
    checkpoints_close(c);
    CHECK_OK(checkpoint_find(a, dir, &path, NULL));
    CHECK_OK(checkpoint_state(a, path, &state));
    CHECK_STR(str_trim(state), "{\"step\":20}");
    CHECK_OK(checkpoint_load(path, &all));
    CHECK(w[5] == 25 && bias[2] == 202 && m[5] == -25);
}

TEST(the_last_few_and_the_best_stay)
{
    struct checkpoints *c;
    struct strs names;
    const char *path;
    CHECK_OK(checkpoints_open(dir, 2, &c));
    for (int64_t step = 1; step <= 5; step++)
        save(c, step, step == 2);
    checkpoints_close(c);
    CHECK_OK(dir_list(a, dir, &names));
    CHECK_STR(str_join(a, names.v, names.n, S(" ")), "best.json step-2 step-4 step-5");
    CHECK_OK(checkpoint_best(a, dir, &path));
    CHECK(str_ends(str_of(path), S("/step-2")));
}

TEST(a_damaged_one_is_passed_over)
{
    struct checkpoints *c;
    struct strs damaged = { 0 };
    const char *path;
    CHECK_OK(checkpoints_open(dir, 3, &c));
    save(c, 1, false);
    save(c, 2, false);
    checkpoints_close(c);
    CHECK_OK(file_write(fmtz(a, "%s/step-2/state.json", dir), S("{}")));
    CHECK_OK(checkpoint_find(a, dir, &path, &damaged));
    CHECK(str_ends(str_of(path), S("/step-1")) && damaged.n == 1);
    CHECK_OK(dir_remove(path));
    CHECK_ERR(checkpoint_find(a, dir, &path, NULL), NOT_FOUND);
}

TEST(another_models_is_refused_by_name)
{
    struct checkpoints *c;
    const char *path;
    CHECK_OK(checkpoints_open(dir, 1, &c));
    save(c, 1, false);
    checkpoints_close(c);
    CHECK_OK(checkpoint_find(a, dir, &path, NULL));
    fill(7);
    all.v.v[1].dims[0] = 2;
    err e = checkpoint_load(path, &all);
    CHECK_ERR(e, INVALID);
    CHECK(strstr(str_z(a, e->text), "tensor 'b' is [3] there and [2] here"));
    all.v.v[1].dims[0] = 3;
    all.v.v[0].name = S("v");
    e = checkpoint_load(path, &all);
    CHECK_ERR(e, INVALID);
    CHECK(strstr(str_z(a, e->text), "it has no tensor 'v'"));
    CHECK(w[0] == 7); /* nothing was filled */
    all.v.n = 1;
    all.v.v[0].name = S("w");
    CHECK_ERR(checkpoint_load(path, &all), INVALID);
}

/* A file over the process's limit fails as a full disk does: in the middle of a write. */
TEST(no_room_is_one_error_and_the_last_one_stays_whole)
{
    struct checkpoints *c;
    const char *path;
    static float large[1 << 16];
    CHECK_OK(checkpoints_open(dir, 2, &c));
    save(c, 1, false);
    CHECK_OK(checkpoints_wait(c));
    signal(SIGXFSZ, SIG_IGN);
    CHECK(!setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 1 << 16, 1 << 16 }));
    struct checkpoint_tensors more = { 0 };
    push(a, &more.v,
         ((struct checkpoint_tensor){ .name = S("w"), .rank = 1, .dims = { 1 << 16 }, .p = large }));
    CHECK_OK(checkpoints_save(c, 2, &more, S("{}"), false));
    err e = checkpoints_wait(c);
    CHECK(e && strstr(str_z(a, e->text), "checkpoint of step 2"));
    CHECK_OK(checkpoints_wait(c)); /* once */
    checkpoints_close(c);
    CHECK_OK(checkpoint_find(a, dir, &path, NULL));
    CHECK_OK(checkpoint_load(path, &all));
    CHECK(w[5] == 6);
}

TEST(weights_that_are_no_numbers_are_in_none)
{
    struct checkpoints *c;
    const char *path;
    const float bad[] = { NAN, INFINITY, -INFINITY };
    CHECK_OK(checkpoints_open(dir, 2, &c));
    save(c, 1, false);
    for (int i = 0; i < 3; i++) {
        fill(2);
        bias[2] = bad[i];
        err e = checkpoints_save(c, 2, &all, S("{}"), true);
        CHECK_ERR(e, INVALID);
        CHECK_STR(e->text, "'b' has numbers that are NaN or infinite after step 2");
    }
    fill(3);
    m[0] = INFINITY; /* of an average of squares: that weight stands still */
    w[5] = -3.4e38f;
    CHECK_OK(checkpoints_save(c, 3, &all, S("{}"), false));
    checkpoints_close(c);
    CHECK_OK(checkpoint_find(a, dir, &path, NULL));
    CHECK(str_ends(str_of(path), S("/step-3")));
    CHECK(file_exists(fmtz(a, "%s/step-1", dir)) && !file_exists(fmtz(a, "%s/best.json", dir)));
}

/* Killed at any moment: what is found is whole, and is the last or the one before it. */
TEST(kill_at_any_moment)
{
    for (int round = 0; round < 12; round++) {
        int pipe_[2];
        CHECK(!pipe(pipe_));
        pid_t child = fork();
        if (!child) {
            struct checkpoints *c;
            if (checkpoints_open(dir, 2, &c))
                _exit(1);
            for (int64_t step = 1 + 1000 * round; step < 1000 * (round + 1); step++) {
                fill((float)step);
                if (checkpoints_save(c, step, &all, fmt(a, "{\"step\":%lld}", (long long)step),
                                     step % 3 == 0))
                    _exit(1);
                (void)!write(pipe_[1], "x", 1);
            }
            _exit(0);
        }
        char one;
        close(pipe_[1]);
        for (int i = 0; i < 4; i++)
            CHECK(read(pipe_[0], &one, 1) == 1);
        usleep((useconds_t)round * 300);
        kill(child, SIGKILL);
        CHECK(waitpid(child, NULL, 0) == child);
        close(pipe_[0]);
        const char *path;
        struct str state;
        struct strs damaged = { 0 };
        CHECK_OK(checkpoint_find(a, dir, &path, &damaged));
        CHECK(damaged.n == 0);
        CHECK_OK(checkpoint_load(path, &all));
        CHECK_OK(checkpoint_state(a, path, &state));
        CHECK_STR(str_trim(state), fmt(a, "{\"step\":%lld}", (long long)w[0]));
        CHECK(w[0] > (float)(1000 * round) && m[3] == -w[3] && bias[0] == w[0] * 10);
    }
}
