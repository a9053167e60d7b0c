// SPDX-License-Identifier: Apache-2.0
/* event: the append-only log, and how readers learn of news. Seqs are given by the writer thread, one
 * after the other, and taken back with the closure that fails: readers see no holes. */
#include "store/internal.h"
#include <errno.h>
#include <time.h>

#define EVENT_COLUMNS "seq, time, type, kind, project, name, who, data"
// clang-format off
#define EVENT_SQL(Q)                                                                                          \
    Q(append, "insert into event(" EVENT_COLUMNS ") values(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")                  \
    Q(newest, "select seq, time from event order by seq desc limit 1")                                        \
    Q(of_one, "select " EVENT_COLUMNS " from event where seq > ?1 and kind = ?2 and project = ?3"             \
              " and name = ?4 order by seq limit ?5")                                                         \
    Q(list,   "select " EVENT_COLUMNS " from event where seq > ?1 and (?2 = '' or kind = ?2)"                 \
              " and (?3 = '' or project = ?3) and (?4 = '' or name = ?4) order by seq limit ?5")
// clang-format on
SQL_TABLE(event, EVENT_SQL);

enum { POLL_MS = 100 }; /* a read-only store has no writer to wake it */

err event_append(struct tx *tx, const struct event *e, int64_t *seq)
{
    int64_t next = tx->seq + 1;
    struct str data = e->data.n ? e->data : S("{}");
    TRY_AS(tx_exec(tx, event_sql.append,
                   BIND(B_I(next), B_I(tx->now), B_S(e->type), B_S(e->kind), B_S(e->project), B_S(e->name),
                        B_S(e->who), B_S(data)),
                   NULL),
           "appending the event '%.*s'", STR(e->type));
    tx->seq = next;
    tx->time = tx->now;
    if (seq)
        *seq = next;
    return NULL;
}

struct listing {
    struct arena *a;
    struct events *out;
};

static err on_event(void *arg, const struct row *r)
{
    struct listing *l = arg;
    push(l->a, l->out,
         (struct event){
             .seq = row_i64(r, 0),
             .time = row_i64(r, 1),
             .type = str_dup(l->a, row_str(r, 2)),
             .kind = str_dup(l->a, row_str(r, 3)),
             .project = str_dup(l->a, row_str(r, 4)),
             .name = str_dup(l->a, row_str(r, 5)),
             .who = str_dup(l->a, row_str(r, 6)),
             .data = str_dup(l->a, row_str(r, 7)),
         });
    return NULL;
}

err event_list(struct store *s, struct arena *a, int64_t after, struct str kind, struct str project,
               struct str name, size_t limit, struct events *out)
{
    struct events found = { 0 };
    struct listing l = { a, &found };
    const char *sql = kind.n && project.n && name.n ? event_sql.of_one : event_sql.list;
    int64_t n = limit < LIST_MAX ? (int64_t)limit : LIST_MAX;
    TRY(store_query(s, sql, BIND(B_I(after), B_S(kind), B_S(project), B_S(name), B_I(n)), on_event, &l));
    *out = found;
    return NULL;
}

static err on_newest(void *arg, const struct row *r)
{
    int64_t *newest = arg;
    newest[0] = row_i64(r, 0);
    newest[1] = row_i64(r, 1);
    return NULL;
}

err event_newest(struct meta_conn *c, int64_t *seq, int64_t *time)
{
    int64_t newest[2] = { 0 };
    struct query q = { .sql = event_sql.newest, .on_row = on_newest, .arg = newest };
    TRY(meta_run(c, &q));
    *seq = newest[0];
    *time = newest[1];
    return NULL;
}

/* ---- news ---- */

void pulse_init(struct pulse *p)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->beat, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&p->m, NULL);
}

void pulse_done(struct pulse *p)
{
    pthread_cond_destroy(&p->beat);
    pthread_mutex_destroy(&p->m);
}

void pulse_beat(struct pulse *p, int64_t last)
{
    pthread_mutex_lock(&p->m);
    atomic_store(&p->last, last);
    pthread_cond_broadcast(&p->beat);
    void (*fn)(void *, int64_t) = p->fn;
    void *arg = p->arg;
    pthread_mutex_unlock(&p->m);
    if (fn)
        fn(arg, last);
}

void store_on_commit(struct store *s, void (*fn)(void *arg, int64_t last_seq), void *arg)
{
    LOCKED(&s->pulse.m);
    s->pulse.fn = fn;
    s->pulse.arg = arg;
}

void store_wake(struct store *s)
{
    LOCKED(&s->pulse.m);
    s->pulse.wakes++;
    pthread_cond_broadcast(&s->pulse.beat);
}

int64_t event_last(struct store *s)
{
    if (!s->read_only)
        return atomic_load(&s->pulse.last);
    int64_t newest[2] = { 0 };
    err e = store_query(s, event_sql.newest, NO_BIND, on_newest, newest);
    return e ? 0 : newest[0];
}

static struct timespec moment(int64_t ns)
{
    return (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
}

/* One wait, at most until `ns` of the monotonic clock; false once it is over or woken. */
static bool pulse_wait(struct pulse *p, uint64_t wakes, int64_t ns)
{
    struct timespec until = moment(ns);
    return pthread_cond_timedwait(&p->beat, &p->m, &until) != ETIMEDOUT && p->wakes == wakes;
}

static int64_t event_poll(struct store *s, int64_t after, int64_t end_ns)
{
    struct pulse *p = &s->pulse;
    LOCKED(&p->m);
    uint64_t wakes = p->wakes;
    int64_t last;
    while ((last = event_last(s)) <= after && mono_ns() < end_ns && p->wakes == wakes) {
        int64_t next = mono_ns() + POLL_MS * 1000000ll;
        pulse_wait(p, wakes, next < end_ns ? next : end_ns);
    }
    return last;
}

int64_t event_wait(struct store *s, int64_t after, int64_t wait_ms)
{
    struct pulse *p = &s->pulse;
    int64_t wait = wait_ms < 0 ? 0 : wait_ms < 86400000 ? wait_ms : 86400000;
    int64_t end_ns = mono_ns() + wait * 1000000;
    if (s->read_only)
        return event_poll(s, after, end_ns);
    LOCKED(&p->m);
    uint64_t wakes = p->wakes;
    while (atomic_load(&p->last) <= after && pulse_wait(p, wakes, end_ns))
        ;
    return atomic_load(&p->last);
}
