/* schema's own: the path of the value at hand, and what reading and writing share. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "schema/schema.h"

enum { DEPTH_MAX = 64, KEY_MAX = 128, TEXT_MAX = 4096, ITEMS_MAX = 1000, JSON_MAX = 1 << 20 };

/* Where a value stands: a chain from the innermost step out, made into text only for an error. */
struct at {
    const struct at *up;
    struct str key;            /* a key as it came, or the prefix given by the caller, or */
    const struct field *field; /* a known field, or */
    int64_t index;             /* an item of a list; -1: none */
};
#define AT_ROOT(path) ((struct at){ .key = (path), .index = -1 })
#define AT_FIELD(up_, f) ((struct at){ .up = (up_), .field = (f), .index = -1 })
#define AT_KEY(up_, k) ((struct at){ .up = (up_), .key = (k), .index = -1 })
#define AT_ITEM(up_, i) ((struct at){ .up = (up_), .index = (int64_t)(i) })

/* "spec.rules[2].max: what is wrong", with the path as the error's field. */
__attribute__((format(printf, 3, 4))) err at_fail(const struct at *at, enum err_code, const char *f, ...);
/* The first bytes of a text for a message, cut between characters. */
struct str clip(struct arena *a, struct str s);

/* One row per field type. */
struct type_info {
    const char *name; /* in the reference: "duration" */
    const char *want; /* in a message: "... is not a duration, as in 30s or 1h30m" */
    size_t size;      /* of the C value; 0: .sub's */
};
extern const struct type_info type_table[];

size_t field_size(const struct field *f);
int64_t len_max_of(const struct field *f);
bool has_max(const struct field *f);
/* The JSON key: f->name itself, or made in tmp. */
struct str key_of(const struct field *f, char tmp[KEY_MAX]);
bool key_is(const struct field *f, struct str json_key);
/* A number of f's unit as people write it. */
struct str number_text(struct arena *a, const struct field *f, double v);

/* The document of text, owned by the caller: well-formed, depth ≤ DEPTH_MAX, no duplicate keys. */
err json_doc(struct str text, yyjson_doc **out);
/* The default of f alone at dst (the value, not the object). */
void default_set(const struct field *f, struct arena *a, void *dst);
err value_set_text(const struct field *f, struct arena *a, const struct at *at, struct str text, void *dst);

bool value_same(const struct field *f, const void *x, const void *y);
/* Not given: "", NaN, time 0. */
bool value_empty(const struct field *f, const void *v);
bool value_is_default(const struct field *f, struct arena *a, const void *v);
void value_write(const struct field *f, struct json *j, const void *v, unsigned flags);
