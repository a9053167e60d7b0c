/* recent: keyed rows in memory in the order of their keys, older states of a row kept beside the newest: what was
 * written lately and is not in the backend yet.
 * Form     a skip list; states of one key stand together, newest first.
 * Threads  one writer (its caller's lock), any number of readers at the same time without a lock.
 * Owns     copies of keys and values, until the last reference is given back. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "store/store.h"
#include <stdatomic.h>

#define RECENT_LEVELS 16

struct recent_row {
    int64_t version;
    uint64_t seq; /* of the write that made it: a reader of an older state passes it over */
    struct str key, value;
    bool removed;
    int levels;
    struct recent_row *_Atomic next[];
};

struct recent {
    struct arena *a;
    struct recent_row *head;
    int levels;
    uint64_t dice;
    size_t rows, bytes;
    _Atomic bool any;
    int refs; /* under the caller's lock */
};

struct recent *recent_new(void);
void recent_free(struct recent *); /* NULL is fine */
/* Adds a state of a row; readers of a seq before this one do not see it. */
struct recent_row *recent_put(struct recent *, const struct kv_item *, uint64_t seq);
/* The first row whose key is key or after it, whatever its seq; NULL: none. */
struct recent_row *recent_from(const struct recent *, struct str key);
/* The state of key as of seq, which may be a removal; NULL: none is known here. */
struct recent_row *recent_get(const struct recent *, struct str key, uint64_t seq);
/* The state, as of seq, of the first key at row or after it. */
struct recent_row *recent_seen(struct recent_row *row, uint64_t seq);
/* The first row of the next key. */
struct recent_row *recent_next(struct recent_row *row);
