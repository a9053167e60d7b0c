// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"

#include <errno.h>
#include <pthread.h>

// clang-format off
#define E(code, status, exit_code, what) \
    [code] = { .name = S_INIT(#code), .http = status, .exit = exit_code, .doc = S_INIT(what) },
const struct err_info err_table[ERR_COUNT] = {
    [ERR_NONE] = { .name = S_INIT("OK"), .http = 200, .exit = 0, .doc = S_INIT("it worked") },
    ERRORS(E)
};
#undef E
// clang-format on

enum { TEXT_MAX = 4096 }; /* an error may quote what a stranger sent */

static _Thread_local struct arena *errors;
static pthread_key_t at_thread_end;
static pthread_once_t key_made = PTHREAD_ONCE_INIT;

static void errors_free(void *a)
{
    arena_free(a);
    errors = NULL;
}

static void key_make(void)
{
    pthread_key_create(&at_thread_end, errors_free);
}

static struct arena *errors_get(void)
{
    if (!errors) {
        errors = arena_new(0);
        pthread_once(&key_made, key_make);
        pthread_setspecific(at_thread_end, errors);
    }
    return errors;
}

void err_reset(void)
{
    if (errors)
        arena_reset(errors);
}

static struct str shorten(struct str s)
{
    if (s.n <= TEXT_MAX)
        return s;
    size_t n = TEXT_MAX;
    while (n && (s.p[n] & 0xc0) == 0x80) /* not inside a character */
        n--;
    return str_sub(s, 0, n);
}

static err err_put(struct err e)
{
    struct err *copy = NEW(errors_get(), struct err);
    *copy = e;
    copy->text = shorten(e.text);
    copy->hint = shorten(e.hint);
    return copy;
}

err err_new(enum err_code code, const char *f, ...)
{
    va_list ap;
    va_start(ap, f);
    struct str text = vfmt(errors_get(), f, ap);
    va_end(ap);
    return err_put((struct err){ .code = code, .text = text });
}

err err_wrap(err e, const char *f, ...)
{
    if (!e)
        return NULL;
    va_list ap;
    va_start(ap, f);
    struct str what = vfmt(errors_get(), f, ap);
    va_end(ap);
    struct err outer = *e;
    outer.text = fmt(errors_get(), "%.*s: %.*s", STR(what), STR(e->text));
    return err_put(outer);
}

err err_hint(err e, const char *f, ...)
{
    if (!e)
        return NULL;
    struct err hinted = *e;
    va_list ap;
    va_start(ap, f);
    hinted.hint = vfmt(errors_get(), f, ap);
    va_end(ap);
    return err_put(hinted);
}

err err_field(err e, struct str path)
{
    if (!e)
        return NULL;
    struct err at = *e;
    at.field = str_dup(errors_get(), path);
    return err_put(at);
}

err err_copy(err e, struct arena *a)
{
    if (!e)
        return NULL;
    struct err *copy = NEW(a, struct err);
    *copy = (struct err){ e->code, str_dup(a, e->text), str_dup(a, e->hint), str_dup(a, e->field) };
    return copy;
}

static enum err_code code_of(int errno_)
{
    switch (errno_) {
    case ENOSPC:
    case EDQUOT:
        return FULL;
    case ENOENT:
        return NOT_FOUND;
    case ETIMEDOUT:
        return TIMEOUT;
    default:
        return INTERNAL;
    }
}

err err_errno(int errno_, const char *f, ...)
{
    va_list ap;
    va_start(ap, f);
    struct str what = vfmt(errors_get(), f, ap);
    va_end(ap);
    return err_new(code_of(errno_), "%.*s: %s", STR(what), strerror(errno_));
}
