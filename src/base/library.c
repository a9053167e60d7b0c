// SPDX-License-Identifier: Apache-2.0
#include "base/library.h"
#include "base/file.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void *try_path(const char *path, const char **why)
{
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!so)
        *why = dlerror();
    return so;
}

/* The program's folder with a slash at its end; empty if the system does not say. */
static struct str program_folder(struct arena *a)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    while (n > 0 && path[n - 1] != '/')
        n--;
    return n > 0 ? str_dup(a, (struct str){ path, (size_t)n }) : S("");
}

static void *try_beside(struct arena *a, const char *name, const char **why)
{
    static const char *const places[] = {
        "lib", "../lib", "../.deps/lib", "../../.deps/lib", "../../../.deps/lib", "../../../../.deps/lib"
    };
    struct str folder = program_folder(a);
    for (size_t i = 0; folder.n > 0 && i < sizeof places / sizeof *places; i++) {
        const char *path = fmtz(a, "%.*s%s/%s", STR(folder), places[i], name);
        void *so = file_exists(path) ? try_path(path, why) : NULL;
        if (so)
            return so;
    }
    return NULL;
}

err library_open(struct arena *a, const struct library *l, const char *given, void **out)
{
    const char *why = "no such file", *env = getenv(l->env);
    const char *alone = given ? given : env && *env ? env : NULL;
    void *so = alone ? try_path(alone, &why) : NULL;
    for (const char *const *name = l->names; !alone && !so && *name; name++)
        so = try_beside(a, *name, &why);
    for (const char *const *name = l->names; !alone && !so && *name; name++)
        so = try_path(*name, &why);
    if (!so)
        return err_hint(err_new(UNAVAILABLE, "%s's library %s cannot be loaded: %s", l->what,
                                alone ? alone : l->names[0], why),
                        "%s", l->hint);
    *out = so;
    return NULL;
}

err library_bind(const struct library *l, void *so, const struct library_function *f, size_t n, void *table)
{
    for (size_t i = 0; i < n; i++) {
        void *at = dlsym(so, f[i].name);
        if (!at)
            return err_hint(err_new(UNAVAILABLE, "%s's library has no function %s", l->what, f[i].name), "%s",
                            l->hint);
        memcpy((char *)table + f[i].offset, &at, sizeof at);
    }
    return NULL;
}
