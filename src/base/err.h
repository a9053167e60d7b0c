/* err: why something failed; NULL is success.
 * Owns     errors live in the calling thread's error arena until err_reset(); nobody frees one.
 * Threads  an error belongs to the thread that made it; err_copy() takes it to another.
 * Layers   each adds what it was doing (TRY_AS); logged once, at the top. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/str.h"

// clang-format off
#define ERRORS(E) /* name, HTTP, exit code, meaning */                                  \
    E(INVALID,      400, 2, "the request breaks a rule")                                \
    E(UNAUTHORIZED, 401, 4, "no valid token came with the request")                     \
    E(FORBIDDEN,    403, 4, "the token may not do this")                                \
    E(NOT_FOUND,    404, 1, "there is no such thing")                                   \
    E(METHOD,       405, 2, "the path exists, the method does not")                     \
    E(CONFLICT,     409, 5, "it changed under you, or exists already")                  \
    E(TOO_LARGE,    413, 2, "the body or a part of it is over its limit")               \
    E(MEDIA,        415, 2, "the content type is not understood here")                  \
    E(GATE,         422, 3, "a gate refused it")                                        \
    E(LIMIT,        429, 1, "a limit was reached; try again later")                     \
    E(BUSY,         429, 1, "as much waits already as may; try again soon")             \
    E(CANCELLED,    499, 1, "it was cancelled")                                         \
    E(INTERNAL,     500, 1, "a bug or a broken machine")                                \
    E(UNSUPPORTED,  501, 1, "this build or machine cannot do it")                       \
    E(UNAVAILABLE,  503, 1, "a part it needs is not there (yet)")                       \
    E(TIMEOUT,      504, 1, "it took longer than allowed")                              \
    E(FULL,         507, 1, "the disk is full")
// clang-format on

#define E(name, http, exit, doc) name,
enum err_code { ERR_NONE, ERRORS(E) ERR_COUNT };
#undef E

struct err {
    enum err_code code;
    struct str text;  /* what happened, then ": why" from the layer below */
    struct str hint;  /* what to do about it; may be empty */
    struct str field; /* path of the field at fault, "spec.rules[2].max"; may be empty */
};
typedef const struct err *err;

struct err_info {
    struct str name; /* "INVALID" */
    int http, exit;
    struct str doc;
};
extern const struct err_info err_table[ERR_COUNT];

__attribute__((format(printf, 2, 3), returns_nonnull)) err err_new(enum err_code, const char *f, ...);
/* The same code and hint, "what: " before its text. */
__attribute__((format(printf, 2, 3))) err err_wrap(err, const char *f, ...);
__attribute__((format(printf, 2, 3))) err err_hint(err, const char *f, ...);
err err_field(err, struct str path);
/* A copy in a, for another thread. */
err err_copy(err, struct arena *a);
/* Frees the thread's errors; the loop that runs jobs calls it between two jobs. */
void err_reset(void);
/* "what failed: No space left on device" with FULL for ENOSPC/EDQUOT, NOT_FOUND for ENOENT, TIMEOUT for
 * ETIMEDOUT, INTERNAL for the rest. */
__attribute__((format(printf, 2, 3), returns_nonnull)) err err_errno(int errno_, const char *f, ...);

#define FAIL(code, ...) return err_new(code, __VA_ARGS__)
#define TRY(call)        \
    do {                 \
        err e_ = (call); \
        if (e_)          \
            return e_;   \
    } while (0)
#define TRY_AS(call, ...)                     \
    do {                                      \
        err e_ = (call);                      \
        if (e_)                               \
            return err_wrap(e_, __VA_ARGS__); \
    } while (0)
