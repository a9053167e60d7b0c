/* onednn: convolutions by oneDNN (Debian's libdnnl, 2.x or 3.x), found at run time; without it own kernels do the work.
 * Flow     onednn_conv_new(what, sizes) --> a primitive or none; onednn_conv_run, any number of times, within the scratch asked for
 * Owns     primitives, until the arena ends.
 * Threads  one primitive belongs to one rank. oneDNN's own threads are held to one in each thread that comes here.
 * Layouts  pictures as they are given (N, C, … or N, …, C), weights (out, in, …) row-major: what the primitive wants otherwise is
 *          made at each run, in scratch; of weights that stay, once. Measured on Zen 4: with windows of 3 × 3, pictures as N, H, W, C are
 *          as fast as its blocked formats; with 1 × 1 they are 10 to 20 % slower: the price of no other layout between nodes. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/tensor.h"

enum onednn_way { ONEDNN_FORWARD, ONEDNN_BACK_DATA, ONEDNN_BACK_WEIGHTS };
struct onednn_conv_spec {
    enum onednn_way way;
    int axes; /* 2 or 3 */
    int64_t n, x_channels, y_channels, group;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], lo[3], hi[3]; /* as in struct window */
    enum tensor_type x, w, y;                                               /* F32 or BF16 */
    bool x_last, y_last;                                                    /* channels last */
    bool bias;                                                              /* FORWARD: in F32 */
    const void *weights; /* FORWARD: they stay as they are; NULL: they come with each run */
};
struct onednn_conv;
/* false: the library is not there, or has no kernel for it. */
bool onednn_conv_new(struct arena *, const struct onednn_conv_spec *, struct onednn_conv **out,
                     size_t *scratch);
/* What is computed is written: y forward, x by data, w by weights. */
void onednn_conv_run(const struct onednn_conv *, void *x, void *w, void *bias, void *y, void *scratch);
/* The library is there, and wanted. */
bool onednn_there(void);
/* Its version, or why it is not used. */
err onednn_version(struct arena *, struct str *out);
/* false: act as if it were not there. For tests, before programs are made. */
void onednn_use(bool);
