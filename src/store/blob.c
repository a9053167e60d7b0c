// SPDX-License-Identifier: Apache-2.0
/* blob: the list of backends, the check of names, and the way to the backend. */
#include "store/internal.h"

const struct blob_ops *const blob_backends[] = { &blob_files, NULL };

err blobs_open_mode(struct str dir, bool read_only, struct blobs **out)
{
    return blob_files.open(dir, read_only, out);
}

err blobs_open(struct str dir, struct blobs **out)
{
    return blobs_open_mode(dir, false, out);
}

void blobs_close(struct blobs *b)
{
    if (b)
        b->ops->close(b);
}

static err sha_check(struct str sha)
{
    bool good = sha.n == 64;
    for (size_t i = 0; good && i < sha.n; i++)
        good = (sha.p[i] >= '0' && sha.p[i] <= '9') || (sha.p[i] >= 'a' && sha.p[i] <= 'f');
    if (!good)
        FAIL(INVALID, "a blob is named by 64 hex digits of its SHA-256");
    return NULL;
}

err blob_put(struct blobs *b, struct arena *a, struct str bytes, struct str *sha)
{
    return b->ops->put(b, a, bytes, sha);
}

err blob_take(struct blobs *b, struct arena *a, const char *path, struct str *sha, int64_t *size)
{
    return b->ops->take(b, a, path, sha, size);
}

const char *blob_tmp(struct blobs *b, struct arena *a, struct str suffix)
{
    return b->ops->tmp(b, a, suffix);
}

err blob_get(struct blobs *b, struct arena *a, struct str sha, struct str *out)
{
    TRY(sha_check(sha));
    return b->ops->get(b, a, sha, out);
}

err blob_drop(struct blobs *b, struct arena *a, struct str sha)
{
    TRY(sha_check(sha));
    return b->ops->drop(b, a, sha);
}

err blob_path(struct blobs *b, struct arena *a, struct str sha, const char **out)
{
    TRY(sha_check(sha));
    return b->ops->path(b, a, sha, out);
}
