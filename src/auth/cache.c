// SPDX-License-Identifier: Apache-2.0
/* cache: live tokens by the SHA-256 of their text, in one immutable table. A check takes a read lock of
 * its core's stripe, which only a reload ever contends with, and costs no SQL. */
#include "auth/internal.h"
#include <openssl/crypto.h>
#include <sched.h>
#include <stdlib.h>

// clang-format off
#define CACHE_SQL(Q)                                                                                    \
    Q(live, "select id, name, project, roles, scopes, hash, expires, last_used from token"              \
            " where revoked = 0 and expires > ?1 order by id")                                          \
    Q(used, "update token set last_used = ?2 where id = ?1 and last_used < ?2")
// clang-format on
SQL_TABLE(cache, CACHE_SQL);

static const int64_t MINUTE_US = 60000000;

void cache_init(struct cache *c)
{
    for (int i = 0; i < STRIPES; i++)
        pthread_rwlock_init(&c->stripes[i].lock, NULL);
    pthread_mutex_init(&c->reload, NULL);
    c->table = NULL;
}

static void table_free(struct token_table *t)
{
    if (t)
        arena_free(t->a); /* t itself lives there */
}

void cache_done(struct cache *c)
{
    table_free(c->table);
    for (int i = 0; i < STRIPES; i++)
        pthread_rwlock_destroy(&c->stripes[i].lock);
    pthread_mutex_destroy(&c->reload);
}

static uint64_t hash_head(const uint8_t *hash)
{
    uint64_t head;
    memcpy(&head, hash, sizeof head);
    return head;
}

static struct cached *table_find(const struct token_table *t, const uint8_t *hash)
{
    if (!t || t->slots_n == 0)
        return NULL;
    for (size_t i = hash_head(hash) & (t->slots_n - 1); t->slots[i]; i = (i + 1) & (t->slots_n - 1)) {
        struct cached *c = &t->list[t->slots[i] - 1];
        if (CRYPTO_memcmp(c->hash, hash, HASH_BYTES) == 0)
            return c;
    }
    return NULL;
}

static void table_index(struct token_table *t)
{
    t->slots_n = 16;
    while (t->slots_n < t->n * 2)
        t->slots_n *= 2;
    t->slots = NEW_N(t->a, uint32_t, t->slots_n);
    for (size_t n = 0; n < t->n; n++) {
        size_t i = hash_head(t->list[n].hash) & (t->slots_n - 1);
        while (t->slots[i])
            i = (i + 1) & (t->slots_n - 1);
        t->slots[i] = (uint32_t)n + 1;
    }
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool hash_parse(struct str text, uint8_t out[HASH_BYTES])
{
    if (text.n != HASH_HEX)
        return false;
    for (int i = 0; i < HASH_BYTES; i++) {
        int hi = digit(text.p[2 * i]), lo = digit(text.p[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

struct filling {
    struct token_table *t;
    size_t cap;
};

static err on_token(void *arg, const struct row *row)
{
    struct filling *f = arg;
    struct token_table *t = f->t;
    if (t->n == f->cap)
        FAIL(LIMIT, "there are more than %d tokens", TOKENS_MAX);
    struct cached *c = &t->list[t->n];
    if (!hash_parse(row_str(row, 5), c->hash))
        FAIL(INTERNAL, "the hash of token %.*s is damaged", STR(row_str(row, 0)));
    c->who = (struct principal){
        .token_id = str_dup(t->a, row_str(row, 0)),
        .name = str_dup(t->a, row_str(row, 1)),
        .project = str_dup(t->a, row_str(row, 2)),
        .roles = (uint32_t)row_i64(row, 3),
        .expires = row_i64(row, 6),
    };
    struct str scopes = str_dup(t->a, row_str(row, 4));
    for (struct str s; str_cut(&scopes, ' ', &s);)
        push(t->a, &c->who.scopes, s);
    atomic_init(&c->used, row_i64(row, 7));
    atomic_init(&c->used_saved, row_i64(row, 7));
    t->n++;
    return NULL;
}

/* What was seen since last_used was written last. */
static void keep_used(struct token_table *to, const struct token_table *from)
{
    for (size_t i = 0; i < to->n; i++) {
        const struct cached *old = table_find(from, to->list[i].hash);
        if (old && atomic_load(&old->used) > atomic_load(&to->list[i].used))
            atomic_store(&to->list[i].used, atomic_load(&old->used));
    }
}

static void cache_swap(struct cache *c, struct token_table *t)
{
    for (int i = 0; i < STRIPES; i++)
        pthread_rwlock_wrlock(&c->stripes[i].lock);
    struct token_table *old = c->table;
    if (old)
        keep_used(t, old);
    c->table = t;
    atomic_fetch_add(&c->version, 1);
    for (int i = STRIPES; i-- > 0;)
        pthread_rwlock_unlock(&c->stripes[i].lock);
    table_free(old);
}

err cache_reload(struct cache *c, struct store *store)
{
    LOCKED(&c->reload);
    struct arena *a = arena_new(0);
    struct token_table *t = NEW(a, struct token_table);
    t->a = a;
    t->list = NEW_N(a, struct cached, TOKENS_MAX);
    struct filling f = { .t = t, .cap = TOKENS_MAX };
    err e = store_query(store, cache_sql.live, BIND(B_I(now_us())), on_token, &f);
    if (e) {
        arena_free(a);
        return err_wrap(e, "reading tokens");
    }
    table_index(t);
    cache_swap(c, t);
    return NULL;
}

struct principal principal_dup(struct arena *a, const struct principal *p)
{
    struct principal d = *p;
    d.name = str_dup(a, p->name);
    d.token_id = str_dup(a, p->token_id);
    d.project = str_dup(a, p->project);
    d.scopes = (struct strs){ 0 };
    for (size_t i = 0; i < p->scopes.n; i++)
        push(a, &d.scopes, str_dup(a, p->scopes.v[i]));
    return d;
}

static pthread_rwlock_t *stripe(struct cache *c)
{
    int core = sched_getcpu();
    return &c->stripes[core < 0 ? 0 : core % STRIPES].lock;
}

/* A connection asks with one token again and again: its hash is the one of the thread's last token. */
static void token_hash(struct str token, uint8_t out[HASH_BYTES])
{
    static _Thread_local struct {
        size_t n;
        char text[TOKEN_TEXT_MAX];
        uint8_t hash[HASH_BYTES];
    } last;
    if (token.n != last.n || CRYPTO_memcmp(token.p, last.text, token.n) != 0) {
        sha256(token, last.hash);
        memcpy(last.text, token.p, token.n);
        last.n = token.n;
    }
    memcpy(out, last.hash, HASH_BYTES);
}

bool cache_holds(struct cache *c, const struct found *f)
{
    int64_t now = now_us_about();
    return atomic_load(&c->version) == f->version && now < f->who.expires && now - f->at <= MINUTE_US;
}

err cache_find(struct cache *c, struct arena *a, struct str token, struct found *out)
{
    uint8_t hash[HASH_BYTES];
    int64_t now = now_us(), expires = 0;
    if (token.n > TOKEN_TEXT_MAX)
        FAIL(UNAUTHORIZED, "the token is not known here");
    token_hash(token, hash);
    pthread_rwlock_t *lock = stripe(c);
    pthread_rwlock_rdlock(lock);
    struct cached *found = table_find(c->table, hash);
    if (found) {
        expires = found->who.expires;
        *out = (struct found){ principal_dup(a, &found->who), now, atomic_load(&c->version) };
        if (now - atomic_load_explicit(&found->used, memory_order_relaxed) > MINUTE_US)
            atomic_store_explicit(&found->used, now, memory_order_relaxed);
    }
    pthread_rwlock_unlock(lock);
    if (!found)
        FAIL(UNAUTHORIZED, "the token is not known here");
    if (now >= expires)
        FAIL(UNAUTHORIZED, "the token has expired");
    return NULL;
}

/* ---- last_used ---- */

struct use {
    struct str id;
    int64_t at;
};
struct uses {
    struct arena *a;
    VEC(struct use) list;
};

static void uses_collect(struct cache *c, struct uses *out)
{
    pthread_rwlock_t *lock = stripe(c);
    pthread_rwlock_rdlock(lock);
    for (size_t i = 0; c->table && i < c->table->n; i++) {
        struct cached *t = &c->table->list[i];
        int64_t used = atomic_load(&t->used);
        if (used > atomic_load(&t->used_saved)) {
            push(out->a, &out->list, (struct use){ str_dup(out->a, t->who.token_id), used });
            atomic_store(&t->used_saved, used);
        }
    }
    pthread_rwlock_unlock(lock);
}

static err uses_write(struct tx *tx, void *arg)
{
    const struct uses *u = arg;
    for (size_t i = 0; i < u->list.n; i++)
        TRY(tx_exec(tx, cache_sql.used, BIND(B_S(u->list.v[i].id), B_I(u->list.v[i].at)), NULL));
    return NULL;
}

err cache_save_used(struct cache *c, struct store *store)
{
    auto_arena struct arena *a = arena_new(0);
    struct uses u = { .a = a };
    uses_collect(c, &u);
    return u.list.n ? store_write(store, uses_write, &u) : NULL;
}
