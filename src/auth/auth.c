// SPDX-License-Identifier: Apache-2.0
/* auth: life of the module. One thread, the keeper, refreshes the cache when the event log tells of
 * tokens, writes refusals, and writes when tokens were last used. */
#include "auth/internal.h"
#include <stdlib.h>
#include <unistd.h>

static err cache_follow(struct auth *auth, struct arena *a)
{
    int64_t last = event_wait(auth->store, auth->seen, KEEPER_MS);
    if (last == auth->seen)
        return NULL;
    struct events news;
    TRY(event_list(auth->store, a, auth->seen, S("Token"), S(""), S(""), 1, &news));
    if (news.n)
        TRY(cache_reload(&auth->cache, auth->store));
    auth->seen = last;
    return NULL;
}

/* A failure here is met again by the next write of a request, which reports it. */
static void *keeper(void *arg)
{
    struct auth *auth = arg;
    auto_arena struct arena *a = arena_new(0);
    int64_t saved_ns = mono_ns();
    while (!atomic_load(&auth->stop)) {
        if (cache_follow(auth, a))
            usleep(KEEPER_MS * 1000); /* the same again, but not in a hurry */
        (void)refusals_write(auth);
        if (mono_ns() - saved_ns > SAVE_USED_MS * 1000000ll) {
            (void)cache_save_used(&auth->cache, auth->store);
            saved_ns = mono_ns();
        }
        arena_reset(a);
        err_reset();
    }
    return NULL;
}

static err auth_start(struct auth *auth)
{
    TRY(audit_tables(auth->store));
    TRY(token_tables(auth->store));
    auth->seen = event_last(auth->store); /* before the tokens are read */
    TRY(cache_reload(&auth->cache, auth->store));
    TRY(thread_start("auth", keeper, auth, &auth->keeper));
    auth->keeper_runs = true;
    return NULL;
}

err auth_open(struct store *store, struct auth **out)
{
    struct auth *auth = aligned_alloc(64, (sizeof *auth + 63) / 64 * 64);
    if (!auth)
        abort();
    memset(auth, 0, sizeof *auth);
    auth->store = store;
    cache_init(&auth->cache);
    refusals_init(&auth->refused);
    err e = auth_start(auth);
    if (e) {
        auth_close(auth);
        return err_wrap(e, "starting auth");
    }
    *out = auth;
    return NULL;
}

void auth_close(struct auth *auth)
{
    if (!auth)
        return;
    if (auth->keeper_runs) {
        atomic_store(&auth->stop, true);
        store_wake(auth->store);
        pthread_join(auth->keeper, NULL);
        (void)refusals_write(auth);
        (void)cache_save_used(&auth->cache, auth->store);
    }
    refusals_done(&auth->refused);
    cache_done(&auth->cache);
    free(auth);
}
