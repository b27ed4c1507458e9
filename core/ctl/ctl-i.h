/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the parts of ctl share, and their tests. */
#ifndef CTL_CTL_I_H
#define CTL_CTL_I_H

#include "ctl/ctl.h"

int ctl_detached(void); /* whether this is `run --detach`'s child, before ctl_detach_running() */
/* Every thread's capabilities, bounding sets and the right to regain any; nothing when there are none. */
int ctl_drop_caps(struct vh_err *e);

#endif
