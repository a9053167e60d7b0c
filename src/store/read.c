// SPDX-License-Identifier: Apache-2.0
/* read: queries on a pool of read-only connections, each of which sees one snapshot. */
#include "store/internal.h"

void pool_init(struct pool *p)
{
    pthread_mutex_init(&p->m, NULL);
    pthread_cond_init(&p->freed, NULL);
}

void pool_done(struct pool *p)
{
    while (p->idle_n) {
        struct meta_conn *c = p->idle[--p->idle_n];
        c->ops->close(c);
    }
    pthread_cond_destroy(&p->freed);
    pthread_mutex_destroy(&p->m);
}

/* A free connection, or NULL and the right to open one. */
static struct meta_conn *pool_free_one(struct pool *p)
{
    LOCKED(&p->m);
    while (p->idle_n == 0 && p->open_n == POOL_MAX)
        pthread_cond_wait(&p->freed, &p->m);
    if (p->idle_n)
        return p->idle[--p->idle_n];
    p->open_n++;
    return NULL;
}

err pool_take(struct store *s, struct meta_conn **out)
{
    *out = pool_free_one(&s->pool);
    if (*out)
        return NULL;
    err e = s->meta->open(s->meta_where, false, out);
    if (e) {
        LOCKED(&s->pool.m);
        s->pool.open_n--;
        pthread_cond_signal(&s->pool.freed);
    }
    return e;
}

void pool_give(struct store *s, struct meta_conn *c)
{
    LOCKED(&s->pool.m);
    s->pool.idle[s->pool.idle_n++] = c;
    pthread_cond_signal(&s->pool.freed);
}

static err run_pooled(struct store *s, struct query *q, err (*run)(struct meta_conn *, struct query *))
{
    struct meta_conn *c;
    TRY(pool_take(s, &c));
    err e = run(c, q);
    pool_give(s, c);
    return e;
}

err store_query(struct store *s, const char *sql, const struct bind *b, size_t n,
                err (*on_row)(void *arg, const struct row *), void *arg)
{
    struct query q = { .sql = sql, .bind = b, .bind_n = n, .on_row = on_row, .arg = arg };
    return run_pooled(s, &q, meta_run);
}

err store_one(struct store *s, const char *sql, const struct bind *b, size_t n,
              err (*on_row)(void *arg, const struct row *), void *arg)
{
    struct query q = { .sql = sql, .bind = b, .bind_n = n, .on_row = on_row, .arg = arg };
    return run_pooled(s, &q, meta_one);
}
