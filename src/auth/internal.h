/* auth/internal: what the files of this module share.
 * Flow     tokens.c --cache_reload--> cache.c <--cache_find-- before.c --refuse--> queue --keeper--> audit.c. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "auth/auth.h"
#include <pthread.h>
#include <stdatomic.h>

enum {
    HASH_BYTES = 32,
    HASH_HEX = 64,
    TOKEN_TEXT_MAX = 128,   /* longer bearer texts are not looked at */
    TOKENS_MAX = 10000,     /* of one store, revoked ones included */
    SCOPES_MAX = 64,        /* of one token */
    STRIPES = 16,           /* locks of the cache: readers on different cores do not meet */
    REFUSED_MAX = 256,      /* refusals waiting to be written; beyond they are counted only */
    PEERS = 256,            /* buckets for the rate of refusals that are written */
    REFUSED_BURST = 20,     /* of one peer at once */
    REFUSED_PER_S = 2,      /* of one peer after that */
    REFUSED_ALL_PER_S = 20, /* of all peers together */
    AUDIT_LIST_MAX = 1000,
    KEEPER_MS = 250,      /* longest time until a refusal is written */
    SAVE_USED_MS = 60000, /* how often last_used is written */
};
#define TOKEN_LIFE_MAX_US (366ll * 86400 * 1000000) /* a year, leap years included */
#define TOKEN_LIFE_US (90ll * 86400 * 1000000)      /* when none is asked for */

/* Statements of one file, as in store. */
#define SQL_MEMBER(name, text) const char *name;
#define SQL_VALUE(name, text) .name = text,
#define SQL_TABLE(module, LIST) \
    static const struct {       \
        LIST(SQL_MEMBER)        \
    } module##_sql = { LIST(SQL_VALUE) }

/* A token in memory. Everything but the use is immutable. */
struct cached {
    uint8_t hash[HASH_BYTES];
    struct principal who;
    _Atomic int64_t used; /* µs, a minute's precision */
    _Atomic int64_t used_saved;
};
/* All live tokens; replaced as a whole. */
struct token_table {
    struct arena *a;
    struct cached *list;
    size_t n;
    uint32_t *slots; /* index into list + 1; 0: free */
    size_t slots_n;  /* a power of two */
};
struct cache {
    struct {
        _Alignas(64) pthread_rwlock_t lock;
    } stripes[STRIPES];
    struct token_table *table;
    _Atomic uint64_t version; /* of the table */
    pthread_mutex_t reload;   /* one reload at a time */
};
void cache_init(struct cache *);
void cache_done(struct cache *);
/* Reads the live tokens and swaps them in. */
err cache_reload(struct cache *, struct store *);
/* The principal of a token's text, copied into a. UNAUTHORIZED. */
struct found {
    struct principal who;
    int64_t at;       /* µs: when it was looked for */
    uint64_t version; /* of the table that has it */
};
err cache_find(struct cache *, struct arena *a, struct str token, struct found *out);
/* Would looking again find the same? A use is noted every minute, which only a look does. */
bool cache_holds(struct cache *, const struct found *);
struct principal principal_dup(struct arena *a, const struct principal *);
/* Writes last_used of tokens used since the last time. */
err cache_save_used(struct cache *, struct store *);

/* A refusal on its way to the audit log. */
struct refusal {
    char who[72], peer[64], method[12], path[256], permission[64], project[72], id[64];
    enum err_code code;
};
struct bucket {
    uint64_t peer;
    int64_t at_ns;
    double left;
};
struct refusals {
    pthread_mutex_t m;
    struct refusal v[REFUSED_MAX];
    size_t n;
    int64_t uncounted; /* not written since the last one that was */
    struct bucket peers[PEERS], all;
};
struct auth {
    struct store *store;
    struct cache cache;
    struct refusals refused;
    pthread_t keeper;
    int64_t seen; /* the cache knows of events up to here; the keeper's, once it runs */
    bool keeper_runs;
    _Atomic bool stop;
};
void refusals_init(struct refusals *);
void refusals_done(struct refusals *);
/* Queues a record of the refusal, if its peer's rate allows one; never blocks on the store. */
void refuse(struct auth *, const struct req *, const struct principal *, enum err_code);
/* Writes what is queued. */
err refusals_write(struct auth *);

err audit_tables(struct store *);
err token_tables(struct store *);

/* The roles that hold a permission: a bit each; 0: no such verb. */
uint32_t permission_roles(struct str permission);
/* "editor, admin" */
struct str roles_text(struct arena *a, uint32_t roles);
bool scope_ok(struct str scope);
bool scope_covers(struct str scope, struct str permission);
bool token_needs_no_scope(struct str permission);
err no_project(struct str name);
