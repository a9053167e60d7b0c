/* attention: finds attention that was written out, MatMul → Mul or Div → Add → Softmax → MatMul, as exporters and templates
 * do, and puts one node in its place that stores no scores. Heads that lie side by side stay so: their transposes go, too.
 * Where     before gradients are added, on a bound graph. What it finds gives the same numbers, to rounding.
 * Errors    none of its own: what does not fit stays. Nodes that nobody reads any more are left to graph_prune. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/graph.h"

err attention_fuse(struct graph *);
