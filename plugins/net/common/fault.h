/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A hook for tests before every step that changes something; production builds compile it away. */
#ifndef NET_COMMON_FAULT_H
#define NET_COMMON_FAULT_H

#ifdef VH_NET_TEST
/* The test's: 0, or the negative errno with which this step shall fail; may end the process. */
extern int (*net_fault_hook)(const char *step);
#define NET_FAULT(step) (net_fault_hook ? net_fault_hook(step) : 0)
#else
#define NET_FAULT(step) 0
#endif

#endif
