/* serve/json_in: JSON as it stands in a body, read by a cursor; no document is made of it.
 * Use      the reader goes down the object by tables of members, one function a key. Each function leaves the cursor
 *          behind its value. Texts are views of the body where they have no escapes.
 * Strict   RFC 8259: no key twice, no comma too many, no control character, whole UTF-8, nothing after the end; nothing
 *          here recurses by depth, and json_in_skip() goes JSON_IN_DEPTH deep.
 * Errors   INVALID, with the byte where it happened. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "schema/schema.h"

enum { JSON_IN_DEPTH = 100 };

struct json_in {
    struct arena *a;
    const char *start, *p, *end;
};
static inline struct json_in json_in_new(struct arena *a, struct str text)
{
    return (struct json_in){ a, text.p, text.p, text.p + text.n };
}
/* What is wrong, and where. */
err json_in_wrong(const struct json_in *, const char *what);
/* Passes blanks; the byte there, 0 at the end. */
char json_in_peek(struct json_in *);
/* Only blanks are left. */
err json_in_end(struct json_in *);

/* An object by its members: rows as far as a key; read(self, in) takes the value. `other`, for keys of no row, may be
 * NULL: then they are refused. seen: bits of the rows that came. */
struct member {
    struct str key;
    err (*read)(void *self, struct json_in *);
};
enum { MEMBERS_MAX = 32 };
err json_in_object(struct json_in *, struct str what, const struct member *, size_t n, void *self,
                   err (*other)(void *self, struct json_in *, struct str key), uint32_t *seen);
/* An array, item by item; NULL is called for no item. */
err json_in_array(struct json_in *, struct str what, err (*item)(void *self, struct json_in *, size_t i),
                  void *self, size_t *n);

err json_in_text(struct json_in *, struct str *out);
/* A text, number, boolean or null. */
enum scalar_kind { SCALAR_NULL, SCALAR_BOOL, SCALAR_NUMBER, SCALAR_TEXT };
struct scalar {
    enum scalar_kind kind;
    bool yes;        /* BOOL */
    struct str text; /* TEXT; NUMBER: as it came */
};
err json_in_scalar(struct json_in *, struct scalar *out);
/* Is it a whole number, written without point and exponent? */
bool scalar_is_whole(const struct scalar *);
/* Passes any value: its brackets and texts are whole, but what is between them is not looked at. */
err json_in_skip(struct json_in *, struct str *out);
/* Passes a member that nobody knows: any value that is JSON. For json_in_object's `other`. */
err json_in_pass(void *self, struct json_in *, struct str key);
/* A value as a document, for who reads one. */
err json_in_tree(struct json_in *, yyjson_val **out);
