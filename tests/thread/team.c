/* A team runs functions on all ranks, meets at barriers, and sums in one order; many short runs, so that ranks both spin and
 * sleep. */
// SPDX-License-Identifier: Apache-2.0
#undef NDEBUG
#include "engine/team.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

enum { SIZE = 4, RUNS = 300, FLOATS = 1000 };
struct shared {
    struct team *team;
    int ranks;
    int64_t plain[SIZE]; /* each rank writes its own; all read after the barrier */
    double sums[SIZE];
    float floats[SIZE][FLOATS], scratch[SIZE][FLOATS];
};

static void work(void *arg, int index)
{
    struct shared *s = arg;
    struct rank r = { .team = s->team, .index = index, .size = s->ranks };
    s->plain[index]++;
    team_barrier(&r);
    for (int i = 1; i < s->ranks; i++)
        assert(s->plain[i] == s->plain[0]);
    team_barrier(&r);
    double v[2] = { index + 1, 0.1 * index };
    team_sum(&r, v, 2);
    assert(v[0] == s->ranks * (s->ranks + 1) / 2);
    s->sums[index] = v[1];
    for (int i = 0; i < FLOATS; i++)
        s->floats[index][i] = (float)(index + i);
    team_sum_f32(&r, s->floats[index], FLOATS, s->scratch[index]);
    for (int i = 0; i < FLOATS; i++)
        assert(s->floats[index][i] == (float)(s->ranks * i + s->ranks * (s->ranks - 1) / 2));
}

int main(void)
{
    struct shared *s = calloc(1, sizeof *s);
    assert(!team_new(SIZE, &s->team) && team_size(s->team) == SIZE);
    for (int i = 0; i < RUNS; i++) {
        s->ranks = 1 + i % SIZE;
        memset(s->plain, 0, sizeof s->plain);
        team_run(s->team, s->ranks, work, s);
        for (int k = 1; k < s->ranks; k++)
            assert(s->sums[k] == s->sums[0]); /* equal bits */
        if (i % 50 == 0)
            usleep(2000); /* long enough for the others to sleep */
    }
    team_free(s->team);
    free(s);
    return 0;
}
