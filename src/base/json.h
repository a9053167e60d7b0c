/* json: a writer of JSON text into a buffer, used wherever a reply or a record is built by hand.
 * Reading is yyjson's, through `schema`. Commas and nesting are the writer's business; numbers are
 * written so that they read back bit for bit (NaN and infinities as null). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/str.h"

struct json {
    struct buf b;
    bool comma; /* a value stands before the next one */
};
struct json json_new(struct arena *a);
void json_obj(struct json *j);
void json_obj_end(struct json *j);
void json_arr(struct json *j);
void json_arr_end(struct json *j);
void json_key(struct json *j, struct str key);
void json_str(struct json *j, struct str s);
void json_i64(struct json *j, int64_t v);
void json_f64(struct json *j, double v);
void json_bool(struct json *j, bool v);
void json_null(struct json *j);
/* Text that is JSON already. */
void json_raw(struct json *j, struct str text);
struct str json_get(const struct json *j);
/* What yyjson read, as text; empty if it is none, or not there. It lives as long as the document. */
struct yyjson_val;
struct str json_text(const struct yyjson_val *);
/* Of a member of an object. */
struct str json_text_in(const struct yyjson_val *object, const char *key);
/* key and value at once. */
void json_kstr(struct json *j, const char *key, struct str s);
void json_ki64(struct json *j, const char *key, int64_t v);
void json_kf64(struct json *j, const char *key, double v);
void json_kbool(struct json *j, const char *key, bool v);
void json_kraw(struct json *j, const char *key, struct str text);
/* The shortest text that reads back as v. At most 32 bytes; returns its length. */
size_t f64_text(double v, char out[32]);
