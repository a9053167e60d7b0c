// SPDX-License-Identifier: Apache-2.0
#include "train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yyjson.h>

enum { STATE_MAX = 64 << 20, PIECE = 16 << 20 };
static const char *const files[] = { "params.safetensors", "optim.safetensors", "state.json" };
enum { FILES = sizeof files / sizeof *files };

/* What is to be written: the numbers one after the other, first those of params, then those of optim. */
struct snapshot {
    struct arena *a; /* of names, shapes, texts; emptied for each */
    int64_t step;
    bool best;
    struct safetensors tensors[2];
    struct str state;
    char *bytes; /* malloc, grows */
    size_t cap, used[2];
};
struct checkpoints {
    const char *dir;
    int keep;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool busy, ending; /* busy: snap is to be written */
    int64_t last;
    struct arena *a, *error_arena; /* the second: of the writer's error */
    err error;
    struct snapshot snap;
};

static size_t floats_of(const struct checkpoint_tensor *t)
{
    size_t n = 1;
    for (size_t i = 0; i < t->rank; i++)
        n *= (size_t)t->dims[i];
    return n;
}

/* ---- the writer ---- */

static err bytes_write(const char *path, struct str head, struct str body)
{
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(errno, "cannot create %s", path);
    struct str parts[] = { head, body };
    for (int i = 0; i < 2; i++)
        for (struct str rest = parts[i]; rest.n;) {
            ssize_t n = write(fd, rest.p, rest.n < PIECE ? rest.n : PIECE);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return err_errno(errno, "cannot write %s", path);
            rest = str_sub(rest, (size_t)n, rest.n);
        }
    if (fsync(fd))
        return err_errno(errno, "cannot sync %s", path);
    return NULL;
}

static err manifest_write(struct arena *a, const char *dir)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "format", S("dhow-checkpoint 1"));
    json_key(&j, S("files"));
    json_arr(&j);
    for (int i = 0; i < FILES; i++) {
        struct str hash;
        int64_t size;
        TRY(file_sha256(a, fmtz(a, "%s/%s", dir, files[i]), &hash, &size));
        json_obj(&j);
        json_kstr(&j, "name", str_of(files[i]));
        json_ki64(&j, "bytes", size);
        json_kstr(&j, "sha256", hash);
        json_obj_end(&j);
    }
    json_arr_end(&j);
    json_obj_end(&j);
    return bytes_write(fmtz(a, "%s/manifest.json", dir), json_get(&j), S("\n"));
}

static err folder_write(struct arena *a, struct snapshot *s, const char *tmp)
{
    size_t at = 0;
    TRY(dir_make(tmp));
    for (int i = 0; i < 2; i++) {
        struct str header;
        TRY(safetensors_layout(a, &s->tensors[i], &header));
        TRY(bytes_write(fmtz(a, "%s/%s", tmp, files[i]), header, (struct str){ s->bytes + at, s->used[i] }));
        at += s->used[i];
    }
    TRY(bytes_write(fmtz(a, "%s/%s", tmp, files[2]), s->state, S("\n")));
    TRY(manifest_write(a, tmp));
    return file_sync(tmp);
}

static bool step_of(struct str name, int64_t *step)
{
    return str_starts(name, S("step-")) && str_i64(str_sub(name, 5, name.n), step) && *step >= 0;
}

static int64_t best_of(struct arena *a, const char *dir)
{
    struct str text;
    yyjson_doc *doc = NULL;
    int64_t step = -1;
    if (!file_read(a, fmtz(a, "%s/best.json", dir), 4096, &text))
        doc = yyjson_read(text.p, text.n, 0);
    yyjson_val *v = yyjson_obj_get(yyjson_doc_get_root(doc), "step");
    if (yyjson_is_int(v))
        step = yyjson_get_sint(v);
    yyjson_doc_free(doc);
    return step;
}

static int descending(const void *x, const void *y)
{
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return (a < b) - (a > b);
}

struct steps {
    VEC(int64_t) v;
};
static err steps_list(struct arena *a, const char *dir, struct steps *out)
{
    struct strs names;
    TRY(dir_list(a, dir, &names));
    for (size_t i = 0; i < names.n; i++) {
        int64_t step;
        if (step_of(names.v[i], &step))
            push(a, &out->v, step);
    }
    if (out->v.n)
        qsort(out->v.v, out->v.n, sizeof *out->v.v, descending);
    return NULL;
}

/* A name that is no step's first: a removal that is cut short leaves nothing that looks whole. */
static err step_remove(struct arena *a, const char *dir, int64_t step)
{
    const char *path = fmtz(a, "%s/step-%lld", dir, (long long)step),
               *old = fmtz(a, "%s/tmp-old-%lld", dir, (long long)step);
    if (rename(path, old))
        return errno == ENOENT ? NULL : err_errno(errno, "cannot remove %s", path);
    return dir_remove(old);
}

static err prune(struct arena *a, const struct checkpoints *c)
{
    struct steps steps = { 0 };
    int64_t best = best_of(a, c->dir);
    TRY(steps_list(a, c->dir, &steps));
    for (size_t i = (size_t)c->keep; i < steps.v.n; i++)
        if (steps.v.v[i] != best)
            TRY(step_remove(a, c->dir, steps.v.v[i]));
    return NULL;
}

static err snapshot_write(struct checkpoints *c)
{
    auto_arena struct arena *a = arena_new(0);
    struct snapshot *s = &c->snap;
    const char *path = fmtz(a, "%s/step-%lld", c->dir, (long long)s->step),
               *tmp = fmtz(a, "%s/tmp-step-%lld", c->dir, (long long)s->step);
    TRY(dir_remove(tmp));
    err e = folder_write(a, s, tmp);
    if (!e && file_exists(path)) /* written before a resume from an older one */
        e = step_remove(a, c->dir, s->step);
    if (!e)
        e = file_publish(tmp, path);
    if (e) {
        (void)dir_remove(tmp);
        return err_wrap(e, "checkpoint of step %lld", (long long)s->step);
    }
    if (s->best)
        TRY(file_write(fmtz(a, "%s/best.json", c->dir), fmt(a, "{\"step\":%lld}\n", (long long)s->step)));
    return prune(a, c);
}

static void *writer(void *arg)
{
    struct checkpoints *c = arg;
    pthread_mutex_lock(&c->lock);
    while (c->busy || !c->ending) {
        if (!c->busy) {
            pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        pthread_mutex_unlock(&c->lock);
        err e = snapshot_write(c);
        pthread_mutex_lock(&c->lock);
        if (e && !c->error)
            c->error = err_copy(e, c->error_arena);
        if (!e)
            c->last = c->snap.step;
        c->busy = false;
        pthread_cond_broadcast(&c->changed);
        err_reset();
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* ---- saving ---- */

static err leftovers_remove(const char *dir)
{
    auto_arena struct arena *a = arena_new(0);
    struct strs names;
    TRY(dir_list(a, dir, &names));
    for (size_t i = 0; i < names.n; i++)
        if (str_starts(names.v[i], S("tmp-")))
            TRY(dir_remove(fmtz(a, "%s/%.*s", dir, STR(names.v[i]))));
    return NULL;
}

err checkpoints_open(const char *dir, int keep, struct checkpoints **out)
{
    TRY(dir_make(dir));
    TRY(leftovers_remove(dir));
    struct arena *a = arena_new(0);
    struct checkpoints *c = NEW(a, struct checkpoints);
    *c = (struct checkpoints){ .a = a, .keep = keep < 1 ? 1 : keep, .last = -1 };
    c->dir = str_z(a, str_of(dir));
    c->snap.a = arena_new(0);
    c->error_arena = arena_new(0);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    err e = thread_start("checkpoints", writer, c, &c->thread);
    if (e) {
        arena_free(c->snap.a);
        arena_free(c->error_arena);
        arena_free(a);
        return e;
    }
    *out = c;
    return NULL;
}

/* With the lock: the writer has nothing to do. Its error, once, as the caller's own. */
static err settled(struct checkpoints *c)
{
    while (c->busy)
        pthread_cond_wait(&c->changed, &c->lock);
    if (!c->error)
        return NULL;
    err e = c->error;
    c->error = NULL;
    e = err_new(e->code, "%.*s", STR(e->text));
    arena_reset(c->error_arena);
    return e;
}

/* What stands for infinity and NaN has an exponent of ones. Whole numbers, as a compiler makes vectors of their tests. */
static bool all_finite(const float *p, size_t n)
{
    const uint32_t ones = 0x7f800000;
    uint32_t found = 0, bits;
    for (size_t i = 0; i < n; i++) {
        memcpy(&bits, p + i, sizeof bits);
        found |= (bits & ones) == ones;
    }
    return !found;
}

static err snapshot_take(struct snapshot *s, int64_t step, const struct checkpoint_tensors *t)
{
    size_t need = 0, at = 0;
    for (size_t i = 0; i < t->v.n; i++)
        need += floats_of(&t->v.v[i]) * sizeof(float);
    if (need > s->cap) {
        char *p = realloc(s->bytes, need);
        if (!p)
            FAIL(TOO_LARGE, "no memory is left for a copy of the model (%zu bytes)", need);
        s->bytes = p;
        s->cap = need;
    }
    s->tensors[0] = s->tensors[1] = (struct safetensors){ 0 };
    for (int part = 0; part < 2; part++) {
        size_t from = at;
        for (size_t i = 0; i < t->v.n; i++) {
            const struct checkpoint_tensor *one = &t->v.v[i];
            if (one->optim != (part == 1))
                continue;
            struct safetensor copy = { .name = str_dup(s->a, one->name),
                                       .type = TENSOR_F32,
                                       .rank = one->rank };
            memcpy(copy.dims, one->dims, sizeof copy.dims);
            push(s->a, &s->tensors[part].v, copy);
            size_t n = floats_of(one) * sizeof(float);
            if (!one->optim && !all_finite(one->p, n / sizeof(float)))
                FAIL(INVALID, "'%.*s' has numbers that are NaN or infinite after step %lld", STR(one->name),
                     (long long)step);
            if (n)
                memcpy(s->bytes + at, one->p, n);
            at += n;
        }
        s->used[part] = at - from;
    }
    return NULL;
}

err checkpoints_save(struct checkpoints *c, int64_t step, const struct checkpoint_tensors *t,
                     struct str state, bool best)
{
    LOCKED(&c->lock);
    TRY(settled(c));
    arena_reset(c->snap.a);
    TRY(snapshot_take(&c->snap, step, t));
    c->snap.step = step;
    c->snap.state = str_dup(c->snap.a, state);
    c->snap.best = best;
    c->busy = true;
    pthread_cond_broadcast(&c->changed);
    return NULL;
}

err checkpoints_wait(struct checkpoints *c)
{
    LOCKED(&c->lock);
    err e = settled(c);
    free(c->snap.bytes); /* it may be long until the next */
    c->snap.bytes = NULL;
    c->snap.cap = 0;
    return e;
}

int64_t checkpoints_last(struct checkpoints *c)
{
    LOCKED(&c->lock);
    return c->last;
}

void checkpoints_close(struct checkpoints *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->ending = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    free(c->snap.bytes);
    arena_free(c->snap.a);
    arena_free(c->error_arena);
    arena_free(c->a);
}

/* ---- finding ---- */

static void document_free(void *doc)
{
    yyjson_doc_free(doc);
}

static err json_load(struct arena *a, const char *path, yyjson_val **out)
{
    struct str text;
    TRY(file_read(a, path, STATE_MAX, &text));
    yyjson_doc *doc = yyjson_read(text.p, text.n, 0);
    if (!doc)
        FAIL(INVALID, "%s is no JSON", path);
    arena_defer(a, document_free, doc);
    *out = yyjson_doc_get_root(doc);
    return NULL;
}

static err whole_check(const char *path)
{
    auto_arena struct arena *a = arena_new(0);
    yyjson_val *manifest, *list;
    TRY(json_load(a, fmtz(a, "%s/manifest.json", path), &manifest));
    list = yyjson_obj_get(manifest, "files");
    if (!yyjson_equals_str(yyjson_obj_get(manifest, "format"), "dhow-checkpoint 1") ||
        yyjson_arr_size(list) != FILES)
        FAIL(INVALID, "%s has a manifest that is none of ours", path);
    for (size_t i = 0; i < FILES; i++) {
        yyjson_val *one = yyjson_arr_get(list, i), *sha = yyjson_obj_get(one, "sha256");
        struct str hash;
        int64_t size;
        TRY(file_sha256(a, fmtz(a, "%s/%s", path, files[i]), &hash, &size));
        if (!yyjson_equals_str(yyjson_obj_get(one, "name"), files[i]) ||
            size != yyjson_get_sint(yyjson_obj_get(one, "bytes")) || !str_eq(hash, json_text(sha)))
            FAIL(INVALID, "%s/%s is not what the manifest says", path, files[i]);
    }
    return NULL;
}

err checkpoint_find(struct arena *a, const char *dir, const char **path, struct strs *damaged)
{
    struct steps steps = { 0 };
    TRY(steps_list(a, dir, &steps));
    for (size_t i = 0; i < steps.v.n; i++) {
        const char *one = fmtz(a, "%s/step-%lld", dir, (long long)steps.v.v[i]);
        err e = whole_check(one);
        if (!e) {
            *path = one;
            return NULL;
        }
        if (damaged)
            push(a, damaged, str_dup(a, e->text));
    }
    FAIL(NOT_FOUND, "there is no whole checkpoint in %s", dir);
}

err checkpoint_best(struct arena *a, const char *dir, const char **path)
{
    int64_t step = best_of(a, dir);
    if (step < 0)
        FAIL(NOT_FOUND, "no checkpoint in %s is marked as the best", dir);
    *path = fmtz(a, "%s/step-%lld", dir, (long long)step);
    return whole_check(*path);
}

/* ---- loading ---- */

static struct str dims_text(struct arena *a, const int64_t *dims, size_t rank)
{
    struct buf b = buf_new(a);
    buf_str(&b, S("["));
    for (size_t i = 0; i < rank; i++)
        buf_fmt(&b, "%s%lld", i ? ", " : "", (long long)dims[i]);
    buf_str(&b, S("]"));
    return buf_get(&b);
}

static const struct checkpoint_tensor *wanted(const struct checkpoint_tensors *t, struct str name, bool optim)
{
    for (size_t i = 0; i < t->v.n; i++)
        if (t->v.v[i].optim == optim && str_eq(t->v.v[i].name, name))
            return &t->v.v[i];
    return NULL;
}

static err tensors_match(struct arena *a, const struct safetensors *s, const struct checkpoint_tensors *t,
                         bool optim, const char *path)
{
    for (size_t i = 0; i < t->v.n; i++) {
        const struct checkpoint_tensor *one = &t->v.v[i];
        if (one->optim != optim)
            continue;
        const struct safetensor *its = safetensors_find(s, one->name);
        if (!its)
            FAIL(INVALID, "%s is of another model: it has no tensor '%.*s'", path, STR(one->name));
        if (its->type != TENSOR_F32 || its->rank != one->rank ||
            memcmp(its->dims, one->dims, one->rank * sizeof *one->dims) != 0)
            FAIL(INVALID, "%s is of another model: tensor '%.*s' is %.*s there and %.*s here", path,
                 STR(one->name), STR(dims_text(a, its->dims, its->rank)),
                 STR(dims_text(a, one->dims, one->rank)));
    }
    for (size_t i = 0; i < s->v.n; i++)
        if (!wanted(t, s->v.v[i].name, optim))
            FAIL(INVALID, "%s is of another model: this one has no tensor '%.*s'", path, STR(s->v.v[i].name));
    return NULL;
}

err checkpoint_state(struct arena *a, const char *path, struct str *out)
{
    return file_read(a, fmtz(a, "%s/%s", path, files[2]), STATE_MAX, out);
}

err checkpoint_load(const char *path, const struct checkpoint_tensors *t)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct safetensors s[2];
    for (int i = 0; i < 2; i++) {
        struct str bytes;
        const char *file = fmtz(scratch, "%s/%s", path, files[i]);
        TRY(file_map(scratch, file, &bytes));
        TRY_AS(safetensors_read(scratch, bytes, &s[i]), "%s", file);
        TRY(tensors_match(scratch, &s[i], t, i == 1, path));
    }
    for (size_t i = 0; i < t->v.n; i++) {
        const struct checkpoint_tensor *one = &t->v.v[i];
        const struct safetensor *its = safetensors_find(&s[one->optim], one->name);
        if (its->to > its->from)
            memcpy(one->p, its->data, its->to - its->from);
    }
    return NULL;
}
